//! Sending to processes and groups.

use std::os::fd::{FromRawFd, OwnedFd};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{Child, Command};

use forkyard::signal::{self, Signal};
use forkyard_sys::{Errno, Pid};

use crate::alone::realtime;

fn sleeper(group: Option<i32>) -> Child {
    let mut command = Command::new("sleep");
    command.arg("1000");
    if let Some(group) = group {
        command.process_group(group);
    }
    command.spawn().unwrap()
}

fn pid(child: &Child) -> Pid {
    Pid::from_raw(child.id().cast_signed()).unwrap()
}

fn pidfd(child: &Child) -> OwnedFd {
    // SAFETY: the child is not reaped; the call returns a new fd.
    unsafe {
        let fd = libc::syscall(libc::SYS_pidfd_open, child.id(), 0);
        OwnedFd::from_raw_fd(i32::try_from(fd).unwrap())
    }
}

#[test]
fn a_pidfd_reaches_its_process_and_never_another() {
    let mut child = sleeper(None);
    let pidfd = pidfd(&child);
    signal::send(&pidfd, Signal::TERM).unwrap();
    assert_eq!(child.wait().unwrap().signal(), Some(libc::SIGTERM));
    for error in [signal::send(&pidfd, Signal::TERM), signal::send_value(&pidfd, Signal::TERM, 1)] {
        let error = error.unwrap_err();
        assert_eq!(error.errno(), Some(Errno::SRCH));
        assert!(
            error.to_string().contains("SIGTERM") && error.to_string().contains("it has ended"),
            "{error}"
        );
    }
    let mut child = sleeper(None);
    signal::send_value(self::pidfd(&child), realtime(1), 5).unwrap();
    assert_eq!(child.wait().unwrap().signal(), Some(realtime(1).number()));
}

#[test]
fn a_number_reaches_a_child_that_nobody_has_reaped() {
    let mut child = sleeper(None);
    signal::send_to_pid(pid(&child), Signal::KILL).unwrap();
    assert_eq!(child.wait().unwrap().signal(), Some(libc::SIGKILL));
    let mut child = sleeper(None);
    signal::send_value_to_pid(pid(&child), Signal::USR1, 5).unwrap();
    assert_eq!(child.wait().unwrap().signal(), Some(libc::SIGUSR1));
}

#[test]
fn a_group_is_reached_whole() {
    let mut leader = sleeper(Some(0));
    let mut second = sleeper(Some(leader.id().cast_signed()));
    signal::send_to_group(pid(&leader), Signal::INT).unwrap();
    assert_eq!(leader.wait().unwrap().signal(), Some(libc::SIGINT));
    assert_eq!(second.wait().unwrap().signal(), Some(libc::SIGINT));
    assert!(signal::send_to_group(Pid::INIT, Signal::CONT).is_err(), "never everybody");
}
