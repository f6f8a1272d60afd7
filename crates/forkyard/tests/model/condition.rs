//! Models of the condition, with a lock of ours.

use std::sync::atomic::{AtomicBool, Ordering};

use loom::sync::Arc;

use crate::family::{Family, Impatient, Patient, check, holder, join, killed_anywhere, unseen};
use crate::primitive::AtomicU32;
use crate::shm::Id;
use crate::sync::raw::{Outcome, RawLock, Released, Waiter};
use crate::sync::word::End;
use crate::sync::word::condition::{ALL, ConditionWord};

#[derive(Default)]
struct Shared {
    lock: RawLock,
    condition: ConditionWord,
    /// Under the lock.
    tokens: AtomicU32,
}

#[derive(Clone)]
struct World {
    family: Family,
    shared: Arc<Shared>,
}

impl World {
    fn new() -> World {
        World { family: Family::new(), shared: Arc::default() }
    }

    fn lock(&self, id: Id) {
        let outcome = self.shared.lock.acquire(&self.family, holder(id), &mut Patient);
        assert!(matches!(outcome, Outcome::Acquired | Outcome::OwnerDied(_)), "{outcome:?}");
    }

    fn unlock(&self, me: Id) {
        assert_eq!(self.shared.lock.release(holder(me)), Released::Done);
    }

    fn tokens(&self) -> u32 {
        self.shared.tokens.load(Ordering::Relaxed)
    }

    /// With the lock held.
    fn wait(&self, me: Id, waiter: impl Waiter) -> Result<(), End> {
        let let_go = || {
            self.unlock(me);
            Ok::<(), ()>(())
        };
        self.shared.condition.wait(&self.family, waiter, || false, let_go, || self.lock(me)).unwrap().1
    }

    /// Waits for a token and takes it.
    fn take(&self, me: Id) {
        self.lock(me);
        while self.tokens() == 0 {
            self.wait(me, Patient).unwrap();
        }
        self.shared.tokens.store(self.tokens() - 1, Ordering::Relaxed);
        self.unlock(me);
    }

    /// Gives tokens and notifies: with the lock held, or after it was released.
    fn give(&self, me: Id, tokens: u32, notified: u32, held: bool) {
        self.lock(me);
        self.shared.tokens.store(self.tokens() + tokens, Ordering::Relaxed);
        if held {
            self.shared.condition.notify(notified);
        }
        self.unlock(me);
        if !held {
            self.shared.condition.notify(notified);
        }
    }
}

/// Two take a token each, and all get theirs.
fn all_get_theirs(gifts: &'static [(u32, u32)], held: bool) {
    check(2, move || {
        let world = World::new();
        let takers = [1, 2].map(|number| {
            let here = world.clone();
            world.family.spawn(number, None, move |me| here.take(me), unseen)
        });
        let giving = |me| gifts.iter().for_each(|&(tokens, notified)| world.give(me, tokens, notified, held));
        world.family.live(0, None, giving, unseen);
        join(takers);
        assert_eq!(world.tokens(), 0);
    });
}

#[test]
fn notifications_of_one_wake_one_each() {
    all_get_theirs(&[(1, 1), (1, 1)], true);
}

#[test]
fn notifications_after_the_lock_was_released_are_not_lost() {
    all_get_theirs(&[(1, 1), (1, 1)], false);
}

#[test]
fn a_notification_of_two_wakes_two() {
    all_get_theirs(&[(2, 2)], true);
}

#[test]
fn a_notification_of_more_than_wait_wakes_all() {
    all_get_theirs(&[(2, 5)], false);
}

#[test]
fn a_notification_of_all_wakes_all() {
    all_get_theirs(&[(2, ALL)], true);
}

#[test]
fn two_may_notify_at_the_same_time() {
    check(2, || {
        let world = World::new();
        let (taker, giver) = (world.clone(), world.clone());
        let taker = world.family.spawn(1, None, move |me| (0..2).for_each(|_| taker.take(me)), unseen);
        let giver = world.family.spawn(2, None, move |me| giver.give(me, 1, ALL, false), unseen);
        world.family.live(0, None, |me| world.give(me, 1, 1, false), unseen);
        join([taker]);
        join([giver]);
    });
}

#[test]
fn an_impatient_waiter_takes_no_notification_away() {
    check(2, || {
        let world = World::new();
        let (hasty, taker) = (world.clone(), world.clone());
        let body = move |me| {
            hasty.lock(me);
            if hasty.tokens() == 0 {
                _ = hasty.wait(me, Impatient::here());
            }
            hasty.unlock(me);
        };
        let hasty = world.family.spawn(1, None, body, unseen);
        let taker = world.family.spawn(2, None, move |me| taker.take(me), unseen);
        world.family.live(0, None, |me| world.give(me, 1, 1, true), unseen);
        join([hasty]);
        join([taker]);
    });
}

#[test]
fn a_waiter_killed_anywhere_before_its_wait_returned_takes_no_notification_with_it() {
    killed_anywhere(1, |steps| {
        let world = World::new();
        let (other, giver) = (world.clone(), world.clone());
        // Each waits once at most, and whoever returns lets the next one go on.
        let wait_once = |world: &World, me, returned: &AtomicBool| {
            world.lock(me);
            if world.tokens() == 0 {
                world.wait(me, Patient).unwrap();
            }
            returned.store(true, Ordering::Relaxed);
            world.unlock(me);
        };
        let body = move |me| {
            wait_once(&other, me, &AtomicBool::new(false));
            other.shared.condition.notify(1);
        };
        let other = world.family.spawn(1, None, body, unseen);
        let giver = world.family.spawn(2, None, move |me| giver.give(me, 1, 1, true), unseen);
        let returned = AtomicBool::new(false);
        let victim = |me| wait_once(&world, me, &returned);
        let killed = world.family.live(0, Some(steps), victim, |_| world.shared.condition.repair());
        if returned.into_inner() {
            world.shared.condition.notify(1);
        }
        join([other]);
        join([giver]);
        killed
    });
}

#[test]
fn a_notifier_killed_anywhere_is_no_matter_for_the_next() {
    killed_anywhere(1, |steps| {
        let world = World::new();
        let takers = [1, 2].map(|number| {
            let here = world.clone();
            world.family.spawn(number, None, move |me| here.take(me), unseen)
        });
        let repair = |_| world.shared.condition.repair();
        let killed = world.family.live(0, Some(steps), |me| world.give(me, 2, 2, true), repair);
        if killed {
            world.family.live(3, None, |me| world.give(me, 2, 2, true), unseen);
        }
        join(takers);
        killed
    });
}
