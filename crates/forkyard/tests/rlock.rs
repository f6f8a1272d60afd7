//! `RLock`: a lock that its owner may acquire again.

#![allow(
    unsafe_code,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test fails by a panic; each unsafe block has its own reason"
)]

mod common;

use std::time::Duration;

use common::isolated;
use common::waiters::{LONG, all_sleep, end, finish};
use forkyard::process::{self, Builder, Start};
use forkyard::sync::{LockError, RLock, Semaphore};

#[forkyard::task]
fn fails_to_get_it(lock: RLock) {
    assert!(lock.is_locked() && !lock.is_held());
    assert!(matches!(lock.try_acquire(), Err(LockError::WouldBlock)));
    let error = lock.release().unwrap_err();
    assert!(error.is_not_owner() && error.to_string().contains("pid"), "{error}");
}

#[test]
fn its_thread_acquires_it_again_and_nobody_else() {
    let lock = RLock::new().unwrap();
    for _ in 0..3 {
        lock.acquire().unwrap();
    }
    lock.try_acquire().unwrap();
    lock.acquire_timeout(Duration::ZERO).unwrap();
    for left in (0..5).rev() {
        process::spawn(fails_to_get_it, (lock.clone(),)).unwrap().join().unwrap();
        std::thread::scope(|scope| {
            scope.spawn(|| {
                assert!(matches!(lock.try_lock(), Err(LockError::WouldBlock)));
                assert!(matches!(lock.lock_timeout(Duration::from_millis(1)), Err(LockError::TimedOut)));
                assert!(lock.release().unwrap_err().is_not_owner());
            });
        });
        assert!(lock.is_held());
        lock.release().unwrap();
        assert_eq!(lock.is_locked(), left > 0);
    }
    assert!(lock.release().unwrap_err().is_not_owner());
}

#[test]
fn guards_nest() {
    let lock = RLock::new().unwrap();
    let outer = lock.lock().unwrap();
    let inner = lock.lock().unwrap();
    drop(outer);
    assert!(lock.is_held());
    drop(inner);
    assert!(!lock.is_locked());
}

#[forkyard::task]
fn holds_twice(lock: RLock, ready: Semaphore) {
    lock.acquire_timeout(LONG).unwrap();
    lock.acquire_timeout(LONG).unwrap();
    ready.release().unwrap();
    std::thread::sleep(LONG);
}

/// Tells whether the last owner had died.
#[forkyard::task]
fn takes_its_turn(lock: RLock, ready: Semaphore) -> bool {
    ready.release().unwrap();
    let died = match lock.acquire_timeout(LONG) {
        Ok(()) => false,
        Err(LockError::OwnerDied(died)) => {
            died.into_inner().keep();
            true
        }
        Err(error) => panic!("{error}"),
    };
    lock.acquire().unwrap();
    lock.release().unwrap();
    assert!(lock.is_held());
    lock.release().unwrap();
    assert!(!lock.is_held());
    died
}

#[test]
fn a_dead_owners_lock_goes_to_all_who_wait_in_turn_who_have_it_once() {
    for waiters in [1, 3, 50] {
        let (lock, ready) = (RLock::new().unwrap(), Semaphore::new(0).unwrap());
        let owner = process::spawn(holds_twice, (lock.clone(), ready.clone())).unwrap();
        ready.acquire_timeout(LONG).unwrap();
        let start = |_| process::spawn(takes_its_turn, (lock.clone(), ready.clone())).unwrap();
        let children: Vec<_> = (0..waiters).map(start).collect();
        all_sleep(&ready, &children);
        end(owner);
        assert_eq!(finish(children).into_iter().filter(|told| *told).count(), 1);
        assert!(!lock.is_locked());
    }
}

#[forkyard::task]
fn in_forks() {
    let lock = RLock::new().unwrap();
    let guard = lock.lock().unwrap();
    // SAFETY: the copy uses atomics and ends.
    match unsafe { libc::fork() } {
        0 => {
            let ok = !lock.is_held() && lock.release().is_err_and(|error| error.is_not_owner());
            let blocked = matches!(lock.try_acquire(), Err(LockError::WouldBlock));
            drop(guard);
            // SAFETY: ends this copy.
            unsafe { libc::_exit(if ok && blocked && lock.is_locked() { 0 } else { 1 }) }
        }
        child => {
            let mut status = 0;
            // SAFETY: a child of ours.
            assert_eq!(unsafe { libc::waitpid(child, &mut status, 0) }, child);
            assert_eq!(status, 0);
        }
    }
    assert!(lock.is_held());
    drop(guard);
    let copy = lock.clone();
    process::fork(move || copy.acquire().unwrap()).unwrap().join().unwrap();
    assert!(matches!(lock.acquire_timeout(LONG), Err(LockError::OwnerDied(_))));
    assert!(!lock.is_locked());
}

#[test]
fn a_fork_of_the_owner_owns_nothing() {
    isolated(in_forks);
}

#[forkyard::task]
fn tries(lock: RLock) -> bool {
    assert!(lock.release().unwrap_err().is_not_owner());
    match lock.try_acquire() {
        Ok(()) => true,
        Err(LockError::WouldBlock) => false,
        Err(error) => panic!("{error}"),
    }
}

#[forkyard::task]
fn recursion() {
    let lock = RLock::new().unwrap();
    for start in [Start::Zygote, Start::Spawn, Start::Fork] {
        let other_gets_it =
            || Builder::new().start(start).spawn(tries, (lock.clone(),)).unwrap().join().unwrap();
        for _ in 0..3 {
            lock.acquire().unwrap();
        }
        for _ in 0..3 {
            assert!(lock.is_held() && !other_gets_it(), "{start:?}");
            lock.release().unwrap();
        }
        assert!(!lock.is_held() && lock.release().unwrap_err().is_not_owner());
        assert!(other_gets_it(), "{start:?}");
        // It ended with the lock.
        assert!(matches!(lock.acquire(), Err(LockError::OwnerDied(_))));
        assert!(!lock.is_locked(), "the error lets go of it");
    }
}

#[test]
fn the_owner_acquires_it_again_and_releases_it_as_often() {
    isolated(recursion);
}
