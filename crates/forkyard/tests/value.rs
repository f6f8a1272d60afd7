//! Values and arrays: atomic, locked, raw.

#![allow(
    unsafe_code,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test fails by a panic; each unsafe block has its own reason"
)]

mod common;

use std::sync::atomic::Ordering::Relaxed;
use std::sync::atomic::{AtomicI64, AtomicU8, AtomicU32, AtomicU64};
use std::time::Duration;

use common::waiters::{LONG, all_sleep, end, finish, take_all};
use common::{eventually, isolated};
use forkyard::ShmSafe;
use forkyard::process::{self, Builder, Start};
use forkyard::sync::{Array, LockError, Semaphore, Value};

#[derive(Clone, Copy, Debug, PartialEq, ShmSafe)]
#[repr(C)]
struct Position {
    x: f64,
    y: f64,
    turns: u8,
}

#[forkyard::task]
fn counts(
    counter: Value<AtomicU64>,
    locked: Value<u64>,
    each: Array<AtomicU32>,
    sum: Array<f64>,
    own: usize,
) {
    for _ in 0..1000 {
        counter.fetch_add(1, Relaxed);
        *locked.lock().unwrap() += 1;
        each[own].fetch_add(1, Relaxed);
        sum.lock().unwrap().iter_mut().for_each(|element| *element += 1.0);
    }
}

#[test]
fn four_processes_count_together() {
    let counter = Value::new(AtomicU64::new(0)).unwrap();
    let locked = Value::new(0_u64).unwrap();
    let each = Array::<AtomicU32>::zeroed(4).unwrap();
    let sum = Array::new(&[0.0; 3]).unwrap();
    let starts = [Start::Zygote, Start::Spawn, Start::Zygote, Start::Spawn];
    let children: Vec<_> = (0..4)
        .map(|own| {
            let args = (counter.clone(), locked.clone(), each.clone(), sum.clone(), own);
            Builder::new().start(starts[own]).spawn(counts, args).unwrap()
        })
        .collect();
    finish(children);
    assert_eq!(counter.load(Relaxed), 4000);
    assert_eq!(locked.get().unwrap(), 4000);
    assert!(each.iter().all(|count| count.load(Relaxed) == 1000));
    assert_eq!(*sum.lock().unwrap(), [4000.0; 3]);
}

#[test]
fn a_structure_is_read_and_written_whole() {
    let value = Value::new(Position { x: 0.0, y: 0.0, turns: 0 }).unwrap();
    let writer = process::spawn(moves, (value.clone(),)).unwrap();
    eventually("the last position is seen", || {
        let seen = value.get().unwrap();
        assert_eq!((seen.x, seen.y), (f64::from(seen.turns), -f64::from(seen.turns)));
        seen.turns == 100
    });
    finish([writer]);
}

#[forkyard::task]
fn moves(value: Value<Position>) {
    for turns in 1..=100 {
        value.set(Position { x: f64::from(turns), y: -f64::from(turns), turns }).unwrap();
    }
}

#[test]
fn atomics_of_each_width_keep_their_values() {
    let byte = Value::new(AtomicU8::new(250)).unwrap();
    byte.fetch_add(10, Relaxed);
    assert_eq!(byte.load(Relaxed), 4);
    let signed = Value::new(AtomicI64::new(-5)).unwrap();
    assert_eq!(signed.compare_exchange(-5, 7, Relaxed, Relaxed), Ok(-5));
    assert_eq!(signed.load(Relaxed), 7);
    let row = Value::new([AtomicU32::new(1), AtomicU32::new(2)]).unwrap();
    assert_eq!(row[1].swap(3, Relaxed), 2);
    let locked = signed.lock().unwrap();
    assert_eq!(locked.load(Relaxed), 7);
    assert!(matches!(signed.try_lock(), Err(LockError::WouldBlock)));
}

#[test]
fn an_array_has_the_elements_it_was_given() {
    let array = Array::new(&[1_u16, 2, 3]).unwrap();
    assert_eq!((array.len(), array.is_empty()), (3, false));
    assert_eq!(array.get(2).unwrap(), 3);
    array.set(0, 9).unwrap();
    assert_eq!(*array.lock().unwrap(), [9, 2, 3]);
    let beyond = array.get(3).unwrap_err();
    assert!(beyond.is_invalid() && beyond.to_string().contains("3 elements"), "{beyond}");
    assert!(array.set(3, 0).unwrap_err().is_invalid());
    array.lock().unwrap().sort_unstable();
    assert_eq!(array.lock().unwrap().to_vec(), [2, 3, 9]);
    assert!(Array::<u64>::new(&[]).unwrap().is_empty());
    let large = Array::<u8>::zeroed(3_000_000).unwrap();
    assert!(large.lock().unwrap().iter().all(|byte| *byte == 0));
    assert_eq!(large.len(), 3_000_000);
    assert!(Array::<u64>::zeroed(usize::MAX).unwrap_err().is_full());
}

#[test]
fn raw_access_is_to_the_same_data() {
    let array = Array::new(&[1_u32, 2]).unwrap();
    let value = Value::new(5_i32).unwrap();
    // SAFETY: both have handles here, and nobody else uses them.
    unsafe {
        *array.as_ptr().add(1) += 40;
        *value.as_ptr() -= 6;
    }
    assert_eq!(array.get(1).unwrap(), 42);
    assert_eq!(value.get().unwrap(), -1);
}

#[forkyard::task]
fn dies_with_the_lock(value: Value<u64>, array: Array<u64>) {
    let mut value = value.lock().unwrap();
    let mut array = array.lock().unwrap();
    *value = 1;
    array[0] = 1;
    common::kill_self();
}

#[test]
fn the_next_owner_is_told_of_a_death_and_finds_what_it_left() {
    let (value, array) = (Value::new(0_u64).unwrap(), Array::new(&[0_u64, 0]).unwrap());
    let child = process::spawn(dies_with_the_lock, (value.clone(), array.clone())).unwrap();
    child.wait_ended().unwrap();
    match value.lock_timeout(LONG) {
        Err(LockError::OwnerDied(mut died)) => {
            assert_eq!(**died.get_mut(), 1);
            *died.into_inner() = 2;
        }
        other => panic!("{other:?}"),
    }
    assert_eq!(value.get().unwrap(), 2);
    assert!(array.set(1, 5).unwrap_err().is_owner_died());
    assert_eq!(*array.lock().unwrap(), [1, 0]);
    array.set(1, 5).unwrap();
    assert_eq!(*array.lock().unwrap(), [1, 5]);
}

#[forkyard::task]
fn adds(value: Value<u64>, ready: Semaphore) {
    ready.release().unwrap();
    *value.lock_timeout(LONG).or_else(LockError::recovered).unwrap() += 1;
}

#[forkyard::task]
fn locks(value: Value<u64>, ready: Semaphore) {
    let locked = value.lock().unwrap();
    ready.release().unwrap();
    std::thread::sleep(LONG);
    drop(locked);
}

#[test]
fn a_dead_owners_waiters_have_their_turn() {
    for count in [0, 1, 3, 50] {
        let (value, ready) = (Value::new(0_u64).unwrap(), Semaphore::new(0).unwrap());
        let owner = process::spawn(locks, (value.clone(), ready.clone())).unwrap();
        take_all(&ready, 1);
        assert!(matches!(value.lock_timeout(Duration::from_millis(10)), Err(LockError::TimedOut)));
        let start = |_| process::spawn(adds, (value.clone(), ready.clone())).unwrap();
        let children: Vec<_> = (0..count).map(start).collect();
        all_sleep(&ready, &children);
        end(owner);
        finish(children);
        let now = value.lock().or_else(LockError::recovered).unwrap();
        assert_eq!(*now, count);
    }
}

#[test]
fn threads_share_them_too() {
    let (value, array) = (Value::new(0_u64).unwrap(), Array::new(&[0_u64; 2]).unwrap());
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                for _ in 0..1000 {
                    *value.lock().unwrap() += 1;
                    array.lock().unwrap()[1] += 1;
                }
            });
        }
    });
    assert_eq!((value.get().unwrap(), array.get(1).unwrap()), (4000, 4000));
}

#[forkyard::task]
fn forks() {
    let (value, counter) = (Value::new(1_u64).unwrap(), Value::new(AtomicU64::new(0)).unwrap());
    let locked = value.lock().unwrap();
    let (here, count) = (value.clone(), counter.clone());
    let child = process::fork(move || {
        let busy = matches!(here.try_lock(), Err(LockError::WouldBlock));
        count.fetch_add(1, Relaxed);
        busy
    });
    assert_eq!(finish([child.unwrap()]), [true]);
    assert_eq!(counter.load(Relaxed), 1);
    drop(locked);
    assert_eq!(value.get().unwrap(), 1);
}

#[test]
fn a_fork_shares_them_and_has_no_lock_of_its_parents() {
    isolated(forks);
}
