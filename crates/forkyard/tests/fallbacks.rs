//! The same promises on kernels and in places that have less: each fallback forced, and as process 1 of a pid namespace.
//!
//! This is the short form, in every test run: one body, run again by this binary. `ci/test.sh` runs all process tests so.

#![allow(
    unsafe_code,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test fails by a panic; each unsafe block has its own reason"
)]

mod common;

use std::os::fd::AsFd;
use std::process::Command;

use common::{METHODS, children_of, eventually, isolated, own_pid, state_of, zygote};
use forkyard::process::{self, Builder, Ended, ExitStatus, Fd, Program, Start};
use forkyard_sys::fallback;

const PF_FORKNOEXEC: u64 = 0x40;

#[forkyard::task]
fn length(text: String, pipe: Fd) -> usize {
    drop(pipe);
    text.len()
}

#[forkyard::task]
fn fail(how: String) -> String {
    match how.as_str() {
        "panic" => panic!("on purpose"),
        "exit" => process::exit(3),
        "_exit" => process::_exit(4),
        "park" => loop {
            std::thread::park();
        },
        _ => how,
    }
}

/// Whether this process has executed a program, or is a copy of one that did.
#[forkyard::task]
fn is_copy() -> bool {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap();
    let fields = stat.rsplit(')').next().unwrap();
    fields.split_whitespace().nth(6).unwrap().parse::<u64>().unwrap() & PF_FORKNOEXEC != 0
}

/// What must hold for a start method everywhere.
fn essentials(start: Start) {
    let builder = || Builder::new().start(start);
    let (mut reader, writer) = std::io::pipe().unwrap();
    let child = builder().name("essential").spawn(length, ("x".repeat(300_000), writer.into())).unwrap();
    assert_eq!(child.join().unwrap(), 300_000);
    assert_eq!(std::io::Read::read(&mut reader, &mut [0]).unwrap(), 0, "nobody else holds the pipe");
    let value = builder().spawn(fail, ("y".repeat(10_000),)).unwrap().join().unwrap();
    assert_eq!(value.len(), 10_000);

    let run = |how: &str| builder().spawn(fail, (how.to_owned(),)).unwrap().join().unwrap_err();
    assert_eq!(run("panic").panic().unwrap().message, "on purpose");
    for (how, ended, code) in [("exit", Ended::Exit, 3), ("_exit", Ended::QuickExit, 4)] {
        let error = run(how);
        assert_eq!((error.ended(), error.exit_status().unwrap().code()), (Some(ended), Some(code)));
    }
    for daemon in [false, true] {
        let child = builder().daemon(daemon).spawn(fail, ("park".to_owned(),)).unwrap();
        assert!(child.is_alive() && process::children().len() == 1);
        child.kill().unwrap();
        assert_eq!(process::wait().unwrap().status.signal(), Some(9), "{start:?}");
        assert_eq!(state_of(child.pid().as_raw_nonzero().get()), None, "reaped");
    }
    assert!(process::wait().unwrap_err().is_no_children());
}

#[forkyard::task]
fn every_method() {
    METHODS.into_iter().for_each(essentials);
    let copies = METHODS.map(|start| Builder::new().start(start).spawn(is_copy, ()).unwrap().join().unwrap());
    let siblings = !fallback::forced(fallback::Feature::CloneParent);
    assert_eq!(copies, [siblings, false, true], "the fallback is an exec for each start");

    // A status that a wait of the host program took.
    let child = process::spawn(fail, ("exit".to_owned(),)).unwrap();
    let mut status = 0;
    // SAFETY: waits for a child and writes its status to a local variable.
    let taken = unsafe { libc::waitpid(child.pid().as_raw_nonzero().get(), &raw mut status, 0) };
    let told = child.wait_ended().unwrap();
    if fallback::forced(fallback::Feature::PidfdInfo) && taken > 0 {
        assert_eq!(told, ExitStatus::UNKNOWN);
    } else {
        assert!(told.code() == Some(3) || told == ExitStatus::UNKNOWN, "{told}");
    }

    // A program has its own descriptors and no others.
    let secret = forkyard_sys::memfd::holding("secret", b"").unwrap();
    // SAFETY: makes a copy that stays open over an exec, which is what is to be prevented.
    assert!(unsafe { libc::dup2(std::os::fd::AsRawFd::as_raw_fd(&secret.as_fd()), 99) } == 99);
    let listing = Program::new("ls").arg("/proc/self/fd").output().unwrap();
    // The fourth is that of the listing.
    assert_eq!(
        String::from_utf8(listing.stdout).unwrap().split_whitespace().collect::<Vec<_>>(),
        ["0", "1", "2", "3"]
    );
    eventually("nobody but the zygote and spares is left", || children_of(own_pid()).len() <= 3);
}

#[test]
fn every_method_works() {
    isolated(every_method);
}

/// Runs one test of this binary again, in some surroundings.
fn again(mut runner: Command, test: &str) {
    let output = runner.args(["--exact", test, "--nocapture", "--test-threads=1"]).output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && text.contains("1 passed"), "{}: {text}", output.status);
}

#[test]
fn every_method_works_with_each_fallback() {
    for names in ["clone3", "clone-parent", "close-range", "pidfd-info", "all"] {
        let mut runner = Command::new("/proc/self/exe");
        runner.env(fallback::VARIABLE, names);
        again(runner, "every_method_works");
    }
}

/// Run by the next test, in a namespace of its own.
#[test]
fn every_method_works_here() {
    if own_pid() != 1 {
        return;
    }
    essentials(Start::Zygote);
    essentials(Start::Spawn);
    // SAFETY: the closure takes no lock but the allocator's, which glibc puts in order.
    let forked = unsafe { Builder::new().fork_with_threads(own_pid) }.unwrap();
    assert_eq!(forked.join().unwrap(), forked.pid().as_raw_nonzero().get());
    let parent = Builder::new().spawn(parent_number, ()).unwrap().join().unwrap();
    assert_eq!(parent, 1);
    for _ in 0..5 {
        let old = zygote().unwrap();
        common::kill(old, 9);
        essentials(Start::Zygote);
        eventually("the zygote is replaced", || zygote().is_some_and(|new| new != old));
    }
    eventually("no zombie is left", || children_of(1).into_iter().all(|pid| state_of(pid) != Some('Z')));
}

#[forkyard::task]
fn parent_number() -> i32 {
    process::parent().unwrap().pid().as_raw_nonzero().get()
}

#[test]
fn every_method_works_in_process_1_of_a_namespace() {
    let unshare = || {
        let mut command = Command::new("unshare");
        command.args(["--pid", "--fork", "--mount-proc", "--kill-child"]);
        if forkyard_sys::pidfd::own_rights()[1] != 0 {
            command.args(["--user", "--map-root-user"]);
        }
        command
    };
    if !unshare().arg("true").output().is_ok_and(|output| output.status.success()) {
        println!("skipped: this machine does not let us make a pid namespace");
        return;
    }
    for names in ["", "all"] {
        let mut runner = unshare();
        runner.arg(std::env::current_exe().unwrap()).env(fallback::VARIABLE, names);
        again(runner, "every_method_works_here");
    }
}
