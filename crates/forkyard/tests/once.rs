//! `Once`: something that is done once, whoever dies at it.

#![allow(
    unsafe_code,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test fails by a panic; each unsafe block has its own reason"
)]

mod common;

use std::time::Duration;

use common::kill_self;
use common::waiters::{LONG, all_sleep, finish};
use forkyard::process;
use forkyard::sync::{Mutex, Once, Semaphore};

#[forkyard::task]
fn does_it(once: Once, times: Mutex<u64>, ready: Semaphore) -> u64 {
    ready.release().unwrap();
    once.call_once(|| *times.lock().unwrap() += 1).unwrap();
    *times.lock().unwrap()
}

#[test]
fn it_is_done_once_before_all_others_go_on() {
    let (once, times, ready) = (Once::new().unwrap(), Mutex::new(0).unwrap(), Semaphore::new(0).unwrap());
    let start = |_| process::spawn(does_it, (once.clone(), times.clone(), ready.clone())).unwrap();
    once.call_once(|| {
        let children: Vec<_> = (0..4).map(start).collect();
        all_sleep(&ready, &children);
        assert!(!once.is_completed());
        std::thread::scope(|scope| {
            scope.spawn(|| {
                assert!(once.try_call_once(|| panic!("twice")).unwrap_err().is_would_block());
                let short = Duration::from_millis(1);
                assert!(once.call_once_timeout(short, || panic!("twice")).unwrap_err().is_timeout());
            });
        });
        *times.lock().unwrap() += 1;
        std::mem::drop(std::thread::spawn(move || assert_eq!(finish(children), [1; 4])));
    })
    .unwrap();
    assert!(once.is_completed());
    let late: Vec<_> = (0..3).map(start).collect();
    assert_eq!(finish(late), [1; 3]);
}

#[forkyard::task]
fn dies_at_it(once: Once, ready: Semaphore) {
    once.call_once(|| {
        ready.release().unwrap();
        kill_self()
    })
    .unwrap();
}

#[test]
fn who_dies_at_it_leaves_it_to_the_next() {
    let (once, ready) = (Once::new().unwrap(), Semaphore::new(0).unwrap());
    for _ in 0..2 {
        let child = process::spawn(dies_at_it, (once.clone(), ready.clone())).unwrap();
        ready.acquire_timeout(LONG).unwrap();
        assert_eq!(child.wait_ended().unwrap().signal(), Some(9));
    }
    assert!(!once.is_completed());
    let mut told = false;
    once.call_once_force(|state| told = state.owner_died()).unwrap();
    assert!(told && once.is_completed());
}

#[test]
fn who_panics_at_it_leaves_it_to_the_next() {
    let once = Once::new().unwrap();
    let panics = || once.call_once(|| std::panic::resume_unwind(Box::new(())));
    assert!(std::thread::scope(|scope| scope.spawn(panics).join()).is_err());
    let mut done = false;
    once.call_once_force(|state| done = !state.owner_died()).unwrap();
    assert!(done);
}

#[test]
fn who_calls_it_from_within_is_told() {
    let once = Once::new().unwrap();
    let mut error = None;
    once.call_once(|| error = once.call_once(|| panic!("twice")).err()).unwrap();
    assert!(error.unwrap().is_deadlock());
}
