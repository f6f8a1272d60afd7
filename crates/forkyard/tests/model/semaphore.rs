//! Models of the plain semaphore.

use loom::sync::Arc;

use crate::family::{Family, Impatient, Patient, check, join, killed_anywhere, unseen};
use crate::sync::word::semaphore::{Full, MOST, SemaphoreWord};

#[derive(Clone)]
struct World {
    family: Family,
    semaphore: Arc<SemaphoreWord>,
}

impl World {
    fn new(value: u32) -> World {
        let semaphore = SemaphoreWord::default();
        semaphore.init(value);
        World { family: Family::new(), semaphore: Arc::new(semaphore) }
    }

    fn acquire(&self) {
        self.semaphore.acquire(&self.family, &mut Patient).unwrap();
    }

    fn release(&self, n: u32) {
        self.semaphore.release(n).unwrap();
    }
}

/// Participants 1 to `count`, each with this body.
fn spawn<const N: usize>(
    world: &World,
    body: impl Fn(&World) + Copy + 'static,
) -> [loom::thread::JoinHandle<bool>; N] {
    std::array::from_fn(|index| {
        let here = world.clone();
        world.family.spawn(index as u32 + 1, None, move |_| body(&here), unseen)
    })
}

#[test]
fn each_permit_is_taken_once() {
    for permits in [1, 2] {
        check(2, move || {
            let world = World::new(permits);
            let others: [_; 2] = spawn(&world, |here| {
                here.acquire();
                here.release(1);
            });
            world.acquire();
            world.release(1);
            join(others);
            assert_eq!(world.semaphore.value(), permits);
        });
    }
}

#[test]
fn releases_by_others_wake_as_many() {
    for parts in [&[2][..], &[1, 1], &[3, 1]] {
        check(2, move || {
            let world = World::new(0);
            let others: [_; 2] = spawn(&world, |here| here.acquire());
            parts.iter().for_each(|&n| world.release(n));
            join(others);
            assert_eq!(world.semaphore.value(), parts.iter().sum::<u32>() - 2);
        });
    }
}

#[test]
fn an_impatient_waiter_takes_no_wake_up_away() {
    check(3, || {
        let world = World::new(0);
        let hasty = world.clone();
        let body = move |_| {
            if hasty.semaphore.acquire(&hasty.family, &mut Impatient::here()).is_ok() {
                hasty.release(1);
            }
        };
        let hasty = world.family.spawn(3, None, body, unseen);
        let others: [_; 1] = spawn(&world, |here| here.acquire());
        world.release(1);
        join([hasty]);
        join(others);
    });
}

#[test]
fn a_woken_waiter_killed_anywhere_leaves_its_permit_to_the_others() {
    killed_anywhere(2, |steps| {
        let world = World::new(0);
        let (waiter, releaser, reaped) = (world.clone(), world.clone(), world.clone());
        let body = move |_| {
            waiter.acquire();
            waiter.release(1);
        };
        let waiter = world.family.spawn(1, None, body, unseen);
        let releaser = world.family.spawn(2, None, move |_| releaser.release(1), unseen);
        let killed = world.family.live(0, Some(steps), |_| world.acquire(), |_| reaped.semaphore.repair());
        if !killed {
            world.release(1);
        }
        join([waiter]);
        join([releaser]);
        assert_eq!(world.semaphore.value(), 1);
        killed
    });
}

#[test]
fn a_releaser_killed_anywhere_has_woken_whoever_can_go_on() {
    killed_anywhere(2, |steps| {
        let world = World::new(0);
        let others: [_; 2] = spawn(&world, |here| here.acquire());
        let mut done = false;
        let body = |_| {
            world.release(2);
            done = true;
        };
        let killed = world.family.live(0, Some(steps), body, unseen);
        if !done && world.semaphore.value() == 0 {
            // It released nothing, or everything was taken.
            world.release(2);
        }
        join(others);
        killed
    });
}

#[test]
fn there_is_a_most() {
    check(1, || {
        let world = World::new(MOST - 1);
        assert_eq!(world.semaphore.release(2), Err(Full));
        world.release(1);
        assert_eq!(world.semaphore.release(1), Err(Full));
        assert_eq!(world.semaphore.value(), MOST);
    });
}
