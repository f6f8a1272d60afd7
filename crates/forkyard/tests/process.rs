//! Processes: values, endings, joining.

#![allow(
    unsafe_code,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test fails by a panic; each unsafe block has its own reason"
)]

mod common;

use std::time::Duration;

use common::{METHODS, builder};
use forkyard::process::{self, Ended};

#[forkyard::task]
fn add(a: u64, b: u64) -> u64 {
    a + b
}

#[forkyard::task]
fn repeat(text: String, times: usize) -> String {
    text.repeat(times)
}

#[forkyard::task]
fn fail(how: String) -> u8 {
    match how.as_str() {
        "panic" => panic!("no more {}", "tea"),
        "exit" => process::exit(3),
        "std exit" => std::process::exit(5),
        "_exit" => process::_exit(4),
        "abort" => std::process::abort(),
        _ => 0,
    }
}

#[forkyard::task]
fn park_for_ever() {
    loop {
        std::thread::park();
    }
}

#[forkyard::task]
fn a_descriptor() -> process::Fd {
    std::fs::File::open("/dev/null").unwrap().into()
}

#[test]
fn what_cannot_travel_says_why() {
    let returned = process::spawn(a_descriptor, ()).unwrap().join().unwrap_err();
    assert!(returned.to_string().contains("a file descriptor travels only"), "{returned}");
    let queue = forkyard::channel::Queue::<process::Fd>::bounded(1).unwrap();
    let put = queue.put(std::fs::File::open("/dev/null").unwrap().into()).unwrap_err();
    assert!(put.to_string().contains("a file descriptor travels only"), "{put}");
}

#[forkyard::task]
fn value_travels() {
    for start in METHODS {
        let child = builder(start).spawn(add, (2, 40)).unwrap();
        assert_eq!(child.join().unwrap(), 42);
        assert!(child.exit_status().unwrap().success());
        assert!(child.exit_status().unwrap().usage().is_some());
    }
    let (a, b) = (String::from("captured"), 7);
    assert_eq!(process::fork(move || a.repeat(b)).unwrap().join().unwrap().len(), 56);
}

#[test]
fn a_value_travels_back() {
    common::isolated(value_travels);
}

#[forkyard::task]
fn large_values_travel() {
    for start in METHODS {
        for len in [50, 104, 105, 5000, 300_000] {
            let child = builder(start).spawn(repeat, ("x".repeat(len), 10)).unwrap();
            assert_eq!(child.join().unwrap().len(), 10 * len);
        }
    }
}

#[test]
fn large_values_and_arguments_travel() {
    common::isolated(large_values_travel);
}

#[test]
fn a_task_is_still_a_function() {
    assert_eq!(add(1, 2), 3);
}

#[forkyard::task]
fn endings() {
    for start in METHODS {
        let run = |how: &str| builder(start).spawn(fail, (how.to_owned(),)).unwrap().join().unwrap_err();
        let error = run("panic");
        let panic = error.panic().unwrap();
        assert_eq!(panic.message, "no more tea");
        assert!(panic.location.as_ref().unwrap().contains("tests/process.rs"), "{panic:?}");
        assert!(panic.backtrace.as_ref().unwrap().contains("fail"), "{panic:?}");
        assert_eq!(error.exit_status().unwrap().code(), Some(101));
        for (how, ended, code) in
            [("exit", Ended::Exit, 3), ("std exit", Ended::Exit, 5), ("_exit", Ended::QuickExit, 4)]
        {
            let error = run(how);
            assert_eq!(
                (error.ended(), error.exit_status().unwrap().code()),
                (Some(ended), Some(code)),
                "{how}"
            );
        }
        let error = run("abort");
        assert_eq!((error.ended(), error.exit_status().unwrap().signal()), (Some(Ended::Signal), Some(6)));
    }
}

#[test]
fn endings_are_told_apart() {
    common::isolated(endings);
}

#[forkyard::task]
fn killed() {
    for start in METHODS {
        let child = builder(start).spawn(park_for_ever, ()).unwrap();
        assert!(child.is_alive());
        assert!(child.exit_status().is_none());
        assert!(child.try_join().unwrap().is_none());
        assert!(child.join_timeout(Duration::from_millis(20)).unwrap_err().is_timeout());
        child.terminate().unwrap();
        let error = child.join().unwrap_err();
        assert_eq!(error.exit_status().unwrap().signal(), Some(15));
        assert!(child.join().unwrap_err().is_already_joined());
        child.kill().expect("a process that has ended is left alone");
    }
}

#[test]
fn a_killed_child_is_told_with_its_signal_and_a_timed_out_join_takes_nothing() {
    common::isolated(killed);
}

#[forkyard::task]
fn many_joiners() {
    let child = process::spawn(park_for_ever, ()).unwrap();
    std::thread::scope(|scope| {
        let waiters: Vec<_> = (0..8).map(|_| scope.spawn(|| child.wait_ended().unwrap())).collect();
        let joiners: Vec<_> = (0..8).map(|_| scope.spawn(|| child.join().unwrap_err())).collect();
        child.kill().unwrap();
        for waiter in waiters {
            assert_eq!(waiter.join().unwrap().signal(), Some(9));
        }
        let told =
            joiners.into_iter().filter(|_| true).map(|j| j.join().unwrap()).filter(|e| e.is_child_ended());
        assert_eq!(told.count(), 1, "one join tells of the end, the others say that it was told");
    });
}

#[test]
fn any_number_of_threads_may_wait_for_one_child() {
    common::isolated(many_joiners);
}

#[forkyard::task]
fn stolen() {
    let child = process::spawn(add, (1, 1)).unwrap();
    // A host program's wait for any child takes the status.
    let mut status = 0;
    // SAFETY: waits for a child and writes its status to a local variable.
    let taken = unsafe { libc::waitpid(child.pid().as_raw_nonzero().get(), &raw mut status, 0) };
    let (result, status) = (child.join(), child.exit_status().unwrap());
    assert_eq!(result.unwrap(), 2, "the value does not depend on the status");
    if taken > 0 {
        assert!(status.success() || status == process::ExitStatus::UNKNOWN, "{status}");
    }
}

#[test]
fn a_status_that_somebody_else_took_is_true_or_unknown() {
    common::isolated(stolen);
}

#[forkyard::task]
fn sigchld_ignored() {
    forkyard::signal::ignore(forkyard::signal::Signal::CHLD).unwrap();
    for _ in 0..100 {
        let child = process::spawn(add, (1, 1)).unwrap();
        assert_eq!(child.join().unwrap(), 2);
    }
    let child = process::spawn(park_for_ever, ()).unwrap();
    child.kill().unwrap();
    let error = child.join().unwrap_err();
    assert!(matches!(error.exit_status().unwrap().signal(), Some(9) | None), "{error}");
}

#[test]
fn an_ignored_sigchld_changes_nothing_but_perhaps_the_status() {
    common::isolated(sigchld_ignored);
}
