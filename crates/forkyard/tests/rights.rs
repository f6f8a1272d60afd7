//! A process that gives up rights can no longer signal what it started with them; it starts others all the same, and nothing remains
//! of it. As root only.

#![allow(
    unsafe_code,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test fails by a panic; each unsafe block has its own reason"
)]

mod common;

use std::os::unix::fs::chroot;

use common::{METHODS, builder, children_of, eventually, is_gone, isolated, own_pid};
use forkyard::channel::Queue;
use forkyard::process::{self, Builder};

const NOBODY: u32 = 65534;

#[forkyard::task]
fn user() -> u32 {
    // SAFETY: getuid cannot fail.
    unsafe { libc::getuid() }
}

#[forkyard::task]
fn waits() {
    loop {
        std::thread::park();
    }
}

fn is_root() -> bool {
    let root = user_now() == 0;
    if !root {
        println!("skipped: only root has rights to give up");
    }
    root
}

fn user_now() -> u32 {
    // SAFETY: geteuid cannot fail.
    unsafe { libc::geteuid() }
}

fn give_up_rights() {
    // SAFETY: numbers only; the process is alone with its own threads.
    let given_up = unsafe { (libc::setgid(NOBODY), libc::setuid(NOBODY)) };
    assert_eq!(given_up, (0, 0));
}

#[forkyard::task]
fn starts_before_and_after() {
    // The second leaves a spare, the third two.
    for _ in 0..3 {
        assert_eq!(process::spawn(user, ()).unwrap().join().unwrap(), 0);
    }
    give_up_rights();
    for start in METHODS {
        assert_eq!(builder(start).spawn(user, ()).unwrap().join().unwrap(), NOBODY);
    }
}

#[test]
fn who_gave_up_rights_starts_processes_without_them() {
    if is_root() {
        isolated(starts_before_and_after);
    }
}

#[forkyard::task]
fn gives_up_rights(again: bool, pids: Queue<Vec<i32>>) {
    for _ in 0..3 {
        process::spawn(user, ()).unwrap().join().unwrap();
    }
    for start in METHODS {
        std::mem::forget(builder(start).daemon(true).spawn(waits, ()).unwrap());
    }
    give_up_rights();
    if again {
        std::mem::forget(Builder::new().daemon(true).spawn(waits, ()).unwrap());
    }
    pids.put(children_of(own_pid()).into_iter().collect()).unwrap();
    waits_here();
}

fn waits_here() -> ! {
    loop {
        std::thread::park();
    }
}

#[forkyard::task]
fn killed_after_it_gave_up_rights() {
    for again in [false, true] {
        let pids = Queue::bounded(1).unwrap();
        let parent = process::spawn(gives_up_rights, (again, pids.clone())).unwrap();
        let children = pids.get().unwrap();
        assert!(children.len() > METHODS.len(), "{children:?}");
        parent.kill().unwrap();
        parent.join().unwrap_err();
        eventually("its children, spare and zygotes are gone", || children.iter().all(|&pid| is_gone(pid)));
    }
}

#[test]
fn nothing_remains_of_who_gave_up_rights_and_was_killed() {
    if is_root() {
        isolated(killed_after_it_gave_up_rights);
    }
}

#[forkyard::task]
fn changes_its_root() {
    process::spawn(user, ()).unwrap().join().unwrap();
    let root = std::env::temp_dir().join(format!("forkyard-root-{}", own_pid()));
    std::fs::create_dir(&root).unwrap();
    std::env::set_current_dir(&root).unwrap();
    std::fs::remove_dir(&root).unwrap();
    chroot(".").unwrap();
    let refused = process::spawn(user, ()).unwrap_err();
    assert_eq!(refused.errno().unwrap().raw_os_error(), libc::ENOENT);
    assert!(refused.to_string().contains("there is no /proc here"), "{refused}");
}

#[test]
fn nobody_is_started_outside_of_the_root_of_its_parent() {
    if is_root() {
        isolated(changes_its_root);
    }
}
