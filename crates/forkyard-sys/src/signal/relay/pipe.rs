//! The pipe from the handler to the reader, one per process.
//!
//! `State` lies on a page of its own that the kernel clears in a forked child (`MADV_WIPEONFORK`), so a child
//! starts without a pipe and cannot write to its parent's. Who comes first in the child, the handler or
//! [`open`], makes one and publishes it with a compare-and-swap. A child of vfork shares the page, and is told
//! by its pid: what arrives there is not written at all.
//!
//! | field | written by | read by |
//! |---|---|---|
//! | `PAGE` | [`open`], once | handler, reader |
//! | `State::pipe` | who makes the pipe, once per process | handler, reader |
//! | `State::identity` | who makes the pipe, after `pipe` | handler |
//! | `State::overflow` | handler sets bits, reader takes them all | reader |
//! | `State::reader` | the reader's maker, under his lock | the same |
//! | `State::lost` | handler counts up | anybody |
//! | `PARENT` | [`open`] | [`open`], in a child: what to close |
//!
//! # Safety
//! The page is mapped once and never unmapped; the raw calls write to local arrays and from local records.
#![allow(unsafe_code)]

use std::os::fd::RawFd;
use std::sync::atomic::{AtomicPtr, AtomicU64, Ordering};

use rustix::io::Errno;
use rustix::mm::{Advice, MapFlags, ProtFlags};

use crate::Result;
use crate::signal::{Signal, SignalInfo, SignalSet};
use crate::wait::last_errno;

#[repr(C)]
struct State {
    /// `Pipe` in one word; 0: this process has none yet.
    pipe: AtomicU64,
    /// Of the file behind the pipe's ends; 0: not known yet. If the program closes fds that are not its own,
    /// the handler must not write to the file that got their number.
    identity: AtomicU64,
    /// One bit for each signal that met a full pipe.
    overflow: AtomicU64,
    /// 1: this process has a thread that reads.
    reader: AtomicU64,
    /// How many signals met a full pipe.
    lost: AtomicU64,
}

static PAGE: AtomicPtr<State> = AtomicPtr::new(std::ptr::null_mut());

/// The pipe of the process that last called `open`, and its identity.
static PARENT: [AtomicU64; 2] = [AtomicU64::new(0), AtomicU64::new(0)];

/// A pipe and the process that it belongs to: 22 bits of pid (the kernel's limit), 21 bits for each fd.
#[derive(Clone, Copy)]
struct Pipe {
    pid: u32,
    read_end: RawFd,
    write_end: RawFd,
}

const FD_BITS: u32 = 21;

impl Pipe {
    fn pack(self) -> u64 {
        let fd = |fd: RawFd| u64::from(fd.cast_unsigned());
        u64::from(self.pid) << (2 * FD_BITS) | fd(self.read_end) << FD_BITS | fd(self.write_end)
    }

    fn unpack(word: u64) -> Option<Pipe> {
        let fd = |word: u64| (word & ((1 << FD_BITS) - 1)) as RawFd;
        let pid = (word >> (2 * FD_BITS)) as u32;
        (word != 0).then_some(Pipe { pid, read_end: fd(word >> FD_BITS), write_end: fd(word) })
    }
}

/// One signal as it goes through the pipe: far below `PIPE_BUF`, so a write is whole or fails.
#[derive(Clone, Copy)]
#[repr(C)]
pub struct Record {
    signal: i32,
    code: i32,
    union: [i32; 3],
}

impl Record {
    /// What a buffer is filled with, and what wakes the reader without a signal.
    pub const NONE: Record = Record { signal: 0, code: 0, union: [0; 3] };

    /// The signal, unless it is [`NONE`](Record::NONE).
    #[must_use]
    pub fn info(&self) -> Option<SignalInfo> {
        Some(SignalInfo::from_parts(Signal::new(self.signal)?, self.code, self.union))
    }
}

fn state() -> Option<&'static State> {
    // SAFETY: null, or the page, which is never unmapped; zeroes are a valid `State`.
    unsafe { PAGE.load(Ordering::Acquire).as_ref() }
}

/// Maps the page if this program has none, and makes a pipe if this process has none.
pub(super) fn open() -> Result<()> {
    let state = match state() {
        Some(state) => state,
        None => map()?,
    };
    let pipe = Pipe::unpack(own_pipe(state)?);
    if let Some(pipe) = pipe
        && pipe.pack() != PARENT[0].load(Ordering::Relaxed)
    {
        close_parents();
        PARENT[0].store(pipe.pack(), Ordering::Relaxed);
        PARENT[1].store(identity(pipe.read_end), Ordering::Relaxed);
    }
    Ok(())
}

fn map() -> Result<&'static State> {
    // SAFETY: a new private mapping, which the kernel zeroes; nobody else knows it. Both lengths are rounded
    // up to a page by the kernel.
    let page = unsafe {
        let page = rustix::mm::mmap_anonymous(
            std::ptr::null_mut(),
            size_of::<State>(),
            ProtFlags::READ | ProtFlags::WRITE,
            MapFlags::PRIVATE,
        )?;
        rustix::mm::madvise(page, size_of::<State>(), Advice::LinuxWipeOnFork)?;
        page
    };
    PAGE.store(page.cast(), Ordering::Release);
    state().ok_or(Errno::NOMEM)
}

/// This process's pipe, made now if need be. Async-signal-safe.
fn own_pipe(state: &State) -> Result<u64> {
    let word = state.pipe.load(Ordering::Acquire);
    if word != 0 {
        return Ok(word);
    }
    let mut ends = [0; 2];
    // SAFETY: writes two fds to a local array.
    if unsafe { libc::pipe2(ends.as_mut_ptr(), libc::O_CLOEXEC) } != 0 {
        return Err(last_errno());
    }
    let [read_end, write_end] = ends;
    // Only the handler's end does not block.
    // SAFETY: sets a flag of the fd just made.
    let set = unsafe { libc::fcntl(write_end, libc::F_SETFL, libc::O_NONBLOCK) };
    let fits = ends.iter().all(|fd| *fd < 1 << FD_BITS);
    let mine = Pipe { pid: getpid(), read_end, write_end }.pack();
    let published = if set == 0 && fits {
        state.pipe.compare_exchange(0, mine, Ordering::AcqRel, Ordering::Acquire)
    } else {
        close(ends);
        return Err(Errno::MFILE);
    };
    match published {
        Ok(_) => {
            state.identity.store(identity(write_end), Ordering::Release);
            Ok(mine)
        }
        Err(others) => {
            close(ends);
            Ok(others)
        }
    }
}

fn close(ends: [RawFd; 2]) {
    for fd in ends {
        // SAFETY: an fd that this file has made, and that nobody else knows.
        unsafe { libc::close(fd) };
    }
}

/// In a forked child: closes the copies of the parent's pipe, if these numbers still mean that pipe.
fn close_parents() {
    let Some(parents) = Pipe::unpack(PARENT[0].load(Ordering::Relaxed)) else { return };
    for fd in [parents.read_end, parents.write_end] {
        if identity(fd) == PARENT[1].load(Ordering::Relaxed) {
            // SAFETY: checked just now to be an end of the parent's pipe.
            unsafe { libc::close(fd) };
        }
    }
}

/// A number for the file behind an fd, the same for both ends of a pipe; 0 if the fd is closed.
/// Async-signal-safe.
fn identity(fd: RawFd) -> u64 {
    // SAFETY: all-zero is a valid `stat`, and fstat writes to this local one.
    unsafe {
        let mut stat: libc::stat = std::mem::zeroed();
        if libc::fstat(fd, &raw mut stat) == 0 { stat.st_ino ^ stat.st_dev.rotate_left(32) } else { 0 }
    }
}

fn getpid() -> u32 {
    // SAFETY: no arguments; a plain system call in every glibc that Rust supports.
    unsafe { libc::getpid() }.cast_unsigned()
}

/// The handler's side: writes the record, or remembers that it did not fit. Async-signal-safe.
pub(super) fn report(info: &SignalInfo) {
    let Some(state) = state() else { return };
    let pipe = own_pipe(state).ok().and_then(Pipe::unpack);
    if pipe.is_some_and(|pipe| pipe.pid != getpid()) {
        return; // a child of vfork, which shares our memory
    }
    let known = state.identity.load(Ordering::Acquire);
    let pipe = pipe.filter(|pipe| known == 0 || known == identity(pipe.write_end));
    let write = |record: &Record| pipe.is_some_and(|pipe| write(pipe.write_end, record));
    let signal = info.signal();
    let (code, union) = info.parts();
    if write(&Record { signal: signal.number(), code, union }) {
        return;
    }
    state.lost.fetch_add(1, Ordering::Relaxed);
    state.overflow.fetch_or(SignalSet::from(signal).bits(), Ordering::Release);
    // The reader may have emptied the pipe between the two: wake it. If the pipe is full still, the reader
    // has yet to come, and looks at the bits after it has read.
    write(&Record::NONE);
}

fn write(fd: RawFd, record: &Record) -> bool {
    let size = size_of::<Record>();
    // SAFETY: reads `size` bytes of a record without padding.
    unsafe { libc::write(fd, std::ptr::from_ref(record).cast(), size) == size.cast_signed() }
}

/// The reader's side: waits for records and takes as many as there are and fit.
///
/// # Errors
/// `EBADF`, or what reading somebody else's file gives, after the program has closed fds that are not its own.
pub fn read(buffer: &mut [Record]) -> Result<usize> {
    let pipe = state().and_then(|state| Pipe::unpack(state.pipe.load(Ordering::Acquire)));
    let Some(pipe) = pipe else { return Err(Errno::BADF) };
    loop {
        // SAFETY: fills at most the buffer; any bytes are valid records.
        let got =
            unsafe { libc::read(pipe.read_end, buffer.as_mut_ptr().cast(), std::mem::size_of_val(buffer)) };
        match usize::try_from(got) {
            Ok(0) => return Err(Errno::PIPE),
            Ok(got) => return Ok(got / size_of::<Record>()),
            Err(_) if last_errno() == Errno::INTR => {}
            Err(_) => return Err(last_errno()),
        }
    }
}

/// True if [`note_reader`] was called in this process, and not only in one that it was forked from.
#[must_use]
pub fn has_reader() -> bool {
    state().is_some_and(|state| state.reader.load(Ordering::Relaxed) != 0)
}

/// Notes that this process has a thread that reads.
pub fn note_reader() {
    if let Some(state) = state() {
        state.reader.store(1, Ordering::Relaxed);
    }
}

/// The signals that met a full pipe since the last call, each once.
pub fn take_overflow() -> impl Iterator<Item = SignalInfo> {
    let bits = state().map_or(0, |state| state.overflow.swap(0, Ordering::Acquire));
    SignalSet::from_bits(bits).iter().map(SignalInfo::lost)
}

/// How many signals of this process met a full pipe so far.
#[must_use]
pub fn lost() -> u64 {
    state().map_or(0, |state| state.lost.load(Ordering::Relaxed))
}
