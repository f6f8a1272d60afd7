//! The classic prefork server, in C calls only: workers with an epoll loop each, capitals back.
//!
//! usage: c_prefork WORKERS shared|own   prints its port
//!
//! `shared`: one listener in every worker's epoll (`EPOLLEXCLUSIVE`); whoever is idle takes the connection, so
//! few busy workers may hold them all. `own`: a listener per worker on one port (`SO_REUSEPORT`), so that the
//! kernel spreads the connections. Level-triggered, one buffer.
//! Killed here: the workers get SIGTERM from the kernel (`PR_SET_PDEATHSIG`).
//!
//! # Safety
//! Every pointer passed to the kernel is a local variable or `argv`, with its own length.
#![no_std]
#![no_main]

use core::mem::{size_of, zeroed};
use core::ptr::null_mut;

#[link(name = "c")]
unsafe extern "C" {}

/// The C entry point.
///
/// # Safety
/// `argv` holds `argc` strings and a null, as the C start code gives them.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn main(argc: i32, argv: *const *const libc::c_char) -> i32 {
    if argc != 3 {
        return 2;
    }
    // SAFETY: there are two arguments, and an argument has at least its terminating zero.
    let (workers, shared) = unsafe { (libc::atoi(*argv.add(1)), **argv.add(2) == b's' as libc::c_char) };
    let first = listen(0);
    let port = port_of(first);
    for n in 0..workers {
        let listener = if shared || n == 0 { first } else { listen(port) };
        // SAFETY: this process has one thread, so its child may run any code.
        if unsafe { libc::fork() } == 0 {
            // SAFETY: takes no pointer.
            unsafe { libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGTERM) };
            work(listener);
        }
        if !shared {
            // SAFETY: the worker has its own copy, and this one is used no more.
            unsafe { libc::close(listener) };
        }
    }
    // SAFETY: the format takes one int; `pause` takes nothing.
    unsafe {
        libc::printf(c"%d\n".as_ptr(), i32::from(port));
        libc::fflush(null_mut());
        loop {
            libc::pause();
        }
    }
}

/// A listener on a loopback port; 0 takes a free one.
fn listen(port: u16) -> i32 {
    // SAFETY: `addr` and `on` are local and given with their own lengths.
    unsafe {
        let fd = libc::socket(libc::AF_INET, libc::SOCK_STREAM | libc::SOCK_NONBLOCK, 0);
        let on = 1i32;
        let size = size_of::<i32>() as libc::socklen_t;
        libc::setsockopt(fd, libc::SOL_SOCKET, libc::SO_REUSEPORT, (&raw const on).cast(), size);
        let mut addr: libc::sockaddr_in = zeroed();
        addr.sin_family = libc::AF_INET as u16;
        addr.sin_port = port.to_be();
        addr.sin_addr.s_addr = libc::INADDR_LOOPBACK.to_be();
        let len = size_of::<libc::sockaddr_in>() as libc::socklen_t;
        if libc::bind(fd, (&raw const addr).cast(), len) != 0 || libc::listen(fd, 1024) != 0 {
            libc::_exit(1);
        }
        fd
    }
}

fn port_of(fd: i32) -> u16 {
    // SAFETY: `addr` is local and given with its own length.
    unsafe {
        let mut addr: libc::sockaddr_in = zeroed();
        let mut len = size_of::<libc::sockaddr_in>() as libc::socklen_t;
        libc::getsockname(fd, (&raw mut addr).cast(), &raw mut len);
        u16::from_be(addr.sin_port)
    }
}

/// One worker: accepts, answers, never ends by itself.
fn work(listener: i32) -> ! {
    // SAFETY: takes no pointer.
    let epoll = unsafe { libc::epoll_create1(0) };
    watch(epoll, listener, libc::EPOLLIN | libc::EPOLLEXCLUSIVE);
    let mut ready = [libc::epoll_event { events: 0, u64: 0 }; 64];
    loop {
        // SAFETY: the array is local and its own length is given.
        let n = unsafe { libc::epoll_wait(epoll, ready.as_mut_ptr(), ready.len() as i32, -1) };
        for event in ready.iter().take(n.max(0) as usize) {
            let fd = event.u64 as i32;
            if fd == listener {
                // SAFETY: no address is asked for.
                let conn = unsafe { libc::accept4(listener, null_mut(), null_mut(), libc::SOCK_NONBLOCK) };
                if conn >= 0 {
                    watch(epoll, conn, libc::EPOLLIN);
                }
            } else {
                answer(fd);
            }
        }
    }
}

fn watch(epoll: i32, fd: i32, events: i32) {
    let mut event = libc::epoll_event { events: events as u32, u64: fd as u64 };
    // SAFETY: the event is local.
    unsafe { libc::epoll_ctl(epoll, libc::EPOLL_CTL_ADD, fd, &raw mut event) };
}

/// One read, one write back in capitals; closes at the end of the input.
fn answer(conn: i32) {
    let mut line = [0u8; 4096];
    // SAFETY: the buffer is local and its own length is given.
    let n = unsafe { libc::read(conn, line.as_mut_ptr().cast(), line.len()) };
    if let Some(text) = usize::try_from(n).ok().filter(|&n| n > 0).and_then(|n| line.get_mut(..n)) {
        text.make_ascii_uppercase();
        // SAFETY: `text` is a part of the local buffer.
        unsafe { libc::write(conn, text.as_ptr().cast(), text.len()) };
    } else {
        // SAFETY: `conn` was accepted by this worker and is used no more; epoll forgets it.
        unsafe { libc::close(conn) };
    }
}

#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    // SAFETY: ends this process.
    unsafe { libc::_exit(101) }
}
