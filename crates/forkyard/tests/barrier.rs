//! Barriers: all pass or none, whoever dies.

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
use common::{eventually, isolated, kill, sleeps};
use forkyard::process::{self, Process};
use forkyard::signal::{Signal, SignalInfo};
use forkyard::sync::{Barrier, Semaphore};

/// What a wait came to.
const BROKEN: i64 = -1;
const TIMED_OUT: i64 = -2;

fn outcome(result: forkyard::Result<forkyard::sync::BarrierWaitResult>) -> i64 {
    match result {
        Ok(passed) => {
            assert_eq!(passed.is_leader(), passed.index() == 0);
            passed.index() as i64
        }
        Err(error) if error.is_broken_barrier() => BROKEN,
        Err(error) if error.is_timeout() => TIMED_OUT,
        Err(error) => panic!("{error}"),
    }
}

#[forkyard::task]
fn waits(barrier: Barrier, ready: Semaphore) -> i64 {
    ready.release().unwrap();
    outcome(barrier.wait_timeout(LONG))
}

struct World {
    barrier: Barrier,
    ready: Semaphore,
}

impl World {
    fn new(parties: usize) -> World {
        World { barrier: Barrier::new(parties).unwrap(), ready: Semaphore::new(0).unwrap() }
    }

    fn party(&self) -> Process<i64> {
        process::spawn(waits, (self.barrier.clone(), self.ready.clone())).unwrap()
    }

    /// So many children that sleep at the barrier.
    fn waiters(&self, count: usize) -> Vec<Process<i64>> {
        let children: Vec<_> = (0..count).map(|_| self.party()).collect();
        all_sleep(&self.ready, &children);
        eventually("all have arrived", || self.barrier.waiting() == count);
        children
    }
}

/// That these are the numbers of parties who passed together.
fn all_passed(mut outcomes: Vec<i64>) {
    outcomes.sort_unstable();
    assert!(outcomes.iter().copied().eq(0..outcomes.len() as i64), "{outcomes:?}");
}

#[forkyard::task]
fn passes(barrier: Barrier, rounds: usize) -> Vec<i64> {
    (0..rounds).map(|_| outcome(barrier.wait_timeout(LONG))).collect()
}

#[test]
fn rounds_are_exact() {
    let barrier = Barrier::new(4).unwrap();
    let children = [(); 4].map(|()| process::spawn(passes, (barrier.clone(), 200)).unwrap());
    let told = finish(children);
    for round in 0..200 {
        all_passed(told.iter().map(|outcomes| outcomes[round]).collect());
    }
    assert_eq!((barrier.waiting(), barrier.is_broken(), barrier.parties()), (0, false, 4));
}

#[forkyard::task]
fn passes_until_broken(barrier: Barrier, passed: Semaphore) -> Vec<i64> {
    let once = || {
        let outcome = outcome(barrier.wait_timeout(LONG));
        passed.release().unwrap();
        outcome
    };
    std::iter::repeat_with(once).take_while(|outcome| *outcome >= 0).collect()
}

#[test]
fn more_than_are_parties_take_turns() {
    let (barrier, passed) = (Barrier::new(2).unwrap(), Semaphore::new(0).unwrap());
    let start = || process::spawn(passes_until_broken, (barrier.clone(), passed.clone())).unwrap();
    let children: Vec<_> = (0..5).map(|_| start()).collect();
    take_all(&passed, 300);
    barrier.abort().unwrap();
    let told = finish(children).concat();
    let count = |index| told.iter().filter(|outcome| **outcome == index).count();
    assert!(count(0) == count(1) && told.len() >= 300, "{} and {}", count(0), count(1));
}

#[test]
fn a_party_killed_while_it_waits_breaks_it_for_the_others_at_once() {
    for others in [1, 3, 50] {
        let world = World::new(others + 2);
        let mut children = world.waiters(others + 1);
        end(children.remove(others / 2));
        assert!(finish(children).iter().all(|outcome| *outcome == BROKEN));
        assert!(world.barrier.is_broken());
        assert_eq!(world.barrier.waiting(), 0);
        assert!(world.barrier.wait().unwrap_err().is_broken_barrier());
        world.barrier.reset().unwrap();
        assert!(!world.barrier.is_broken());
    }
}

#[test]
fn a_party_killed_after_its_round_breaks_nothing() {
    let world = World::new(3);
    let stays = process::spawn(passes_and_stays, (world.barrier.clone(), world.ready.clone())).unwrap();
    let children = vec![world.party(), world.party()];
    finish(children);
    take_all(&world.ready, 3);
    let children = world.waiters(2);
    end(stays);
    assert!(!world.barrier.is_broken());
    assert!(outcome(world.barrier.wait()) >= 0);
    assert!(finish(children).iter().all(|outcome| *outcome >= 0));
}

#[forkyard::task]
fn passes_and_stays(barrier: Barrier, ready: Semaphore) {
    barrier.wait_timeout(LONG).unwrap();
    ready.release().unwrap();
    std::thread::sleep(LONG);
}

#[test]
fn a_party_killed_before_it_arrives_breaks_nothing() {
    let world = World::new(3);
    let children = world.waiters(1);
    let absent = process::spawn(comes_not, (world.barrier.clone(), world.ready.clone())).unwrap();
    take_all(&world.ready, 1);
    end(absent);
    assert_eq!((world.barrier.waiting(), world.barrier.is_broken()), (1, false));
    let late = world.waiters_beside(1);
    let mut outcomes = vec![outcome(world.barrier.wait())];
    outcomes.extend(finish(children.into_iter().chain(late)));
    all_passed(outcomes);
}

impl World {
    fn waiters_beside(&self, others: usize) -> Vec<Process<i64>> {
        let children = vec![self.party()];
        all_sleep(&self.ready, &children);
        eventually("one more has arrived", || self.barrier.waiting() == others + 1);
        children
    }
}

#[forkyard::task]
fn comes_not(barrier: Barrier, ready: Semaphore) {
    assert!(!barrier.is_broken());
    ready.release().unwrap();
    std::thread::sleep(LONG);
}

#[test]
fn a_time_out_breaks_it_for_all() {
    let world = World::new(3);
    let children = world.waiters(1);
    let start = Instant::now();
    assert_eq!(outcome(world.barrier.wait_timeout(Duration::from_millis(30))), TIMED_OUT);
    assert!(start.elapsed() >= Duration::from_millis(30));
    assert_eq!(finish(children), [BROKEN]);
    assert_eq!(outcome(world.barrier.wait_deadline(Instant::now())), BROKEN);
    world.barrier.reset().unwrap();
    assert_eq!(outcome(world.barrier.wait_deadline(Instant::now())), TIMED_OUT);
}

#[test]
fn a_try_passes_as_the_last_one_or_changes_nothing() {
    let world = World::new(2);
    assert!(world.barrier.try_wait().unwrap().is_none());
    assert_eq!((world.barrier.waiting(), world.barrier.is_broken()), (0, false));
    let children = world.waiters(1);
    let mut outcomes = vec![world.barrier.try_wait().unwrap().unwrap().index() as i64];
    outcomes.extend(finish(children));
    all_passed(outcomes);
    assert_eq!(Barrier::new(1).unwrap().try_wait().unwrap().unwrap().index(), 0);
}

#[test]
fn an_abort_is_told_to_all_until_a_reset() {
    let world = World::new(4);
    let children = world.waiters(3);
    world.barrier.abort().unwrap();
    assert_eq!(finish(children), [BROKEN; 3]);
    assert_eq!(outcome(world.barrier.wait()), BROKEN);
    assert!(world.barrier.try_wait().unwrap_err().is_broken_barrier());
    world.barrier.reset().unwrap();
    let children = world.waiters(3);
    let mut outcomes = vec![outcome(world.barrier.wait())];
    outcomes.extend(finish(children));
    all_passed(outcomes);
}

#[test]
fn a_reset_is_told_to_those_who_wait_and_no_others() {
    let world = World::new(3);
    for _ in 0..10 {
        world.barrier.reset().unwrap();
        let children = world.waiters(2);
        world.barrier.reset().unwrap();
        assert_eq!(finish(children), [BROKEN; 2]);
        assert!(!world.barrier.is_broken());
    }
    let children = world.waiters(2);
    assert!(outcome(world.barrier.wait()) >= 0);
    assert!(finish(children).iter().all(|outcome| *outcome >= 0));
}

#[test]
fn threads_and_processes_pass_together() {
    let barrier = Barrier::new(4).unwrap();
    let children = [(); 2].map(|()| process::spawn(passes, (barrier.clone(), 50)).unwrap());
    let mut told = std::thread::scope(|scope| {
        let threads = [(); 2].map(|()| {
            scope.spawn(|| (0..50).map(|_| outcome(barrier.wait_timeout(LONG))).collect::<Vec<_>>())
        });
        threads.map(|thread| thread.join().unwrap()).to_vec()
    });
    told.extend(finish(children));
    for round in 0..50 {
        all_passed(told.iter().map(|outcomes| outcomes[round]).collect());
    }
}

#[test]
fn numbers_of_parties_that_it_cannot_have_are_refused() {
    assert!(Barrier::new(0).unwrap_err().is_invalid());
    assert!(Barrier::new(65_537).unwrap_err().is_invalid());
    assert_eq!(Barrier::new(65_536).unwrap().parties(), 65_536);
    let alone = Barrier::new(1).unwrap();
    (0..3).for_each(|_| assert!(alone.wait().unwrap().is_leader()));
}

#[forkyard::task]
fn counts_signals(barrier: Barrier, ready: Semaphore, seen: Semaphore) -> i64 {
    let count = move |_: &SignalInfo| seen.release().unwrap();
    forkyard::signal::handle(Signal::USR1, count).unwrap().keep();
    waits(barrier, ready)
}

#[test]
fn a_signal_does_not_end_a_wait() {
    let world = World::new(2);
    let seen = Semaphore::new(0).unwrap();
    let args = (world.barrier.clone(), world.ready.clone(), seen.clone());
    let children = [process::spawn(counts_signals, args).unwrap()];
    all_sleep(&world.ready, &children);
    for _ in 0..3 {
        kill(pid(&children[0]), libc::SIGUSR1);
        take_all(&seen, 1);
        eventually("it sleeps again", || sleeps(pid(&children[0])));
    }
    assert!(outcome(world.barrier.wait()) >= 0);
    assert!(finish(children)[0] >= 0);
}

#[forkyard::task]
fn forks() {
    let barrier = Barrier::new(3).unwrap();
    let fork = || {
        let here = barrier.clone();
        process::fork(move || outcome(here.wait_timeout(LONG))).unwrap()
    };
    let children = vec![fork(), fork()];
    eventually("both have arrived", || barrier.waiting() == 2);
    let mut outcomes = vec![outcome(barrier.wait())];
    outcomes.extend(finish(children));
    all_passed(outcomes);
    let mut children = vec![fork(), fork()];
    eventually("both have arrived", || barrier.waiting() == 2);
    end(children.remove(0));
    assert_eq!(finish(children), [BROKEN]);
}

#[test]
fn forks_are_parties_of_their_own() {
    isolated(forks);
}
