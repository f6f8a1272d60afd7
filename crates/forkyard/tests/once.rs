//! `Once`: done once, whoever dies while doing it.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod common;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Duration;

use common::{isolated, kill_self};
use forkyard::process;
use forkyard::sync::{Barrier, Mutex, Once};

const LONG: Duration = Duration::from_secs(30);

#[forkyard::task]
fn calls(once: Once, count: Mutex<u64>, all: Barrier) {
    all.wait().unwrap();
    once.call_once(|_| *count.lock().unwrap() += 1).unwrap();
    assert!(once.is_completed());
}

#[forkyard::task]
fn many() {
    for _ in 0..20 {
        let (once, count, all) = (Once::new().unwrap(), Mutex::new(0).unwrap(), Barrier::new(5).unwrap());
        let children: Vec<_> = (0..5)
            .map(|_| process::spawn(calls, (once.clone(), count.clone(), all.clone())).unwrap())
            .collect();
        children.into_iter().for_each(|child| child.join_timeout(LONG).unwrap());
        assert_eq!(*count.lock().unwrap(), 1);
    }
}

#[test]
fn of_many_callers_one_does_it() {
    isolated(many);
}

#[forkyard::task]
fn dies_doing_it(once: Once) {
    once.call_once(|_| kill_self()).unwrap();
}

#[forkyard::task]
fn killed() {
    let once = Once::new().unwrap();
    let child = process::spawn(dies_doing_it, (once.clone(),)).unwrap();
    assert_eq!(child.wait_ended().unwrap().signal(), Some(9));
    assert!(!once.is_completed());
    let mut seen = None;
    once.call_once(|state| seen = Some(state.is_again())).unwrap();
    assert_eq!(seen, Some(true), "it is told that another one began");
    once.call_once(|_| panic!("it is done")).unwrap();
}

#[test]
fn what_a_dead_process_began_is_done_again() {
    isolated(killed);
}

#[test]
fn a_panic_leaves_it_to_the_next_one() {
    let once = Once::new().unwrap();
    assert!(catch_unwind(AssertUnwindSafe(|| once.call_once(|_| panic!("no")))).is_err());
    assert!(!once.is_completed());
    once.call_once(|_| {}).unwrap();
    assert!(once.is_completed());
}
