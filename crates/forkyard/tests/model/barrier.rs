//! Models of the barrier.

use loom::sync::Arc;

use crate::family::{Family, Impatient, Patient, check, id, join, killed_anywhere, unseen};
use crate::primitive::{self, AtomicU64, Ordering};
use crate::shm::Id;
use crate::sync::raw::Waiter;
use crate::sync::word::End;
use crate::sync::word::barrier::{Barrier, BarrierWord, Failed};

#[derive(Clone)]
struct World {
    family: Family,
    word: Arc<BarrierWord>,
    cells: Arc<[AtomicU64; 3]>,
    parties: usize,
}

impl World {
    fn new(parties: usize) -> World {
        World { family: Family::new(), word: Arc::default(), cells: Arc::default(), parties }
    }

    fn barrier(&self) -> Barrier<'_> {
        Barrier { word: &self.word, cells: &self.cells[..self.parties] }
    }

    fn wait_as(&self, me: Id, waiter: &mut impl Waiter) -> Result<u32, Failed> {
        self.barrier().wait(&self.family, me, waiter)
    }

    fn wait(&self, me: Id) -> Result<u32, Failed> {
        self.wait_as(me, &mut Patient)
    }

    /// True if this one has ever arrived.
    fn arrived(&self, who: Id) -> bool {
        self.cells.iter().any(|cell| {
            let seen = cell.load(Ordering::SeqCst);
            seen >> 63 == 1 && Id::of_word(seen as u32) == Some(who)
        })
    }
}

/// What each party's wait came to.
type Told = Arc<std::sync::Mutex<Vec<Result<u32, Failed>>>>;

fn tell(told: &Told, result: Result<u32, Failed>) {
    told.lock().unwrap().push(result);
}

fn all_pass(preemptions: usize, parties: usize, generations: u32) {
    check(preemptions, move || {
        let world = World::new(parties);
        let told = Told::default();
        let body =
            move |world: &World, me, told: &Told| (0..generations).for_each(|_| tell(told, world.wait(me)));
        let others: Vec<_> = (1..parties as u32)
            .map(|number| {
                let (here, told) = (world.clone(), Told::clone(&told));
                world.family.spawn(number, None, move |me| body(&here, me, &told), unseen)
            })
            .collect();
        world.family.live(0, None, |me| body(&world, me, &told), unseen);
        join(others);
        let mut indices: Vec<u32> = told.lock().unwrap().iter().map(|result| result.unwrap()).collect();
        indices.sort_unstable();
        let every = (0..parties as u32).flat_map(|index| std::iter::repeat_n(index, generations as usize));
        assert!(indices.iter().copied().eq(every), "{indices:?}");
        assert_eq!(world.barrier().waiting(), 0);
        assert!(!world.barrier().is_broken());
    });
}

#[test]
fn two_parties_pass_generation_after_generation() {
    all_pass(3, 2, 2);
}

#[test]
fn three_parties_pass() {
    all_pass(2, 3, 1);
}

#[test]
fn more_than_are_parties_pass_in_turn() {
    check(1, || {
        let world = World::new(2);
        let told = Told::default();
        let body = || {
            let (here, told) = (world.clone(), Told::clone(&told));
            move |me| tell(&told, here.wait(me))
        };
        let others = [1, 2, 3].map(|number| world.family.spawn(number, None, body(), unseen));
        world.family.live(0, None, body(), unseen);
        join(others);
        let mut indices: Vec<u32> = told.lock().unwrap().iter().map(|result| result.unwrap()).collect();
        indices.sort_unstable();
        assert_eq!(indices, [0, 0, 1, 1]);
    });
}

/// The first party is killed anywhere; nobody reaps it; the others learn the same.
fn one_is_killed(preemptions: usize, parties: usize, reaped: bool) {
    killed_anywhere(preemptions, move |steps| {
        let world = World::new(parties);
        let told = Told::default();
        let others: Vec<_> = (1..parties as u32)
            .map(|number| {
                let (here, told) = (world.clone(), Told::clone(&told));
                world.family.spawn(number, None, move |me| tell(&told, here.wait(me)), unseen)
            })
            .collect();
        let mut arrived = true;
        let reap = |dead| {
            arrived = world.arrived(dead);
            if reaped {
                world.barrier().repair(&world.family, dead);
            }
        };
        let killed = world.family.live(0, Some(steps), |me| _ = world.wait(me), reap);
        if !arrived {
            // Nobody breaks it for one that did not come.
            assert!(!world.barrier().is_broken());
            world.barrier().abort();
        }
        join(others);
        let told = told.lock().unwrap();
        assert!(told.iter().all(|result| result.is_ok() == told[0].is_ok()), "{told:?}");
        assert!(arrived || told.iter().all(|result| *result == Err(Failed::Broken)), "{told:?}");
        assert!(killed || told.iter().all(Result::is_ok), "{told:?}");
        killed
    });
}

#[test]
fn a_party_killed_anywhere_breaks_it_for_the_other_or_has_passed() {
    one_is_killed(3, 2, false);
}

#[test]
fn a_party_killed_anywhere_breaks_it_for_all_others_alike() {
    one_is_killed(1, 3, false);
}

#[test]
fn one_that_helps_and_is_killed_anywhere_leaves_nobody_asleep() {
    killed_anywhere(2, |steps| {
        let world = World::new(2);
        let (here, barrier, last) = (world.clone(), world.barrier(), id(2));
        let twice = move |me| (0..2).for_each(|_| assert!(here.wait(me).is_ok()));
        let sleeper = world.family.spawn(1, None, twice, unseen);
        assert!(world.wait(last).is_ok());
        primitive::until_asleep(1);
        // It is known to the sleeper already, which sleeps on.
        let arrival = barrier.arrive(&world.family, last).unwrap();
        let helps = |me| assert_eq!(barrier.try_wait(&world.family, me), Ok(None));
        let killed = world.family.live(0, Some(steps), helps, unseen);
        assert!(barrier.stay(arrival, &world.family, last, &mut Patient).is_ok());
        join([sleeper]);
        killed
    });
}

#[test]
fn so_it_is_where_the_dead_are_reaped() {
    one_is_killed(2, 2, true);
}

#[test]
fn a_time_out_breaks_it_for_both_or_for_none() {
    check(3, || {
        let world = World::new(2);
        let here = world.clone();
        let told = Told::default();
        let hasty = Told::clone(&told);
        let body = move |me| tell(&hasty, here.wait_as(me, &mut Impatient::here()));
        let other = world.family.spawn(1, None, body, unseen);
        let mut mine = Err(Failed::Broken);
        world.family.live(0, None, |me| mine = world.wait(me), unseen);
        join([other]);
        let theirs = told.lock().unwrap()[0];
        match mine {
            Ok(_) => assert!(theirs.is_ok()),
            Err(failed) => {
                assert_eq!((failed, theirs), (Failed::Broken, Err(Failed::Ended(End::TimedOut))));
            }
        }
    });
}

#[test]
fn a_reset_is_told_to_whoever_waited_and_leaves_a_new_barrier() {
    check(2, || {
        let world = World::new(2);
        let here = world.clone();
        let body = move |me| {
            while here.wait(me).is_err() {
                loom::thread::yield_now();
            }
        };
        let other = world.family.spawn(1, None, body, unseen);
        world.barrier().reset();
        world.family.live(0, None, |me| assert!(world.wait(me).is_ok()), unseen);
        join([other]);
    });
}

#[test]
fn who_looks_late_learns_of_its_own_generation() {
    check(1, || {
        let world = World::new(1);
        let (barrier, me) = (world.barrier(), id(0));
        let broken = barrier.arrive(&world.family, me).unwrap();
        barrier.reset();
        let passed = barrier.arrive(&world.family, me).unwrap();
        assert_eq!(barrier.stay(passed, &world.family, me, &mut Patient), Ok(0));
        for _ in 0..3 {
            assert_eq!(barrier.stay(broken, &world.family, me, &mut Patient), Err(Failed::Broken));
            assert_eq!(barrier.stay(passed, &world.family, me, &mut Patient), Ok(0));
            assert_eq!(world.wait(me), Ok(0));
        }
    });
}
