//! Pipes and Unix sockets: messages of one size, without a header.

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;

use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};

use super::{Get, Put, Work, one_way, there_and_back};

struct Writer(File);

impl Put for Writer {
    fn put(&mut self, message: &[u8]) {
        self.0.write_all(message).expect("write");
    }
}

struct Reader(File, Vec<u8>);

impl Get for Reader {
    fn get(&mut self, look: &mut impl FnMut(&[u8])) -> bool {
        let got = self.0.read_exact(&mut self.1).is_ok();
        if got {
            look(&self.1);
        }
        got
    }
}

fn file(fd: &OwnedFd) -> File {
    File::from(fd.try_clone().expect("a descriptor"))
}

fn run(
    size: usize,
    work: Work,
    pair: impl Fn() -> std::io::Result<(OwnedFd, OwnedFd)>,
) -> Result<f64, String> {
    let pair = || pair().map_err(|error| error.to_string());
    let (read, write) = pair()?;
    let writer = || Writer(file(&write));
    let reader = |read: &OwnedFd| Reader(file(read), vec![0; size]);
    if let Work::RoundTrip(length) = work {
        let (read_back, write_back) = pair()?;
        let first = |_: &dyn Fn()| (writer(), reader(&read_back));
        let second = |_: &dyn Fn()| (Writer(file(&write_back)), reader(&read));
        return Ok(there_and_back(size, length, first, second, true));
    }
    // The end is seen when nobody can write any more: so who reads must not have that end.
    let raw = std::os::fd::AsRawFd::as_raw_fd(&write);
    let reads = || {
        // SAFETY: closes the child's copy of a descriptor that it does not use; its owner is never dropped there.
        unsafe { libc::close(raw) };
        reader(&read)
    };
    let mut write_end = None;
    let rate = one_way(size, work, writer, reads, |_| {
        // SAFETY: `write` is forgotten below, so this is its only close.
        unsafe { libc::close(raw) };
        write_end = Some(());
    });
    std::mem::forget(write);
    Ok(rate)
}

pub(super) fn pipe(size: usize, work: Work) -> Result<f64, String> {
    if !matches!(work, Work::OneWay((1, 1), _) | Work::RoundTrip(_) | Work::Some(_)) && size > 4096 {
        return Err("messages of more than PIPE_BUF would mix".into());
    }
    run(size, work, || Ok(rustix::pipe::pipe()?))
}

pub(super) fn socket(size: usize, work: Work) -> Result<f64, String> {
    if matches!(work, Work::OneWay((1, 1), _) | Work::RoundTrip(_) | Work::Some(_)) {
        return run(size, work, || UnixStream::pair().map(|(one, other)| (one.into(), other.into())));
    }
    if size > 64 << 10 {
        return Err("a message is larger than a socket takes".into());
    }
    let flags = SocketFlags::empty();
    run(size, work, || Ok(socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None)?))
}
