//! Models of the event.

use loom::sync::Arc;

use crate::family::{Family, Impatient, Patient, check, join, killed_anywhere, unseen};
use crate::primitive;
use crate::sync::word::End;
use crate::sync::word::event::EventWord;
use crate::watched::Watched;

/// An event, and what was written before it was set.
#[derive(Default)]
struct Shared {
    event: EventWord,
    written: Watched<u32>,
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

    fn wait(&self) {
        self.shared.event.wait(&self.family, &mut Patient).unwrap();
    }

    fn write_and_set(&self) {
        self.shared.written.change(|_| 7);
        self.shared.event.set();
    }

    fn read(&self) -> u32 {
        self.shared.written.get()
    }
}

#[test]
fn a_set_wakes_all_and_they_see_what_was_written_before() {
    check(3, || {
        let world = World::new();
        let waiters = [1, 2].map(|number| {
            let here = world.clone();
            let body = move |_| {
                here.wait();
                assert_eq!(here.read(), 7);
            };
            world.family.spawn(number, None, body, unseen)
        });
        world.write_and_set();
        join(waiters);
    });
}

#[test]
fn a_clear_after_the_set_takes_no_wake_up_away() {
    check(2, || {
        let world = World::new();
        let waiters = [1, 2].map(|number| {
            let here = world.clone();
            world.family.spawn(number, None, move |_| here.wait(), unseen)
        });
        world.shared.event.set();
        world.shared.event.clear();
        world.shared.event.set();
        join(waiters);
    });
}

#[test]
fn who_was_asleep_at_a_set_goes_on_though_it_was_cleared_at_once() {
    check(3, || {
        let world = World::new();
        let here = world.clone();
        let waiter = world.family.spawn(1, None, move |_| here.wait(), unseen);
        primitive::until_asleep(1);
        world.shared.event.set();
        world.shared.event.clear();
        join([waiter]);
    });
}

#[test]
fn two_may_set_while_a_third_clears() {
    check(2, || {
        let world = World::new();
        let (setter, clearer, waiter) = (world.clone(), world.clone(), world.clone());
        let others = [
            world.family.spawn(1, None, move |_| setter.shared.event.set(), unseen),
            world.family.spawn(2, None, move |_| clearer.shared.event.clear(), unseen),
        ];
        let waiter = world.family.spawn(3, None, move |_| waiter.wait(), unseen);
        world.shared.event.set();
        join(others);
        world.shared.event.set();
        join([waiter]);
    });
}

#[test]
fn an_impatient_waiter_leaves_nothing_behind() {
    check(3, || {
        let world = World::new();
        let (hasty, waiter) = (world.clone(), world.clone());
        let body = move |_| match hasty.shared.event.wait(&hasty.family, &mut Impatient::here()) {
            Ok(()) => assert!(hasty.shared.event.is_set()),
            Err(end) => assert_eq!(end, End::TimedOut),
        };
        let hasty = world.family.spawn(1, None, body, unseen);
        let waiter = world.family.spawn(2, None, move |_| waiter.wait(), unseen);
        world.shared.event.set();
        join([hasty]);
        join([waiter]);
    });
}

#[test]
fn a_setter_killed_anywhere_has_woken_everybody_or_done_nothing() {
    killed_anywhere(2, |steps| {
        let world = World::new();
        let waiters = [1, 2].map(|number| {
            let here = world.clone();
            world.family.spawn(number, None, move |_| here.wait(), unseen)
        });
        let killed = world.family.live(0, Some(steps), |_| cleared_and_set(&world), unseen);
        if !world.shared.event.is_set() {
            world.shared.event.set();
        }
        join(waiters);
        killed
    });
}

/// Three sets: that of an event that is not set, of one that is, and of one that was cleared.
fn cleared_and_set(world: &World) {
    world.shared.event.set();
    world.shared.event.set();
    world.shared.event.clear();
    world.shared.event.set();
}

#[test]
fn a_waiter_killed_anywhere_is_no_matter_for_the_others() {
    killed_anywhere(2, |steps| {
        let world = World::new();
        let (waiter, setter) = (world.clone(), world.clone());
        let waiter = world.family.spawn(1, None, move |_| waiter.wait(), unseen);
        let setter = world.family.spawn(2, None, move |_| setter.shared.event.set(), unseen);
        let killed = world.family.live(0, Some(steps), |_| world.wait(), unseen);
        join([waiter]);
        join([setter]);
        killed
    });
}
