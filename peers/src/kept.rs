//! A load generator: connections that stay open, one line in flight on each.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddrV4, TcpStream};
use std::time::{Duration, Instant};

use rustix::buffer::spare_capacity;
use rustix::event::{Timespec, epoll};

/// Longer without any reply is a hang.
const HUNG: Duration = Duration::from_secs(10);

/// Replies per second over `length` on `connections` connections, after a tenth of it as a warm-up.
pub fn requests_per_second(addr: SocketAddrV4, connections: usize, length: Duration) -> Result<f64, String> {
    run(addr, connections, length).map_err(|e| e.to_string())
}

fn run(addr: SocketAddrV4, connections: usize, length: Duration) -> std::io::Result<f64> {
    let epoll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
    let mut streams = Vec::with_capacity(connections);
    for at in 0..connections {
        let mut stream = TcpStream::connect(addr)?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(HUNG))?;
        ask(&mut stream)?;
        answer(&mut stream)?;
        epoll::add(&epoll, &stream, epoll::EventData::new_u64(at as u64), epoll::EventFlags::IN)?;
        streams.push(stream);
    }
    for stream in &mut streams {
        ask(stream)?;
    }
    let limit = Timespec::try_from(HUNG).map_err(std::io::Error::other)?;
    let mut events = Vec::with_capacity(connections);
    let mut measure = |length: Duration| {
        let begin = Instant::now();
        let mut replies = 0u64;
        while begin.elapsed() < length {
            events.clear();
            if epoll::wait(&epoll, spare_capacity(&mut events), Some(&limit))? == 0 {
                return Err(std::io::Error::other("no reply for 10 s"));
            }
            for event in &events {
                let event: &epoll::Event = event;
                let Some(stream) = streams.get_mut({ event.data }.u64() as usize) else { continue };
                answer(stream)?;
                ask(stream)?;
                replies += 1;
            }
        }
        Ok(replies as f64 / begin.elapsed().as_secs_f64())
    };
    measure(length / 10)?;
    measure(length)
}

fn ask(stream: &mut TcpStream) -> std::io::Result<()> {
    stream.write_all(b"hello\n")
}

fn answer(stream: &mut TcpStream) -> std::io::Result<()> {
    let mut reply = [0; 6];
    stream.read_exact(&mut reply)?;
    if reply == *b"HELLO\n" { Ok(()) } else { Err(std::io::Error::other("wrong reply")) }
}
