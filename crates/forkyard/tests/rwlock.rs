//! `RwLock`: data that many read, or one changes.

#![allow(
    unsafe_code,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test fails by a panic; each unsafe block has its own reason"
)]

mod common;

use std::time::{Duration, Instant};

use common::waiters::{LONG, all_sleep, end, finish, take_all};
use common::{eventually, isolated};
use forkyard::process;
use forkyard::sync::{LockError, RwLock, Semaphore};

#[forkyard::task]
fn reads_for_long(lock: RwLock<[u64; 50]>, ready: Semaphore) {
    let _numbers = lock.read_timeout(LONG).unwrap();
    ready.release().unwrap();
    std::thread::sleep(LONG);
}

#[forkyard::task]
fn writes_for_long(lock: RwLock<[u64; 50]>, ready: Semaphore) {
    let mut numbers = lock.write_timeout(LONG).unwrap();
    numbers[0] += 1;
    ready.release().unwrap();
    std::thread::sleep(LONG);
}

/// Tells whether a writer had died.
#[forkyard::task]
fn reads(lock: RwLock<[u64; 50]>, ready: Semaphore) -> bool {
    ready.release().unwrap();
    match lock.read_timeout(LONG) {
        Ok(_) => false,
        Err(LockError::OwnerDied(_)) => true,
        Err(error) => panic!("{error}"),
    }
}

/// Tells whether a writer had died.
#[forkyard::task]
fn writes(lock: RwLock<[u64; 50]>, ready: Semaphore) -> bool {
    ready.release().unwrap();
    let (mut numbers, died) = match lock.write_timeout(LONG) {
        Ok(numbers) => (numbers, false),
        Err(LockError::OwnerDied(died)) => (died.into_inner(), true),
        Err(error) => panic!("{error}"),
    };
    numbers.iter_mut().for_each(|number| *number += 1);
    died
}

type Parts = (RwLock<[u64; 50]>, Semaphore);

fn parts() -> Parts {
    (RwLock::new([0; 50]).unwrap(), Semaphore::new(0).unwrap())
}

#[test]
fn readers_are_in_together_and_a_writer_waits_for_all_of_them_dead_or_alive() {
    let (lock, ready) = parts();
    let readers: Vec<_> =
        (0..5).map(|_| process::spawn(reads_for_long, (lock.clone(), ready.clone())).unwrap()).collect();
    take_all(&ready, 5);
    let own = lock.read().unwrap();
    assert!(matches!(lock.try_write(), Err(LockError::WouldBlock)));
    assert!(matches!(lock.write_timeout(Duration::from_millis(5)), Err(LockError::TimedOut)));
    assert!(lock.try_read().is_ok(), "the writer that left keeps nobody out");
    let writers: Vec<_> =
        (0..3).map(|_| process::spawn(writes, (lock.clone(), ready.clone())).unwrap()).collect();
    all_sleep(&ready, &writers);
    assert!(matches!(lock.try_read(), Err(LockError::WouldBlock)), "writers come first");
    assert_eq!(*own, [0; 50]);
    readers.into_iter().for_each(end);
    drop(own);
    assert_eq!(finish(writers), [false; 3], "nobody is told of a reader's death");
    assert_eq!(*lock.read_timeout(LONG).unwrap(), [3; 50]);
}

#[test]
fn a_dead_writers_lock_goes_to_all_who_wait_and_all_are_told_until_a_writer_is() {
    for waiters in [1, 3, 25] {
        let (lock, ready) = parts();
        let writer = process::spawn(writes_for_long, (lock.clone(), ready.clone())).unwrap();
        take_all(&ready, 1);
        let mut children: Vec<_> =
            (0..waiters).map(|_| process::spawn(reads, (lock.clone(), ready.clone())).unwrap()).collect();
        all_sleep(&ready, &children);
        end(writer);
        assert_eq!(finish(children), vec![true; waiters]);
        let (lock, ready) = parts();
        let writer = process::spawn(writes_for_long, (lock.clone(), ready.clone())).unwrap();
        take_all(&ready, 1);
        children =
            (0..waiters).map(|_| process::spawn(writes, (lock.clone(), ready.clone())).unwrap()).collect();
        all_sleep(&ready, &children);
        end(writer);
        assert_eq!(finish(children).into_iter().filter(|told| *told).count(), 1);
        assert_eq!(lock.try_read().unwrap()[0], 1 + waiters as u64);
    }
}

#[test]
fn try_forms_tell_of_a_dead_writer_too() {
    let (lock, ready) = parts();
    let writer = process::spawn(writes_for_long, (lock.clone(), ready.clone())).unwrap();
    take_all(&ready, 1);
    end(writer);
    assert!(matches!(lock.try_read(), Err(LockError::OwnerDied(_))));
    assert!(matches!(lock.read(), Err(LockError::OwnerDied(_))));
    assert!(matches!(lock.try_write(), Err(LockError::OwnerDied(_))));
    assert!(lock.try_read().is_ok() && lock.try_write().is_ok());
}

/// Changes two numbers one after the other, or sees that nobody is between the two.
#[forkyard::task]
fn keeps_them_equal(lock: RwLock<[u64; 50]>, rounds: u64, seed: u64) -> u64 {
    let mut written = 0;
    for round in 0..rounds {
        if (round * 7 + seed).is_multiple_of(5) {
            let mut numbers = lock.write_timeout(LONG).unwrap();
            numbers.iter_mut().for_each(|number| *number += 1);
            written += 1;
        } else {
            let numbers = lock.read_timeout(LONG).unwrap();
            assert!(numbers.iter().all(|number| *number == numbers[0]));
        }
    }
    written
}

#[test]
fn readers_never_see_half_of_a_change() {
    let lock = RwLock::new([0; 50]).unwrap();
    let children: Vec<_> =
        (0..4).map(|seed| process::spawn(keeps_them_equal, (lock.clone(), 20_000, seed)).unwrap()).collect();
    let written = std::thread::scope(|scope| {
        let threads = [0, 1].map(|seed| {
            scope.spawn({
                let lock = &lock;
                move || {
                    let mut written = 0;
                    for round in 0..20_000u64 {
                        if (round + seed).is_multiple_of(4) {
                            lock.write_timeout(LONG).unwrap().iter_mut().for_each(|number| *number += 1);
                            written += 1;
                        } else {
                            let numbers = lock.read_timeout(LONG).unwrap();
                            assert!(numbers.iter().all(|number| *number == numbers[0]));
                        }
                    }
                    written
                }
            })
        });
        threads.into_iter().map(|thread| thread.join().unwrap()).sum::<u64>()
    });
    let total = written + finish(children).into_iter().sum::<u64>();
    assert_eq!(*lock.try_read().unwrap(), [total; 50]);
}

#[forkyard::task]
fn loops(lock: RwLock<[u64; 50]>, stop: RwLock<u8>, write: bool) {
    while *stop.read_timeout(LONG).unwrap() == 0 {
        for _ in 0..100 {
            if write {
                lock.write_timeout(LONG).unwrap()[1] += 1;
            } else {
                assert!(lock.read_timeout(LONG).unwrap()[49] == 0);
            }
        }
    }
}

#[test]
fn neither_starves_beside_tight_loops_of_the_others() {
    for others_write in [true, false] {
        let (lock, stop) = (RwLock::new([0; 50]).unwrap(), RwLock::new(0).unwrap());
        let start = |_| process::spawn(loops, (lock.clone(), stop.clone(), others_write)).unwrap();
        let children = [0; 3].map(start);
        for round in 0..100 {
            lock.write_timeout(LONG).unwrap()[0] += 1;
            assert_eq!(lock.read_timeout(LONG).unwrap()[0], round + 1);
        }
        *stop.write_timeout(LONG).unwrap() = 1;
        finish(children);
    }
}

#[test]
fn more_threads_read_than_there_are_cells() {
    let lock = RwLock::new(7u64).unwrap();
    let inside = std::sync::atomic::AtomicUsize::new(0);
    let out = std::sync::atomic::AtomicUsize::new(0);
    std::thread::scope(|scope| {
        for _ in 0..200 {
            scope.spawn(|| {
                let value = lock.read_timeout(LONG).unwrap();
                assert_eq!(*value, 7);
                inside.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
                eventually("enough are in", || inside.load(std::sync::atomic::Ordering::SeqCst) >= 128);
                drop(value);
                out.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
            });
        }
    });
    assert_eq!(out.into_inner(), 200);
    *lock.try_write().unwrap() = 8;
}

#[test]
fn times_are_honoured() {
    let lock = RwLock::new(1u8).unwrap();
    let (before, short) = (Instant::now(), Duration::from_millis(20));
    let held = lock.read().unwrap();
    std::thread::scope(|scope| {
        scope.spawn(|| {
            assert!(matches!(lock.write_timeout(short), Err(LockError::TimedOut)));
            assert!(before.elapsed() >= short);
            assert!(matches!(lock.write_deadline(before), Err(LockError::TimedOut)));
            assert!(lock.read_deadline(before).is_ok());
        });
    });
    drop(held);
    let held = lock.write().unwrap();
    let before = Instant::now();
    std::thread::scope(|scope| {
        scope.spawn(|| {
            assert!(matches!(lock.read_timeout(short), Err(LockError::TimedOut)));
            assert!(before.elapsed() >= short);
            assert!(matches!(lock.write_deadline(before + 2 * short), Err(LockError::TimedOut)));
            assert!(before.elapsed() >= 2 * short);
            assert!(matches!(lock.try_read(), Err(LockError::WouldBlock)));
            assert!(matches!(lock.try_write(), Err(LockError::WouldBlock)));
        });
    });
    drop(held);
}

#[forkyard::task]
fn in_forks() {
    let lock = RwLock::new(5u32).unwrap();
    for write in [false, true] {
        let (reading, writing) =
            if write { (None, Some(lock.write().unwrap())) } else { (Some(lock.read().unwrap()), None) };
        // SAFETY: the copy uses atomics and ends.
        match unsafe { libc::fork() } {
            0 => {
                drop((reading, writing));
                let ok = matches!(lock.try_write(), Err(LockError::WouldBlock))
                    && lock.try_read().is_ok() != write;
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
        assert!(matches!(lock.try_write(), Err(LockError::WouldBlock)), "the copy's guard released nothing");
        drop((reading, writing));
        assert!(lock.try_write().is_ok());
    }
}

#[test]
fn a_fork_of_one_who_is_in_is_out() {
    isolated(in_forks);
}
