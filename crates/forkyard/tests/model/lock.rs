//! Models of the lock word.

use loom::cell::UnsafeCell;
use loom::sync::Arc;

use crate::family::{Family, check, killed_anywhere, unseen};
use crate::primitive;
use crate::shm::Id;
use crate::sync::raw::{Holder, Outcome, RawLock, Released, Waiter};

/// Waits for ever.
struct Patient;

impl Waiter for Patient {}

/// A lock and what it protects: how often it was acquired.
#[derive(Default)]
struct Shared {
    lock: RawLock,
    entered: UnsafeCell<u32>,
}

// SAFETY: the models check that `entered` is used under the lock: loom fails where it is not.
#[allow(unsafe_code)]
unsafe impl Sync for Shared {}
// SAFETY: as above.
#[allow(unsafe_code)]
unsafe impl Send for Shared {}

#[derive(Clone)]
struct World {
    family: Family,
    shared: Arc<Shared>,
}

fn holder(id: Id) -> Holder {
    Holder { id, thread: 1 }
}

impl World {
    fn new() -> World {
        World { family: Family::new(), shared: Arc::new(Shared::default()) }
    }

    fn acquire(&self, me: Id) -> Outcome {
        self.shared.lock.acquire(&self.family, holder(me), &mut Patient)
    }

    /// Acquires the lock, enters, releases it. Tells whether the last owner had died.
    fn once(&self, me: Id) -> bool {
        let outcome = self.acquire(me);
        assert!(matches!(outcome, Outcome::Acquired | Outcome::OwnerDied(_)), "{outcome:?}");
        self.enter();
        assert_eq!(self.shared.lock.release(me), Released::Done);
        outcome != Outcome::Acquired
    }

    #[allow(unsafe_code)]
    fn enter(&self) {
        // SAFETY: loom checks that nobody else has it now.
        self.shared.entered.with_mut(|entered| unsafe { *entered += 1 });
    }

    /// How often the lock was acquired. Afterwards.
    #[allow(unsafe_code)]
    fn entered(&self) -> u32 {
        // SAFETY: loom checks that nobody writes it now.
        self.shared.entered.with(|entered| unsafe { *entered })
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

/// The first participant is killed at any step of acquiring and releasing, and the others go on.
fn survive(preemptions: usize, others: u32, hurried: bool) {
    killed_anywhere(preemptions, move |steps| {
        let world = World::new();
        let others: Vec<_> = (1..=others)
            .map(|number| {
                let here = world.clone();
                let body = move |me| {
                    if hurried {
                        primitive::hurry();
                    }
                    here.once(me);
                };
                world.family.spawn(number, None, body, unseen)
            })
            .collect();
        let killed = world.family.live(0, Some(steps), |me| _ = world.once(me), unseen);
        others.into_iter().for_each(|other| assert!(!other.join().unwrap()));
        killed
    });
}

#[test]
fn one_goes_on_wherever_the_other_is_killed() {
    survive(3, 1, false);
}

#[test]
fn two_go_on_wherever_a_third_is_killed() {
    survive(2, 2, false);
}

#[test]
fn starving_ones_go_on_wherever_another_is_killed() {
    survive(2, 2, true);
}

#[test]
fn three_go_on_wherever_a_fourth_is_killed() {
    survive(1, 3, false);
}
