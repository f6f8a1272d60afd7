//! `Mutex`: data that processes share, whoever of them dies.

#![allow(
    unsafe_code,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test fails by a panic; each unsafe block has its own reason"
)]

mod common;

use std::time::{Duration, Instant};

use common::waiters::{LONG, all_sleep, end, finish, pid};
use common::{eventually, isolated, kill_self};
use forkyard::process::{self, Builder, Start};
use forkyard::sync::{LockError, Mutex, Semaphore};

/// What waiters count.
#[derive(Clone, Copy, forkyard::ShmSafe)]
#[repr(C)]
struct Tally {
    turns: u64,
    died: u64,
}

#[forkyard::task]
fn holds(mutex: Mutex<Tally>, ready: Semaphore) {
    let _tally = mutex.lock_timeout(LONG).unwrap();
    ready.release().unwrap();
    std::thread::sleep(LONG);
}

#[forkyard::task]
fn takes_its_turn(mutex: Mutex<Tally>, ready: Semaphore) {
    ready.release().unwrap();
    match mutex.lock_timeout(LONG) {
        Ok(mut tally) => tally.turns += 1,
        Err(LockError::OwnerDied(died)) => {
            assert!(died.name().is_none_or(|name| name == "owner"), "{died}");
            let mut tally = died.into_inner();
            tally.turns += 1;
            tally.died += 1;
        }
        Err(error) => panic!("{error}"),
    }
}

#[test]
fn a_dead_owners_mutex_goes_to_all_who_wait_in_turn_and_the_first_is_told() {
    for waiters in [0, 1, 3, 50] {
        let mutex = Mutex::new(Tally { turns: 0, died: 0 }).unwrap();
        let ready = Semaphore::new(0).unwrap();
        let owner = Builder::new().name("owner").spawn(holds, (mutex.clone(), ready.clone())).unwrap();
        ready.acquire_timeout(LONG).unwrap();
        assert!(mutex.is_locked());
        let start = || process::spawn(takes_its_turn, (mutex.clone(), ready.clone())).unwrap();
        let children: Vec<_> = (0..waiters).map(|_| start()).collect();
        all_sleep(&ready, &children);
        let owner_pid = pid(&owner) as u32;
        end(owner);
        finish(children);
        match mutex.lock_timeout(LONG) {
            Ok(tally) => assert_eq!((tally.turns, tally.died), (waiters, 1)),
            Err(LockError::OwnerDied(died)) if waiters == 0 => {
                assert!(died.pid().is_none_or(|pid| pid == owner_pid));
            }
            Err(error) => panic!("{error}"),
        }
        assert!(mutex.try_lock().is_ok(), "told once");
    }
}

#[forkyard::task]
fn counts(mutex: Mutex<[u64; 100]>, times: u64) {
    for _ in 0..times {
        let mut numbers = mutex.lock_timeout(LONG).unwrap();
        numbers.iter_mut().for_each(|number| *number += 1);
    }
}

#[test]
fn processes_of_every_start_method_and_threads_exclude_each_other() {
    isolated(everybody_counts);
}

#[forkyard::task]
fn everybody_counts() {
    let mutex = Mutex::new([0; 100]).unwrap();
    let start = |method| Builder::new().start(method).spawn(counts, (mutex.clone(), 5000)).unwrap();
    let children = [Start::Zygote, Start::Spawn, Start::Fork].map(start);
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                for _ in 0..5000 {
                    mutex.lock().unwrap().iter_mut().for_each(|number| *number += 1);
                }
            });
        }
    });
    finish(children);
    assert_eq!(*mutex.lock().unwrap(), [25_000; 100]);
}

#[test]
fn times_and_tries_are_honoured() {
    let mutex = Mutex::new(1u8).unwrap();
    let held = mutex.lock().unwrap();
    std::thread::scope(|scope| {
        scope.spawn(|| {
            assert!(matches!(mutex.try_lock(), Err(LockError::WouldBlock)));
            let before = Instant::now();
            let (short, now) = (Duration::from_millis(30), Instant::now());
            assert!(matches!(mutex.lock_timeout(short), Err(LockError::TimedOut)));
            assert!(before.elapsed() >= short);
            assert!(matches!(mutex.lock_deadline(before + 2 * short), Err(LockError::TimedOut)));
            assert!(before.elapsed() >= 2 * short);
            assert!(matches!(mutex.lock_deadline(now), Err(LockError::TimedOut)));
        });
    });
    drop(held);
    assert_eq!(*mutex.lock_timeout(Duration::ZERO).unwrap(), 1);
    assert_eq!(*mutex.lock_deadline(Instant::now()).unwrap(), 1);
}

#[forkyard::task]
fn locks_in_a_tight_loop(mutex: Mutex<u64>, stop: Mutex<u8>) {
    while *stop.lock().unwrap() == 0 {
        for _ in 0..100 {
            *mutex.lock_timeout(LONG).unwrap() += 1;
        }
    }
}

#[test]
fn nobody_starves_beside_tight_loops() {
    let (mutex, stop) = (Mutex::new(0).unwrap(), Mutex::new(0).unwrap());
    let start = |_| process::spawn(locks_in_a_tight_loop, (mutex.clone(), stop.clone())).unwrap();
    let children = [0; 3].map(start);
    for _ in 0..200 {
        let before = *mutex.lock_timeout(LONG).unwrap();
        eventually("others lock it", || *mutex.lock_timeout(LONG).unwrap() > before);
    }
    *stop.lock_timeout(LONG).unwrap() = 1;
    finish(children);
}

#[forkyard::task]
fn in_forks() {
    let mutex = Mutex::new(5).unwrap();
    let held = mutex.lock().unwrap();
    let copy = mutex.clone();
    // A closure cannot take the guard along: it says that this thread has the lock.
    process::fork(move || assert!(matches!(copy.try_lock(), Err(LockError::WouldBlock))))
        .unwrap()
        .join()
        .unwrap();
    // SAFETY: the copy uses atomics and ends.
    match unsafe { libc::fork() } {
        0 => {
            drop(held);
            let ok = matches!(mutex.try_lock(), Err(LockError::WouldBlock));
            // SAFETY: ends this copy.
            unsafe { libc::_exit(if ok { 0 } else { 1 }) }
        }
        child => {
            let mut status = 0;
            // SAFETY: a child of ours.
            assert_eq!(unsafe { libc::waitpid(child, &mut status, 0) }, child);
            assert_eq!(status, 0);
        }
    }
    assert!(mutex.is_locked(), "the copy's guard released nothing");
    drop(held);
    let copy = mutex.clone();
    process::fork(move || *copy.lock().unwrap() += 1).unwrap().join().unwrap();
    assert_eq!(*mutex.try_lock().unwrap(), 6);
}

#[test]
fn a_fork_of_the_owner_owns_nothing() {
    isolated(in_forks);
}

#[forkyard::task]
fn dies_in_a_foreign_fork() {
    let mutex = Mutex::new(5).unwrap();
    // SAFETY: the copy uses atomics and ends.
    match unsafe { libc::fork() } {
        0 => {
            let _held = mutex.lock();
            kill_self()
        }
        child => {
            // SAFETY: a child of ours.
            assert_eq!(unsafe { libc::waitpid(child, std::ptr::null_mut(), 0) }, child);
        }
    }
    assert!(matches!(mutex.lock_timeout(LONG), Err(LockError::OwnerDied(_))));
}

#[test]
fn a_fork_by_foreign_code_that_dies_leaves_its_mutex() {
    isolated(dies_in_a_foreign_fork);
}

#[test]
fn a_panic_unlocks_and_is_no_death() {
    let mutex = Mutex::new(5).unwrap();
    let panics = || {
        let _held = mutex.lock().unwrap();
        std::panic::resume_unwind(Box::new(()))
    };
    assert!(std::thread::scope(|scope| scope.spawn(panics).join()).is_err());
    assert_eq!(*mutex.try_lock().unwrap(), 5);
}

#[test]
fn errors_become_the_common_one() {
    let mutex = Mutex::new(5).unwrap();
    let held = mutex.lock().unwrap();
    let (blocked, timed_out) = std::thread::scope(|scope| {
        scope
            .spawn(|| {
                let blocked = forkyard::Error::from(mutex.try_lock().unwrap_err());
                (blocked, forkyard::Error::from(mutex.lock_timeout(Duration::ZERO).unwrap_err()))
            })
            .join()
            .unwrap()
    });
    assert!(blocked.is_would_block() && timed_out.is_timeout());
    assert!(format!("{mutex:?}").contains("mutex.rs"), "{mutex:?}");
    drop(held);
}
