//! After the requester's death: nothing guarded remains.
//!
//! Every process that the dead requester's guarded children started carries its token in the part of its
//! memory that `/proc/PID/environ` shows: a copy has it from the zygote, a program from its environment. Parents do not
//! matter, so it finds what has been reparented. A process that the kernel kills is opened first and read
//! afterwards, so a recycled number is never hit.

use std::os::fd::AsFd;

use forkyard_sys::{Pid, pidfd};

const SIGKILL: i32 = 9;

/// Kills every other process that carries the token, until none is found.
pub(crate) fn sweep(token: &str) {
    // A process could fork faster than one pass; a second pass that finds nothing proves the end of that.
    while pass(token.as_bytes()) > 0 {}
}

fn pass(token: &[u8]) -> usize {
    let Ok(entries) = std::fs::read_dir("/proc") else { return 0 };
    let own = pidfd::own_pid();
    let pids = entries
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
        .filter_map(Pid::from_raw)
        .filter(|&pid| pid != own);
    pids.filter(|&pid| kill_if_marked(pid, token)).count()
}

fn kill_if_marked(pid: Pid, token: &[u8]) -> bool {
    let Ok(process) = pidfd::open(pid) else { return false };
    let Ok(environment) = std::fs::read(format!("/proc/{}/environ", pid.as_raw_nonzero())) else {
        return false;
    };
    environment.windows(token.len()).any(|window| window == token)
        && pidfd::send_signal(process.as_fd(), SIGKILL).is_ok()
}
