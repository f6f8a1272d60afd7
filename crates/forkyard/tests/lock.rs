//! `Lock`: acquired by one, released by anybody.

#![allow(
    unsafe_code,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test fails by a panic; each unsafe block has its own reason"
)]

mod common;

use std::time::{Duration, Instant};

use common::waiters::{LONG, all_sleep, end, finish};
use common::{eventually, isolated};
use forkyard::process;
use forkyard::sync::{Lock, LockError, Semaphore};

#[forkyard::task]
fn holds(lock: Lock, ready: Semaphore) {
    lock.acquire_timeout(LONG).unwrap();
    ready.release().unwrap();
    std::thread::sleep(LONG);
}

/// Tells whether the last owner had died.
#[forkyard::task]
fn takes_its_turn(lock: Lock, ready: Semaphore) -> bool {
    ready.release().unwrap();
    let died = match lock.acquire_timeout(LONG) {
        Ok(()) => false,
        Err(LockError::OwnerDied(died)) => {
            died.into_inner().keep();
            true
        }
        Err(error) => panic!("{error}"),
    };
    lock.release().unwrap();
    died
}

#[test]
fn a_dead_owners_lock_goes_to_all_who_wait_in_turn_and_the_first_is_told() {
    for waiters in [1, 3, 50] {
        let (lock, ready) = (Lock::new().unwrap(), Semaphore::new(0).unwrap());
        let owner = process::spawn(holds, (lock.clone(), ready.clone())).unwrap();
        ready.acquire_timeout(LONG).unwrap();
        let start = |_| process::spawn(takes_its_turn, (lock.clone(), ready.clone())).unwrap();
        let children: Vec<_> = (0..waiters).map(start).collect();
        all_sleep(&ready, &children);
        end(owner);
        assert_eq!(finish(children).into_iter().filter(|told| *told).count(), 1);
        assert!(lock.try_acquire().is_ok());
    }
}

#[forkyard::task]
fn releases(lock: Lock) {
    lock.release().unwrap();
}

#[test]
fn anybody_may_release_it() {
    let lock = Lock::new().unwrap();
    lock.acquire().unwrap();
    process::spawn(releases, (lock.clone(),)).unwrap().join().unwrap();
    assert!(!lock.is_locked());
    lock.acquire().unwrap();
    std::thread::scope(|scope| scope.spawn(|| lock.release().unwrap()).join().unwrap());
    assert!(!lock.is_locked());
    assert!(lock.release().unwrap_err().is_not_owner(), "nobody has it");
}

#[test]
fn a_release_by_another_process_wakes_who_waits() {
    for waiters in [1, 5] {
        let (lock, ready) = (Lock::new().unwrap(), Semaphore::new(0).unwrap());
        lock.acquire().unwrap();
        let start = |_| process::spawn(takes_its_turn, (lock.clone(), ready.clone())).unwrap();
        let children: Vec<_> = (0..waiters).map(start).collect();
        all_sleep(&ready, &children);
        process::spawn(releases, (lock.clone(),)).unwrap().join().unwrap();
        assert_eq!(finish(children), vec![false; waiters]);
    }
}

#[test]
fn who_acquires_it_twice_waits_for_somebody_else() {
    let lock = Lock::new().unwrap();
    lock.acquire().unwrap();
    // Longer than deadlocks are looked for: it is none.
    assert!(matches!(lock.acquire_timeout(Duration::from_millis(1500)), Err(LockError::TimedOut)));
    std::thread::scope(|scope| {
        let main = common::own_pid();
        let thread = forkyard_sys::thread::own_tid().as_raw_nonzero().get();
        let lock = &lock;
        scope.spawn(move || {
            eventually("the other thread sleeps", || common::thread_sleeps(main, thread));
            lock.release().unwrap();
        });
        lock.acquire_timeout(LONG).unwrap();
    });
    assert!(lock.is_locked());
}

#[test]
fn a_guard_releases_only_what_it_has() {
    let lock = Lock::new().unwrap();
    let guard = lock.lock().unwrap();
    assert!(matches!(lock.try_lock(), Err(LockError::WouldBlock)));
    lock.release().unwrap();
    std::thread::scope(|scope| scope.spawn(|| lock.acquire().unwrap()).join().unwrap());
    drop(guard);
    assert!(lock.is_locked(), "by the thread, which has ended");
    lock.release().unwrap();
    lock.lock().unwrap().keep();
    assert!(lock.is_locked());
    lock.release().unwrap();
    drop(lock.lock_timeout(Duration::ZERO).unwrap());
    drop(lock.lock_deadline(Instant::now()).unwrap());
    assert!(!lock.is_locked());
}

#[test]
fn times_are_honoured() {
    let lock = Lock::new().unwrap();
    lock.acquire().unwrap();
    let (before, short) = (Instant::now(), Duration::from_millis(30));
    assert!(matches!(lock.acquire_timeout(short), Err(LockError::TimedOut)));
    assert!(before.elapsed() >= short);
    assert!(matches!(lock.acquire_deadline(before + 2 * short), Err(LockError::TimedOut)));
    assert!(before.elapsed() >= 2 * short);
}

#[forkyard::task]
fn in_forks() {
    let lock = Lock::new().unwrap();
    let guard = lock.lock().unwrap();
    // SAFETY: the copy uses atomics and ends.
    match unsafe { libc::fork() } {
        0 => {
            drop(guard);
            let held = lock.is_locked();
            // As Python has it, a fork may release its parent's lock.
            let released = lock.release().is_ok();
            // SAFETY: ends this copy.
            unsafe { libc::_exit(if held && released { 0 } else { 1 }) }
        }
        child => {
            let mut status = 0;
            // SAFETY: a child of ours.
            assert_eq!(unsafe { libc::waitpid(child, &mut status, 0) }, child);
            assert_eq!(status, 0);
        }
    }
    assert!(!lock.is_locked());
    drop(guard);
    let copy = lock.clone();
    let child = process::fork(move || copy.acquire().unwrap()).unwrap();
    child.join().unwrap();
    assert!(matches!(lock.acquire_timeout(LONG), Err(LockError::OwnerDied(_))), "it ended with the lock");
    assert!(!lock.is_locked(), "the guard in the error has released it");
}

#[test]
fn a_fork_may_release_its_parents_lock_but_its_guard_does_not() {
    isolated(in_forks);
}

#[forkyard::task]
fn leaves_and_comes_again(lock: Lock, ready: Semaphore) {
    ready.release().unwrap();
    for round in 0.. {
        match lock.acquire_timeout(Duration::from_millis(round % 3)) {
            Ok(()) => return lock.release().unwrap(),
            Err(LockError::TimedOut) => {}
            Err(error) => panic!("{error}"),
        }
    }
}

#[test]
fn waiters_that_leave_take_no_turn_from_those_who_stay() {
    let (lock, ready) = (Lock::new().unwrap(), Semaphore::new(0).unwrap());
    lock.acquire().unwrap();
    let leaving =
        [0; 3].map(|_| process::spawn(leaves_and_comes_again, (lock.clone(), ready.clone())).unwrap());
    common::waiters::take_all(&ready, 3);
    let staying: Vec<_> =
        (0..3).map(|_| process::spawn(takes_its_turn, (lock.clone(), ready.clone())).unwrap()).collect();
    all_sleep(&ready, &staying);
    lock.release().unwrap();
    finish(staying);
    finish(leaving);
}

#[test]
fn a_stopped_waiter_delays_nobody() {
    let (lock, ready) = (Lock::new().unwrap(), Semaphore::new(0).unwrap());
    lock.acquire().unwrap();
    let start = |_| process::spawn(takes_its_turn, (lock.clone(), ready.clone())).unwrap();
    let mut children: Vec<_> = (0..3).map(start).collect();
    all_sleep(&ready, &children);
    let first = children.remove(0);
    common::kill(common::waiters::pid(&first), libc::SIGSTOP);
    eventually("it is stopped", || common::state_of(common::waiters::pid(&first)) == Some('T'));
    lock.release().unwrap();
    finish(children);
    common::kill(common::waiters::pid(&first), libc::SIGCONT);
    assert!(!first.join_timeout(LONG).unwrap());
}
