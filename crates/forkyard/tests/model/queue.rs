//! Models of the ring of a queue: claim, commit, take, release, close, sleep, and a death at each step.

use std::sync::atomic::AtomicU32 as PlainU32;

use loom::sync::Arc;

use crate::channel::bell::Bell;
use crate::channel::ring::{Committed, Counters, Known, Ring, Taken, Words};
use crate::family::{Family, check, killed_anywhere, unseen};
use crate::primitive::{self, AtomicU64, Ordering};
use crate::shm::Id;
use crate::watched::Watched;

const CELLS: u64 = 4;
const PLACES: u32 = 3;

/// The words of a queue for one or two messages, and what lies in its places.
pub(crate) struct Queue {
    pub(crate) counters: Counters,
    cells: [AtomicU64; CELLS as usize],
    places: [AtomicU64; PLACES as usize],
    values: [Watched<u32>; PLACES as usize],
    capacity: u64,
    /// Each message has one.
    most_bytes: Option<u64>,
    starts: [AtomicU64; PLACES as usize],
    positions: [AtomicU64; PLACES as usize],
    known: Known,
    /// Which values were put, and which were got: a bit for each. No steps of the model.
    put: PlainU32,
    got: PlainU32,
}

impl Words for Arc<Queue> {
    fn counters(&self) -> &Counters {
        &self.counters
    }
    fn cell(&self, position: u64) -> &AtomicU64 {
        &self.cells[(position % CELLS) as usize]
    }
    fn cells_log2(&self) -> u32 {
        CELLS.ilog2()
    }
    fn place(&self, number: u32) -> Option<&AtomicU64> {
        self.places.get(number as usize)
    }
    fn places(&self) -> u32 {
        PLACES
    }
    fn capacity(&self) -> u64 {
        self.capacity
    }
    fn most_bytes(&self) -> Option<u64> {
        self.most_bytes
    }
    fn start(&self, number: u32) -> Option<&AtomicU64> {
        self.starts.get(number as usize)
    }
    fn position(&self, number: u32) -> Option<&AtomicU64> {
        self.positions.get(number as usize)
    }
    fn size(&self, _: u32) -> u64 {
        1
    }
    fn known(&self) -> &Known {
        &self.known
    }
    fn prefetch(&self, _: u32) {}
}

impl Queue {
    pub(crate) fn new(capacity: u64, most_bytes: Option<u64>) -> Queue {
        Queue {
            counters: Counters::default(),
            cells: Default::default(),
            places: Default::default(),
            values: Default::default(),
            capacity,
            most_bytes,
            starts: Default::default(),
            positions: Default::default(),
            known: Known::default(),
            put: PlainU32::default(),
            got: PlainU32::default(),
        }
    }
}

#[derive(Clone)]
struct World {
    family: Family,
    ring: Ring<Arc<Queue>>,
}

impl World {
    fn new(capacity: u64) -> World {
        World::counting(capacity, None)
    }

    fn counting(capacity: u64, most_bytes: Option<u64>) -> World {
        let queue = Queue::new(capacity, most_bytes);
        let ring = Ring(Arc::new(queue));
        ring.init();
        World { family: Family::new(), ring }
    }

    /// As the queue does it: true if the message is in it, false if it is full.
    fn try_put(&self, me: Id, value: u32) -> Option<bool> {
        let told = |committed| match committed {
            Committed::Done => Some(true),
            Committed::Full => Some(false),
            Committed::Closed => None,
            Committed::Moved | Committed::Garbled => panic!("garbled"),
        };
        let gap = match self.ring.room() {
            Ok(gap) => gap,
            Err(refused) => return told(refused),
        };
        let Some(spot) = self.ring.claim(gap, me) else { return Some(false) };
        self.ring.0.values[spot.place as usize].change(|_| value);
        let committed = self.ring.commit(spot, gap);
        if committed == Committed::Done {
            self.ring.0.put.fetch_or(1 << value, Ordering::SeqCst);
        } else {
            self.ring.abandon(spot, me);
        }
        told(committed)
    }

    /// Puts a value, sleeping for room. False: it was closed.
    fn put(&self, me: Id, value: u32) -> bool {
        let done = self.wait(&self.ring.0.counters.room, || match self.try_put(me, value) {
            Some(true) => Some(true),
            Some(false) => None,
            None => Some(false),
        });
        if done {
            self.ring.0.counters.items.ring(1);
        }
        done
    }

    /// `None`: it is empty. `Some(None)`: and was closed.
    fn try_get(&self, me: Id) -> Option<Option<u32>> {
        let spot = match self.ring.take(me) {
            Taken::Message(spot) => spot,
            Taken::Empty => return None,
            Taken::Closed => return Some(None),
            Taken::Moved | Taken::Garbled => panic!("garbled"),
        };
        let value = self.ring.0.values[spot.place as usize].get();
        assert!(self.ring.release(spot, me));
        self.note(value);
        self.ring.0.counters.room.ring(1);
        Some(Some(value))
    }

    /// A value was got: once.
    fn note(&self, value: u32) {
        let before = self.ring.0.got.fetch_or(1 << value, Ordering::SeqCst);
        assert_eq!(before & 1 << value, 0, "{value} was got twice");
    }

    /// Gets a value, sleeping for it. `None`: it was closed.
    fn get(&self, me: Id) -> Option<u32> {
        self.wait(&self.ring.0.counters.items, || self.try_get(me))
    }

    fn wait<R>(&self, bell: &Bell, mut attempt: impl FnMut() -> Option<R>) -> R {
        loop {
            if let Some(done) = attempt() {
                return done;
            }
            let seen = bell.announce();
            if let Some(done) = attempt() {
                return done;
            }
            primitive::wait(&[(bell.word().into(), seen)], None);
        }
    }

    fn reap(&self, dead: Id) {
        let _ = self.ring.repair(dead, |_| {}, |_| {});
        self.ring.ring_all();
    }

    fn is_put(&self) -> u32 {
        self.ring.0.put.load(Ordering::SeqCst)
    }

    fn got(&self) -> u32 {
        self.ring.0.got.load(Ordering::SeqCst)
    }
}

#[test]
fn a_full_queue_and_an_empty_one_wake_each_other() {
    check(3, || {
        let world = World::new(1);
        let here = world.clone();
        let producer =
            world.family.spawn(1, None, move |me| assert!(here.put(me, 0) && here.put(me, 1)), unseen);
        world.family.live(
            0,
            None,
            |me| assert_eq!([world.get(me), world.get(me)], [Some(0), Some(1)]),
            unseen,
        );
        assert!(!producer.join().unwrap());
    });
}

/// Of two producers, one is killed anywhere; only one message at a time is light enough.
#[test]
fn there_are_never_more_bytes_than_the_bound_whoever_is_killed() {
    killed_anywhere(1, |steps| {
        let world = World::counting(2, Some(1));
        let here = world.clone();
        let other = world.family.spawn(1, None, move |me| _ = here.try_put(me, 1), unseen);
        let reaper = world.clone();
        let killed =
            world.family.live(0, Some(steps), |me| _ = world.try_put(me, 0), move |dead| reaper.reap(dead));
        assert!(!other.join().unwrap());
        assert!(world.ring.len() <= 1 && world.ring.bytes() == world.ring.len());
        let me = crate::family::id(3);
        // Whatever became of the others, there is room for one.
        while world.try_get(me).is_some() {}
        assert_eq!((world.ring.bytes(), world.try_put(me, 2)), (0, Some(true)));
        assert_eq!((world.ring.bytes(), world.try_put(me, 3)), (1, Some(false)));
        assert_eq!(world.try_get(me), Some(Some(2)));
        killed
    });
}

#[test]
fn two_producers_lose_nothing() {
    check(2, || {
        let world = World::new(2);
        let producers: Vec<_> = [1, 2]
            .into_iter()
            .map(|number| {
                let here = world.clone();
                world.family.spawn(number, None, move |me| assert!(here.put(me, number)), unseen)
            })
            .collect();
        world.family.live(0, None, |me| _ = (world.get(me), world.get(me)), unseen);
        producers.into_iter().for_each(|one| assert!(!one.join().unwrap()));
        assert_eq!(world.got(), 0b110);
    });
}

#[test]
fn two_consumers_share_what_there_is() {
    check(2, || {
        let world = World::new(1);
        let consumers: Vec<_> = [1, 2]
            .into_iter()
            .map(|number| {
                let here = world.clone();
                world.family.spawn(number, None, move |me| assert!(here.get(me).is_some()), unseen)
            })
            .collect();
        world.family.live(0, None, |me| assert!(world.put(me, 0) && world.put(me, 1)), unseen);
        consumers.into_iter().for_each(|one| assert!(!one.join().unwrap()));
        assert_eq!(world.got(), 0b11);
    });
}

#[test]
fn what_was_put_before_the_end_is_got_and_nothing_after_it() {
    check(3, || {
        let world = World::new(1);
        let here = world.clone();
        let producer = world.family.spawn(
            1,
            None,
            move |me| {
                let put = [here.put(me, 0), here.put(me, 1)];
                assert!(put[0] || !put[1]);
            },
            unseen,
        );
        let closer = world.clone();
        let other = world.family.spawn(
            2,
            None,
            move |_| {
                let _ = closer.ring.close();
                closer.ring.ring_all();
            },
            unseen,
        );
        world.family.live(0, None, |me| while world.get(me).is_some() {}, unseen);
        assert!(!producer.join().unwrap() && !other.join().unwrap());
        assert_eq!(world.got(), world.is_put());
    });
}

/// A producer that is killed anywhere; another one; and a consumer that gets what the other put, and what the first one had put.
#[test]
fn a_killed_producer_leaves_its_message_or_nothing() {
    killed_anywhere(2, |steps| {
        let world = World::new(2);
        let here = world.clone();
        let consumer = world.family.spawn(
            1,
            None,
            move |me| {
                while here.get(me) != Some(2) {}
            },
            unseen,
        );
        let reaper = world.clone();
        let killed =
            world.family.live(0, Some(steps), |me| _ = world.put(me, 0), move |dead| reaper.reap(dead));
        world.family.live(2, None, |me| assert!(world.put(me, 2)), unseen);
        assert!(!consumer.join().unwrap());
        assert!(killed || world.got() == 0b101, "{:b}", world.got());
        // No place is lost.
        let me = crate::family::id(3);
        let gap = world.ring.room().unwrap();
        assert!((0..PLACES).all(|_| world.ring.claim(gap, me).is_some()));
        killed
    });
}

/// A consumer that is killed anywhere, and another one that gets the rest.
#[test]
fn what_a_killed_consumer_had_not_got_goes_to_the_next() {
    killed_anywhere(1, |steps| {
        let world = World::new(1);
        let here = world.clone();
        let other = world.family.spawn(1, None, move |me| while here.get(me).is_some() {}, unseen);
        let producer = world.clone();
        let puts = world.family.spawn(
            2,
            None,
            move |me| {
                assert!(producer.put(me, 0) && producer.put(me, 1));
                let _ = producer.ring.close();
                producer.ring.ring_all();
            },
            unseen,
        );
        let reaper = world.clone();
        let killed = world.family.live(0, Some(steps), |me| _ = world.get(me), move |dead| reaper.reap(dead));
        assert!(!puts.join().unwrap() && !other.join().unwrap());
        // The other one may have been told of the end while the killed one had the last message.
        while let Some(Some(_)) = world.try_get(crate::family::id(3)) {}
        assert_eq!(world.got(), 0b11);
        killed
    });
}

/// Of two that sleep for a message one is killed anywhere.
#[test]
fn a_killed_sleeper_takes_no_wake_up_with_it() {
    killed_anywhere(1, |steps| {
        let world = World::new(2);
        let here = world.clone();
        let other = world.family.spawn(1, None, move |me| assert!(here.get(me).is_some()), unseen);
        let producer = world.clone();
        let puts = world.family.spawn(
            2,
            None,
            move |me| assert!(producer.put(me, 0) && producer.put(me, 1)),
            unseen,
        );
        let reaper = world.clone();
        let killed = world.family.live(0, Some(steps), |me| _ = world.get(me), move |dead| reaper.reap(dead));
        assert!(!puts.join().unwrap() && !other.join().unwrap());
        // What the killed one did not get is still there.
        while world.try_get(crate::family::id(3)).is_some() {}
        assert_eq!(world.got(), 0b11);
        killed
    });
}
