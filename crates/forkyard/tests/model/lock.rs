//! Models of the lock word.

use std::cell::Cell;
use std::sync::atomic::AtomicU32;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Instant;

use loom::sync::Arc;

use crate::family::{Family, Patient, check, check_some, holder, id, killed_anywhere, unseen};
use crate::primitive;
use crate::shm::Id;
use crate::sync::raw::{Outcome, RawLock, Released, Waiter};
use crate::watched::Watched;

/// Waits until its thread's time is up.
struct Hasty;

impl Waiter for Hasty {
    fn until(&self) -> Option<Instant> {
        Some(Instant::now())
    }
}

/// A lock and what it protects: how often it was acquired.
#[derive(Default)]
struct Shared {
    lock: RawLock,
    entered: Watched<u32>,
}

#[derive(Clone)]
struct World {
    family: Family,
    shared: Arc<Shared>,
    /// How often somebody was told of a death. No part of the model.
    told: std::sync::Arc<AtomicU32>,
}

impl World {
    fn new() -> World {
        World { family: Family::new(), shared: Arc::default(), told: std::sync::Arc::default() }
    }

    fn acquire(&self, me: Id) -> Outcome {
        self.shared.lock.acquire(&self.family, holder(me), &mut Patient)
    }

    /// Acquires the lock, enters, releases it. Tells whether the last owner had died.
    fn once(&self, me: Id) -> bool {
        let outcome = self.acquire(me);
        assert!(matches!(outcome, Outcome::Acquired | Outcome::OwnerDied(_)), "{outcome:?}");
        self.enter();
        assert_eq!(self.shared.lock.release(holder(me)), Released::Done);
        outcome != Outcome::Acquired
    }

    fn tell(&self, died: bool) {
        self.told.fetch_add(died.into(), Relaxed);
    }

    fn enter(&self) {
        self.shared.entered.change(|entered| entered + 1);
    }

    /// How often the lock was acquired. Afterwards.
    fn entered(&self) -> u32 {
        self.shared.entered.get()
    }
}

/// Two or three participants want the lock `times` each.
fn all_enter(preemptions: usize, participants: u32, times: u32, hurried: bool) {
    check(preemptions, move || {
        let world = World::new();
        let body = move |world: &World, me| {
            if hurried {
                primitive::hurry();
            }
            (0..times).for_each(|_| assert!(!world.once(me)));
        };
        let others: Vec<_> = (1..participants)
            .map(|number| {
                let here = world.clone();
                world.family.spawn(number, None, move |me| body(&here, me), unseen)
            })
            .collect();
        world.family.live(0, None, |me| body(&world, me), unseen);
        others.into_iter().for_each(|other| assert!(!other.join().unwrap()));
        assert_eq!(world.entered(), participants * times);
        assert_eq!(world.shared.lock.owner(), None);
    });
}

#[test]
fn two_participants_exclude_each_other() {
    all_enter(3, 2, 2, false);
}

#[test]
fn three_participants_exclude_each_other() {
    all_enter(2, 3, 1, false);
}

#[test]
fn starving_participants_exclude_each_other() {
    all_enter(2, 3, 1, true);
}

/// The first participant is killed at any step of acquiring and releasing, and the others go on, whether somebody reaps it or
/// nobody does. If it was killed between the two, one who comes later is told, and otherwise one at most.
fn survive(preemptions: usize, others: u32, hurried: bool, reaped: bool) {
    killed_anywhere(preemptions, move |steps| {
        let world = World::new();
        let others: Vec<_> = (1..=others)
            .map(|number| {
                let here = world.clone();
                let body = move |me| {
                    if hurried {
                        primitive::hurry();
                    }
                    here.tell(here.once(me));
                };
                world.family.spawn(number, None, body, unseen)
            })
            .collect();
        let held = Cell::new(false);
        let body = |me| {
            world.tell(world.acquire(me) != Outcome::Acquired);
            held.set(true);
            world.enter();
            held.set(false);
            assert_eq!(world.shared.lock.release(holder(me)), Released::Done);
        };
        let reap = |dead| {
            if reaped {
                world.shared.lock.repair(dead);
            }
        };
        let killed = world.family.live(0, Some(steps), body, reap);
        others.into_iter().for_each(|other| assert!(!other.join().unwrap()));
        world.tell(world.once(id(3)));
        let told = world.told.load(Relaxed);
        assert!(told <= 1 && (told == 1 || !(killed && held.get())), "told {told} times");
        killed
    });
}

#[test]
fn one_goes_on_wherever_the_other_is_killed() {
    survive(3, 1, false, false);
    survive(3, 1, false, true);
}

#[test]
fn two_go_on_wherever_a_third_is_killed() {
    survive(2, 2, false, false);
}

#[test]
fn two_go_on_wherever_a_third_is_killed_and_reaped() {
    survive(1, 2, false, true);
}

#[test]
fn starving_ones_go_on_wherever_another_is_killed() {
    survive(2, 2, true, false);
}

#[test]
fn three_go_on_wherever_a_fourth_is_killed() {
    survive(1, 3, false, false);
}

#[test]
fn waiters_that_leave_take_nobodys_wake_up_with_them() {
    check_some(2, 10_000, || {
        let world = World::new();
        let leave = |number| {
            let here = world.clone();
            let body = move |me| {
                primitive::sleep_once();
                match here.shared.lock.acquire(&here.family, holder(me), &mut Hasty) {
                    Outcome::TimedOut => {}
                    outcome => {
                        assert_eq!(outcome, Outcome::Acquired);
                        assert_eq!(here.shared.lock.release(holder(me)), Released::Done);
                    }
                }
            };
            world.family.spawn(number, None, body, unseen)
        };
        let here = world.clone();
        // Asleep behind the two that leave.
        assert_eq!(world.acquire(id(0)), Outcome::Acquired);
        let threads = [leave(1), leave(2), world.family.spawn(3, None, move |me| _ = here.once(me), unseen)];
        primitive::until_asleep(3);
        assert_eq!(world.shared.lock.release(holder(id(0))), Released::Done);
        world.once(id(0));
        threads.into_iter().for_each(|thread| assert!(!thread.join().unwrap()));
    });
}

#[test]
fn who_releases_for_another_may_be_killed_anywhere() {
    killed_anywhere(2, |steps| {
        let world = World::new();
        let owner = id(0);
        assert_eq!(world.acquire(owner), Outcome::Acquired);
        let (releaser, waiter) = (world.clone(), world.clone());
        let release = move |me| assert_eq!(releaser.shared.lock.release_any(holder(me)), Released::Done);
        let victim = world.family.spawn(1, Some(steps), release, unseen);
        let waiter = world.family.spawn(2, None, move |me| assert!(!waiter.once(me)), unseen);
        let killed = victim.join().unwrap();
        if world.shared.lock.owner() == Some(owner) {
            assert!(killed);
            assert_eq!(world.shared.lock.release(holder(owner)), Released::Done);
        }
        assert!(!waiter.join().unwrap());
        killed
    });
}

#[test]
fn a_death_that_was_not_dealt_with_is_told_again() {
    check(2, || {
        let world = World::new();
        let dead = id(3);
        let other = world.clone();
        let other = world.family.spawn(1, None, move |me| other.tell(other.once(me)), unseen);
        world.family.live(
            0,
            None,
            |me| {
                assert!(matches!(world.acquire(me), Outcome::Acquired));
                assert_eq!(world.shared.lock.release_died(me, Some(dead)), Released::Done);
                let outcome = world.acquire(me);
                world.tell(outcome != Outcome::Acquired);
                assert_eq!(world.shared.lock.release(holder(me)), Released::Done);
            },
            unseen,
        );
        assert!(!other.join().unwrap());
        assert_eq!(world.told.load(Relaxed), 1);
    });
}
