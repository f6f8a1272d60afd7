//! What a start looks like that does not survive the test: the server forks and then says so, and nothing else tells
//! of the child. Killed in between, it makes the requester start the child once more.
//!
//! # Safety
//! Both processes have one thread when they fork; what the copies do is system calls and the log.
#![allow(unsafe_code, reason = "each unsafe block has its own reason")]

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;

use crate::requester::{self, Role};
use crate::zygote::Case;

pub(crate) fn a_naive_start_loses_children() -> bool {
    let case = Case::new("control: naive fork server killed while it answers", Role::NaiveRequester);
    case.kill_everywhere(60, 10_000) > 0
}

/// The requester's main function.
pub(crate) fn main() {
    let mut server = fork_server();
    for line in std::io::stdin().lines() {
        let line = line.unwrap();
        let number: u64 = line.rsplit(' ').next().unwrap().parse().unwrap();
        loop {
            let mut pid = [0; 4];
            let asked =
                server.1.write_all(&number.to_ne_bytes()).and_then(|()| server.1.read_exact(&mut pid));
            if asked.is_ok() {
                println!("ok {}", i32::from_ne_bytes(pid));
                break;
            }
            // SAFETY: numbers, and null.
            unsafe { libc::waitpid(server.0, std::ptr::null_mut(), 0) };
            server = fork_server();
        }
    }
}

fn fork_server() -> (i32, UnixStream) {
    let (ours, mut theirs) = UnixStream::pair().unwrap();
    // SAFETY: see the heading.
    let pid = unsafe { libc::fork() };
    if pid != 0 {
        return (pid, ours);
    }
    drop(ours);
    let mut number = [0; 8];
    while theirs.read_exact(&mut number).is_ok() {
        // SAFETY: see the heading.
        let child = unsafe { libc::fork() };
        if child == 0 {
            requester::note_run(u64::from_ne_bytes(number));
            // SAFETY: numbers only.
            unsafe { libc::_exit(0) }
        }
        // The kernel may not keep a status: then there is nothing to wait for.
        // SAFETY: numbers, and null.
        unsafe { libc::waitpid(child, std::ptr::null_mut(), 0) };
        if theirs.write_all(&child.to_ne_bytes()).is_err() {
            break;
        }
    }
    // SAFETY: numbers only.
    unsafe { libc::_exit(0) }
}
