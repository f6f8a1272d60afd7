//! Models of the reader–writer lock.

use std::cell::Cell;

use loom::sync::Arc;

use crate::family::{Family, Impatient, Patient, check, holder, id, join, killed_anywhere, unseen};
use crate::primitive::{AtomicU32, AtomicU64};
use crate::shm::Id;
use crate::sync::raw::Outcome;
use crate::sync::word::readers::{Readers, ReadersWord};
use crate::watched::Watched;

/// A lock with a few cells, and what it protects: how often it was written.
struct Shared {
    word: ReadersWord,
    cells: Vec<AtomicU64>,
    written: Watched<u32>,
}

#[derive(Clone)]
struct World {
    family: Family,
    shared: Arc<Shared>,
}

/// True if the last writer had died.
fn died(outcome: Outcome) -> bool {
    assert!(matches!(outcome, Outcome::Acquired | Outcome::OwnerDied(_)), "{outcome:?}");
    outcome != Outcome::Acquired
}

impl World {
    fn new(cells: usize) -> World {
        let cells = (0..cells).map(|_| AtomicU64::default()).collect();
        let shared = Shared { word: ReadersWord::default(), cells, written: Watched::new(0) };
        World { family: Family::new(), shared: Arc::new(shared) }
    }

    fn with<R>(&self, act: impl FnOnce(&Readers<'_>) -> R) -> R {
        let hint = AtomicU32::new(0);
        act(&Readers { word: &self.shared.word, cells: &self.shared.cells, hint: &hint })
    }

    fn read(&self, me: Id) -> bool {
        self.with(|lock| {
            let (outcome, entered) = match lock.read_at_once(holder(me)) {
                Some(entered) => (Outcome::Acquired, Some(entered)),
                None => lock.read(&self.family, holder(me), &mut Patient),
            };
            self.shared.written.get();
            lock.unread(entered.unwrap(), holder(me));
            died(outcome)
        })
    }

    fn write(&self, me: Id, writing: &Cell<bool>) -> bool {
        self.with(|lock| {
            let outcome = lock.write(&self.family, holder(me), &mut Patient);
            writing.set(true);
            self.shared.written.change(|written| written + 1);
            writing.set(false);
            lock.unwrite(holder(me));
            died(outcome)
        })
    }
}

/// Who comes in how.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Role {
    Reader,
    Writer,
}
use Role::{Reader, Writer};

fn act(world: &World, role: Role, me: Id) -> bool {
    match role {
        Reader => world.read(me),
        Writer => world.write(me, &Cell::new(false)),
    }
}

fn exclude(preemptions: usize, cells: usize, roles: &'static [Role]) {
    check(preemptions, move || {
        let world = World::new(cells);
        let others: Vec<_> = (1..roles.len())
            .map(|number| {
                let here = world.clone();
                let body = move |me| assert!(!act(&here, roles[number], me));
                world.family.spawn(number as u32, None, body, unseen)
            })
            .collect();
        world.family.live(0, None, |me| assert!(!act(&world, roles[0], me)), unseen);
        join(others);
        // Nobody is left inside.
        world.with(|lock| {
            assert_eq!(lock.try_write(&world.family, holder(id(0))), Outcome::Acquired);
        });
    });
}

#[test]
fn writers_exclude_a_reader_and_each_other() {
    exclude(2, 3, &[Writer, Reader]);
    exclude(2, 3, &[Writer, Writer, Reader]);
}

#[test]
fn readers_exclude_a_writer() {
    exclude(2, 3, &[Reader, Writer, Reader]);
}

#[test]
fn readers_without_a_cell_exclude_a_writer_too() {
    exclude(2, 1, &[Reader, Writer, Reader]);
    exclude(2, 0, &[Reader, Writer, Reader]);
}

/// The first one is killed anywhere; the others go on.
fn survive(preemptions: usize, victim: Role, others: &'static [Role], reaped: bool) {
    killed_anywhere(preemptions, move |steps| {
        let world = World::new(2);
        let others: Vec<_> = (0..others.len())
            .map(|number| {
                let here = world.clone();
                let body = move |me| _ = act(&here, others[number], me);
                world.family.spawn(number as u32 + 1, None, body, unseen)
            })
            .collect();
        let body = |me| _ = act(&world, victim, me);
        let reap = |dead| {
            if reaped {
                world.with(|lock| lock.repair(dead));
            }
        };
        let killed = world.family.live(0, Some(steps), body, reap);
        join(others);
        killed
    });
}

#[test]
fn others_go_on_wherever_a_reader_is_killed() {
    survive(2, Reader, &[Writer], false);
    survive(1, Reader, &[Writer, Reader], false);
    survive(1, Reader, &[Writer, Writer], false);
}

#[test]
fn others_go_on_wherever_a_writer_is_killed() {
    survive(2, Writer, &[Reader], false);
    survive(1, Writer, &[Writer, Reader], false);
    survive(1, Writer, &[Reader, Reader], false);
}

#[test]
fn others_go_on_wherever_one_is_killed_and_reaped() {
    survive(2, Writer, &[Reader], true);
    survive(2, Reader, &[Writer], true);
}

#[test]
fn everybody_is_told_of_a_writers_death_until_a_writer_is() {
    killed_anywhere(1, move |steps| {
        let world = World::new(2);
        let here = world.clone();
        let other = world.family.spawn(1, None, move |me| _ = here.read(me), unseen);
        let writing = Cell::new(false);
        let killed = world.family.live(0, Some(steps), |me| _ = world.write(me, &writing), unseen);
        join([other]);
        // Killed within its writes it had begun to write for certain.
        let told = [world.read(id(2)), world.read(id(2)), world.write(id(3), &Cell::new(false))];
        assert!(!(killed && writing.get()) || told == [true; 3]);
        assert!(told[0] == told[1] && told[1] == told[2]);
        assert!(!world.read(id(2)) && !world.write(id(3), &Cell::new(false)));
        killed
    });
}

#[test]
fn a_writer_that_leaves_lets_the_others_in() {
    check(2, || {
        let world = World::new(2);
        let (reader, leaver) = (world.clone(), world.clone());
        let leave = move |me| {
            let mut waiter = Impatient::here();
            let outcome = leaver.with(|lock| lock.write(&leaver.family, holder(me), &mut waiter));
            if outcome == Outcome::Acquired {
                leaver.with(|lock| lock.unwrite(holder(me)));
            } else {
                assert_eq!(outcome, Outcome::TimedOut);
            }
        };
        let others = [
            world.family.spawn(1, None, move |me| assert!(!reader.read(me)), unseen),
            world.family.spawn(2, None, leave, unseen),
        ];
        world.family.live(0, None, |me| assert!(!world.read(me)), unseen);
        join(others);
    });
}
