//! Models of permits with holders.

use loom::sync::Arc;

use crate::family::{Family, Impatient, Patient, check, holder, join, killed_anywhere, unseen};
use crate::primitive::{AtomicU32, AtomicU64, Ordering};
use crate::shm::{Id, Lives};
use crate::sync::word::permits::{Over, Permits, PermitsWord};

#[derive(Clone)]
struct World {
    family: Family,
    word: Arc<PermitsWord>,
    cells: Arc<[AtomicU64; 2]>,
    count: usize,
}

impl World {
    /// So many cells, and so many permits.
    fn new(count: usize, permits: usize) -> World {
        let world = World { family: Family::new(), word: Arc::default(), cells: Arc::default(), count };
        world.with(|all| all.init(permits));
        world
    }

    fn with<T>(&self, body: impl FnOnce(&Permits<'_>) -> T) -> T {
        let hint = AtomicU32::new(0);
        body(&Permits { word: &self.word, cells: &self.cells[..self.count], hint: &hint })
    }

    fn acquire(&self, id: Id) {
        self.with(|all| all.acquire(&self.family, holder(id), &mut Patient)).unwrap();
    }

    fn release(&self, id: Id) -> Result<(), Over> {
        self.with(|all| all.release(&self.family, id))
    }

    fn once(&self, id: Id) {
        self.acquire(id);
        self.release(id).unwrap();
    }

    fn value(&self) -> u32 {
        self.with(|all| all.value(&self.family))
    }
}

#[test]
fn each_permit_is_taken_once_and_comes_back() {
    for permits in [1, 2] {
        check(2, move || {
            let world = World::new(permits, permits);
            let others = [1, 2].map(|number| {
                let here = world.clone();
                world.family.spawn(number, None, move |me| here.once(me), unseen)
            });
            world.family.live(0, None, |me| world.once(me), unseen);
            join(others);
            assert_eq!(world.value(), permits as u32);
            assert_eq!(world.release(crate::family::id(0)), Err(Over));
        });
    }
}

#[test]
fn one_goes_on_wherever_the_other_is_killed_and_nobody_reaps_it() {
    killed_anywhere(3, |steps| {
        let world = World::new(1, 1);
        let here = world.clone();
        let other = world.family.spawn(1, None, move |me| here.once(me), unseen);
        let killed = world.family.live(0, Some(steps), |me| world.once(me), unseen);
        join([other]);
        assert_eq!(world.value(), 1);
        killed
    });
}

#[test]
fn two_go_on_wherever_a_third_is_killed() {
    killed_anywhere(1, |steps| {
        let world = World::new(1, 1);
        let others = [1, 2].map(|number| {
            let here = world.clone();
            world.family.spawn(number, None, move |me| here.once(me), unseen)
        });
        let reap = |dead| world.with(|all| all.repair(dead));
        let killed = world.family.live(0, Some(steps), |me| world.once(me), reap);
        join(others);
        assert_eq!(world.value(), 1);
        killed
    });
}

#[test]
fn a_permit_given_back_by_another_that_is_killed_anywhere_is_free_or_not() {
    killed_anywhere(3, |steps| {
        let world = World::new(1, 1);
        let owner = crate::family::id(2);
        world.acquire(owner);
        let here = world.clone();
        let waiter = world.family.spawn(1, None, move |me| here.once(me), unseen);
        let reap = |dead| world.with(|all| all.repair(dead));
        let killed = world.family.live(0, Some(steps), |me| world.release(me).unwrap(), reap);
        if Id::of_word(world.cells[0].load(Ordering::SeqCst) as u32) == Some(owner) {
            assert!(killed);
            world.release(owner).unwrap();
        }
        join([waiter]);
        assert_eq!(world.value(), 1);
        killed
    });
}

#[test]
fn an_impatient_waiter_takes_no_wake_up_away() {
    check(3, || {
        let world = World::new(1, 1);
        let (hasty, patient) = (world.clone(), world.clone());
        let body = move |id| {
            let me = holder(id);
            if hasty.with(|all| all.acquire(&hasty.family, me, &mut Impatient::here())).is_ok() {
                hasty.release(id).unwrap();
            }
        };
        let hasty = world.family.spawn(1, None, body, unseen);
        let patient = world.family.spawn(2, None, move |me| patient.once(me), unseen);
        world.family.live(0, None, |me| world.once(me), unseen);
        join([hasty]);
        join([patient]);
    });
}

#[test]
fn a_release_makes_a_permit_where_there_is_room() {
    check(3, || {
        let world = World::new(2, 0);
        let here = world.clone();
        let waiter = world.family.spawn(1, None, move |me| here.acquire(me), unseen);
        world.family.live(0, None, |me| world.release(me).unwrap(), unseen);
        join([waiter]);
        assert_eq!(world.value(), 0);
        assert!(!world.family.is_dead(crate::family::id(1)));
    });
}
