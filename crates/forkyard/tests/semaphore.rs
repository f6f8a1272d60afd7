//! Semaphores: permits that are counted, and permits that belong to somebody.

#![allow(
    unsafe_code,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test fails by a panic; each unsafe block has its own reason"
)]

mod common;

use std::time::{Duration, Instant};

use common::waiters::{LONG, all_sleep, end, finish, pid, take_all};
use common::{DEADLINE, eventually, isolated, kill, sleeps, thread_sleeps};
use forkyard::process::{self, Builder, Start};
use forkyard::signal::{Signal, SignalInfo};
use forkyard::sync::{BoundedSemaphore, Semaphore};

#[forkyard::task]
fn takes_and_gives(semaphore: BoundedSemaphore, ready: Semaphore) {
    ready.release().unwrap();
    semaphore.acquire_timeout(LONG).unwrap();
    semaphore.release().unwrap();
}

#[forkyard::task]
fn holds(semaphore: BoundedSemaphore, ready: Semaphore) {
    semaphore.acquire_timeout(LONG).unwrap();
    ready.release().unwrap();
    std::thread::sleep(LONG);
}

#[test]
fn a_dead_holders_permit_goes_to_all_who_wait_in_turn() {
    for waiters in [0, 1, 3, 50] {
        let semaphore = BoundedSemaphore::new(1).unwrap();
        let ready = Semaphore::new(0).unwrap();
        let holder = process::spawn(holds, (semaphore.clone(), ready.clone())).unwrap();
        ready.acquire_timeout(LONG).unwrap();
        assert_eq!(semaphore.value(), 0);
        let start = || process::spawn(takes_and_gives, (semaphore.clone(), ready.clone())).unwrap();
        let children: Vec<_> = (0..waiters).map(|_| start()).collect();
        all_sleep(&ready, &children);
        end(holder);
        finish(children);
        eventually("the permit is back", || semaphore.value() == 1);
        assert!(semaphore.try_acquire().unwrap());
    }
}

#[test]
fn several_permits_of_the_dead_come_back_together() {
    let semaphore = BoundedSemaphore::new(4).unwrap();
    let ready = Semaphore::new(0).unwrap();
    let start = || process::spawn(holds, (semaphore.clone(), ready.clone())).unwrap();
    let holders: Vec<_> = (0..4).map(|_| start()).collect();
    take_all(&ready, 4);
    assert!(!semaphore.try_acquire().unwrap());
    holders.into_iter().for_each(end);
    for _ in 0..4 {
        semaphore.acquire_timeout(LONG).unwrap();
    }
    assert_eq!(semaphore.value(), 0);
}

#[test]
fn a_plain_semaphores_count_is_never_touched_at_a_death() {
    let semaphore = Semaphore::new(2).unwrap();
    let ready = Semaphore::new(0).unwrap();
    let child = process::spawn(takes_plain, (semaphore.clone(), ready.clone())).unwrap();
    ready.acquire_timeout(LONG).unwrap();
    end(child);
    assert_eq!(semaphore.value(), 1);
    assert!(semaphore.try_acquire().unwrap());
    assert!(semaphore.acquire_timeout(Duration::from_millis(50)).unwrap_err().is_timeout());
}

#[forkyard::task]
fn takes_plain(semaphore: Semaphore, ready: Semaphore) {
    semaphore.acquire_timeout(LONG).unwrap();
    ready.release().unwrap();
    std::thread::sleep(LONG);
}

#[test]
fn with_undo_permits_of_the_dead_come_back() {
    let semaphore = Semaphore::undo(1, 3).unwrap();
    let ready = Semaphore::new(0).unwrap();
    let child = process::spawn(takes_plain, (semaphore.clone(), ready.clone())).unwrap();
    ready.acquire_timeout(LONG).unwrap();
    assert_eq!(semaphore.value(), 0);
    end(child);
    semaphore.acquire_timeout(LONG).unwrap();
    semaphore.release().unwrap();
    assert_eq!(semaphore.value(), 1);
    semaphore.release_many(2).unwrap();
    assert_eq!(semaphore.value(), 3);
    assert!(semaphore.release().unwrap_err().is_invalid());
}

#[forkyard::task]
fn waits(semaphore: Semaphore, ready: Semaphore) {
    ready.release().unwrap();
    semaphore.acquire_timeout(LONG).unwrap();
}

#[test]
fn a_killed_waiter_takes_no_permit_with_it() {
    for semaphore in [Semaphore::new(0).unwrap(), Semaphore::undo(0, 9).unwrap()] {
        let ready = Semaphore::new(0).unwrap();
        let start = || process::spawn(waits, (semaphore.clone(), ready.clone())).unwrap();
        let mut children: Vec<_> = (0..3).map(|_| start()).collect();
        all_sleep(&ready, &children);
        end(children.remove(0));
        semaphore.release_many(2).unwrap();
        finish(children);
    }
}

#[test]
fn as_many_are_released_as_permits_were_given() {
    let semaphore = Semaphore::new(0).unwrap();
    let ready = Semaphore::new(0).unwrap();
    let start = || process::spawn(waits, (semaphore.clone(), ready.clone())).unwrap();
    let children: Vec<_> = (0..5).map(|_| start()).collect();
    all_sleep(&ready, &children);
    semaphore.release_many(2).unwrap();
    let done = || children.iter().filter(|child| !child.is_alive()).count();
    eventually("two go on", || done() == 2);
    eventually("the permits are gone", || semaphore.value() == 0);
    let waiting: Vec<_> = children.iter().filter(|child| child.is_alive()).map(pid).collect();
    assert_eq!(waiting.len(), 3);
    for pid in waiting {
        eventually("the others sleep again", || sleeps(pid));
    }
    assert_eq!(done(), 2);
    semaphore.release_many(3).unwrap();
    finish(children);
    assert_eq!(semaphore.value(), 0);
}

#[test]
fn large_numbers_are_released_beside_waiters() {
    let semaphore = Semaphore::new(0).unwrap();
    let ready = Semaphore::new(0).unwrap();
    let children = [process::spawn(waits, (semaphore.clone(), ready.clone())).unwrap()];
    all_sleep(&ready, &children);
    semaphore.release_many(1_000_003).unwrap();
    finish(children);
    assert_eq!(semaphore.value(), 1_000_002);
    semaphore.release_many(Semaphore::MAX_PERMITS - 1_000_002).unwrap();
    assert!(semaphore.release().unwrap_err().is_invalid());
    assert_eq!(semaphore.value(), Semaphore::MAX_PERMITS);
}

#[test]
fn a_bounded_one_is_not_released_too_often() {
    let semaphore = BoundedSemaphore::new(2).unwrap();
    let error = semaphore.release().unwrap_err();
    assert!(error.is_invalid());
    assert!(error.to_string().contains("semaphore.rs"), "{error}");
    semaphore.acquire().unwrap();
    semaphore.release().unwrap();
    assert!(semaphore.release().unwrap_err().is_invalid());
    assert_eq!(semaphore.value(), 2);
}

#[forkyard::task]
fn takes_for_another(semaphore: BoundedSemaphore, go_on: Semaphore) -> bool {
    semaphore.acquire_timeout(LONG).unwrap();
    go_on.acquire_timeout(LONG).unwrap();
    semaphore.release().is_err_and(|error| error.is_invalid())
}

#[test]
fn another_process_or_thread_may_release() {
    let semaphore = BoundedSemaphore::new(1).unwrap();
    let go_on = Semaphore::new(0).unwrap();
    let child = process::spawn(takes_for_another, (semaphore.clone(), go_on.clone())).unwrap();
    eventually("the child has the permit", || semaphore.value() == 0);
    semaphore.release().unwrap();
    assert_eq!(semaphore.value(), 1);
    go_on.release().unwrap();
    assert!(child.join_timeout(DEADLINE).unwrap(), "its permit was given back by somebody else");

    semaphore.acquire().unwrap();
    std::thread::scope(|scope| {
        scope.spawn(|| semaphore.release().unwrap());
    });
    assert_eq!(semaphore.value(), 1);
}

#[test]
fn a_waiter_is_woken_by_a_release_for_another_process() {
    let semaphore = BoundedSemaphore::new(1).unwrap();
    let ready = Semaphore::new(0).unwrap();
    let holder = process::spawn(holds, (semaphore.clone(), ready.clone())).unwrap();
    ready.acquire_timeout(LONG).unwrap();
    let waiter = process::spawn(takes_and_gives, (semaphore.clone(), ready.clone())).unwrap();
    let waiters = [waiter];
    all_sleep(&ready, &waiters);
    semaphore.release().unwrap();
    finish(waiters);
    end(holder);
    eventually("all are free", || semaphore.value() == 1);
}

#[test]
fn never_more_are_inside_than_there_are_permits() {
    let semaphore = BoundedSemaphore::new(2).unwrap();
    let inside = Semaphore::new(0).unwrap();
    let start = |how| Builder::new().start(how).spawn(enters, (semaphore.clone(), inside.clone())).unwrap();
    let children = [Start::Zygote, Start::Spawn, Start::Zygote, Start::Spawn].map(start);
    finish(children);
    assert_eq!((semaphore.value(), inside.value()), (2, 0));
}

#[forkyard::task]
fn enters(semaphore: BoundedSemaphore, inside: Semaphore) {
    for _ in 0..500 {
        semaphore.acquire_timeout(LONG).unwrap();
        inside.release().unwrap();
        assert!(inside.value() <= 2);
        assert!(inside.try_acquire().unwrap());
        semaphore.release().unwrap();
    }
}

#[test]
fn threads_wait_for_each_other_too() {
    let semaphore = BoundedSemaphore::new(1).unwrap();
    semaphore.acquire().unwrap();
    let (tell, told) = std::sync::mpsc::channel();
    std::thread::scope(|scope| {
        let waiter = scope.spawn(|| {
            // SAFETY: no arguments.
            tell.send(unsafe { libc::gettid() }).unwrap();
            semaphore.acquire_timeout(LONG).unwrap();
            semaphore.release().unwrap();
        });
        let thread = told.recv().unwrap();
        eventually("the thread sleeps", || thread_sleeps(common::own_pid(), thread));
        semaphore.release().unwrap();
        waiter.join().unwrap();
    });
    assert_eq!(semaphore.value(), 1);
}

#[test]
fn a_wait_ends_when_its_time_is_up_and_not_before() {
    let semaphores = [Semaphore::new(0).unwrap(), Semaphore::undo(0, 1).unwrap()];
    let bounded = BoundedSemaphore::new(0).unwrap();
    for timeout in [Duration::ZERO, Duration::from_millis(30)] {
        let start = Instant::now();
        for semaphore in &semaphores {
            assert!(semaphore.acquire_timeout(timeout).unwrap_err().is_timeout());
            assert!(semaphore.acquire_deadline(Instant::now() + timeout).unwrap_err().is_timeout());
            assert!(!semaphore.try_acquire().unwrap());
        }
        assert!(bounded.acquire_timeout(timeout).unwrap_err().is_timeout());
        assert!(bounded.acquire_deadline(Instant::now() + timeout).unwrap_err().is_timeout());
        assert!(!bounded.try_acquire().unwrap());
        assert!(start.elapsed() >= timeout * 6);
    }
    assert!(bounded.release().unwrap_err().is_invalid());
    semaphores[0].release().unwrap();
    semaphores[0].acquire_timeout(Duration::MAX).unwrap();
}

#[test]
fn numbers_that_it_cannot_have_are_refused() {
    for error in [
        Semaphore::new(Semaphore::MAX_PERMITS + 1).unwrap_err(),
        Semaphore::undo(2, 1).unwrap_err(),
        Semaphore::undo(0, 0).unwrap_err(),
        Semaphore::undo(1, 65_537).unwrap_err(),
        BoundedSemaphore::new(BoundedSemaphore::MAX_PERMITS + 1).unwrap_err(),
    ] {
        assert!(error.is_invalid(), "{error}");
    }
    let most = BoundedSemaphore::new(BoundedSemaphore::MAX_PERMITS).unwrap();
    for _ in 0..3 {
        most.acquire().unwrap();
    }
    assert_eq!(most.value(), BoundedSemaphore::MAX_PERMITS - 3);
}

#[forkyard::task]
fn counts_signals(semaphore: Semaphore, ready: Semaphore, seen: Semaphore) {
    let seen_here = seen.clone();
    let count = move |_: &SignalInfo| seen_here.release().unwrap();
    forkyard::signal::handle(Signal::USR1, count).unwrap().keep();
    ready.release().unwrap();
    semaphore.acquire_timeout(LONG).unwrap();
}

#[test]
fn a_signal_does_not_end_a_wait() {
    for semaphore in [Semaphore::new(0).unwrap(), Semaphore::undo(0, 1).unwrap()] {
        let (ready, seen) = (Semaphore::new(0).unwrap(), Semaphore::new(0).unwrap());
        let children =
            [process::spawn(counts_signals, (semaphore.clone(), ready.clone(), seen.clone())).unwrap()];
        all_sleep(&ready, &children);
        for _ in 0..3 {
            kill(pid(&children[0]), libc::SIGUSR1);
            seen.acquire_timeout(LONG).unwrap();
            eventually("it sleeps again", || sleeps(pid(&children[0])));
        }
        semaphore.release().unwrap();
        finish(children);
    }
}

#[forkyard::task]
fn forks() {
    let semaphore = BoundedSemaphore::new(2).unwrap();
    semaphore.acquire().unwrap();
    let here = semaphore.clone();
    let child = process::fork(move || {
        here.acquire_timeout(LONG).unwrap();
        std::thread::sleep(LONG);
    })
    .unwrap();
    eventually("the child has a permit", || semaphore.value() == 0);
    end(child);
    semaphore.acquire_timeout(LONG).unwrap();
    assert_eq!(semaphore.value(), 0, "what the parent holds is not the child's");
    semaphore.release().unwrap();
    semaphore.release().unwrap();
    assert!(semaphore.release().is_err());
}

#[test]
fn a_forks_permits_are_its_own() {
    isolated(forks);
}

#[forkyard::task]
fn wants_the_other(
    has: BoundedSemaphore,
    wants: BoundedSemaphore,
    ready: Semaphore,
    go_on: Semaphore,
) -> bool {
    has.acquire().unwrap();
    ready.release().unwrap();
    go_on.acquire_timeout(LONG).unwrap();
    let result = wants.acquire_timeout(LONG);
    has.release().unwrap();
    match result {
        Ok(()) => wants.release().map(|()| false).unwrap(),
        Err(error) => {
            assert!(error.is_deadlock(), "{error}");
            assert!(error.to_string().contains("BoundedSemaphore made at"), "{error}");
            true
        }
    }
}

#[test]
fn a_circle_of_waiters_is_told_to_one_of_them() {
    let [one, other] = [(); 2].map(|()| BoundedSemaphore::new(1).unwrap());
    let [ready, go_on] = [(); 2].map(|()| Semaphore::new(0).unwrap());
    let start = |has: &BoundedSemaphore, wants: &BoundedSemaphore| {
        process::spawn(wants_the_other, (has.clone(), wants.clone(), ready.clone(), go_on.clone())).unwrap()
    };
    let children = [start(&one, &other), start(&other, &one)];
    take_all(&ready, 2);
    go_on.release_many(2).unwrap();
    let told = finish(children);
    assert_eq!(told.iter().filter(|told| **told).count(), 1);
    assert_eq!((one.value(), other.value()), (1, 1));
}
