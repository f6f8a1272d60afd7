//! The classic accept+fork server, in C calls only: one process per connection, capitals back.
//!
//! usage: c_fork [PROGRAM [ARGUMENT…]]   prints its port; with PROGRAM the child executes it on fd 0 and 1
//!
//! The leanest honest form: children are reaped by the kernel (`SA_NOCLDWAIT`), the child uses one buffer
//! and leaves by `_exit`, which closes its socket. Killed here: the listener goes with it, children finish.
//!
//! # Safety
//! Every pointer passed to the kernel is a local variable or `argv`, with its own length.
#![no_std]
#![no_main]

use core::mem::{size_of, zeroed};
use core::ptr::{null, null_mut};

#[link(name = "c")]
unsafe extern "C" {}

/// The C entry point.
///
/// # Safety
/// `argv` holds `argc` strings and a null, as the C start code gives them.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn main(argc: i32, argv: *const *const libc::c_char) -> i32 {
    // SAFETY: all-zero is a valid `sigaction`, and both pointers are to live or null values.
    unsafe {
        let mut auto_reap: libc::sigaction = zeroed();
        auto_reap.sa_sigaction = libc::SIG_DFL;
        auto_reap.sa_flags = libc::SA_NOCLDWAIT;
        libc::sigaction(libc::SIGCHLD, &auto_reap, null_mut());
    }
    let listener = listen();
    if listener < 0 {
        return 1;
    }
    loop {
        // SAFETY: no address is asked for.
        let conn = unsafe { libc::accept4(listener, null_mut(), null_mut(), 0) };
        if conn < 0 {
            continue;
        }
        // SAFETY: this process has one thread, so its child may run any code.
        if unsafe { libc::fork() } == 0 {
            if argc > 1 {
                execute(conn, argv);
            }
            serve(conn);
        }
        // SAFETY: `conn` was opened above and is used no more here.
        unsafe { libc::close(conn) };
    }
}

/// A listener on a free loopback port, which is printed.
fn listen() -> i32 {
    // SAFETY: `addr` is a full IPv4 address, given with its own length.
    unsafe {
        let fd = libc::socket(libc::AF_INET, libc::SOCK_STREAM | libc::SOCK_CLOEXEC, 0);
        let mut addr: libc::sockaddr_in = zeroed();
        let mut len = size_of::<libc::sockaddr_in>() as libc::socklen_t;
        addr.sin_family = libc::AF_INET as u16;
        addr.sin_addr.s_addr = libc::INADDR_LOOPBACK.to_be();
        if libc::bind(fd, (&raw const addr).cast(), len) != 0 || libc::listen(fd, 1024) != 0 {
            return -1;
        }
        libc::getsockname(fd, (&raw mut addr).cast(), &raw mut len);
        libc::printf(c"%d\n".as_ptr(), i32::from(u16::from_be(addr.sin_port)));
        libc::fflush(null_mut());
        fd
    }
}

/// Answers every line in capitals until the client is done.
fn serve(conn: i32) -> ! {
    let mut line = [0u8; 4096];
    loop {
        // SAFETY: the buffer is local and its own length is given.
        let n = unsafe { libc::read(conn, line.as_mut_ptr().cast(), line.len()) };
        if n <= 0 {
            break;
        }
        let Some(text) = line.get_mut(..n as usize) else { break };
        text.make_ascii_uppercase();
        // SAFETY: `text` is a part of the local buffer.
        if unsafe { libc::write(conn, text.as_ptr().cast(), text.len()) } != n {
            break;
        }
    }
    // SAFETY: ends this process.
    unsafe { libc::_exit(0) }
}

/// Becomes the program, with the connection on fd 0 and 1.
fn execute(conn: i32, argv: *const *const libc::c_char) -> ! {
    // SAFETY: `argv` ends in null, and has a first argument by the caller's check.
    unsafe {
        libc::dup2(conn, 0);
        libc::dup2(conn, 1);
        libc::close(conn);
        let mut default: libc::sigaction = zeroed();
        default.sa_sigaction = libc::SIG_DFL;
        libc::sigaction(libc::SIGCHLD, &default, null_mut());
        let environment: [*const libc::c_char; 2] = [c"PROTO=TCP".as_ptr(), null()];
        libc::execve(*argv.add(1), argv.add(1), environment.as_ptr());
        libc::_exit(111)
    }
}

#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    // SAFETY: ends this process.
    unsafe { libc::_exit(101) }
}
