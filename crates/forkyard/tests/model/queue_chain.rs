//! Models of a queue without a bound: growing, going on, letting go of segments that are over, and a death at each step.

use loom::sync::Arc;

use crate::channel::bell::Bell;
use crate::channel::chain::{Chain, Garbled, ROOT, Segment, Segments, Walker, disown};
use crate::channel::ring::{Committed, Ring, Taken};
use crate::family::{Family, check, killed_anywhere, unseen};
use crate::primitive::{self, AtomicU32, AtomicU64, Ordering};
use crate::queue::Queue;
use crate::shm::Id;

/// As many segments may be made, and one more is there at first; each is for one message.
const MADE: usize = 3;
/// The chain's hand on a segment.
const CHAIN: u64 = 1 << 32;
/// No message.
const NOTHING: u32 = u32::MAX;

/// A segment, and who holds it: how often, a byte for each participant.
struct Slot {
    ring: Ring<Arc<Queue>>,
    holders: AtomicU64,
    next: AtomicU64,
    linked: AtomicU32,
    /// Written by the maker, before anybody else knows it.
    before: AtomicU64,
    maker: AtomicU32,
    /// What lies in the place; no step of the model.
    values: [std::sync::atomic::AtomicU32; 3],
}

impl Slot {
    fn new() -> Slot {
        let ring = Ring(Arc::new(Queue::new(1, None)));
        ring.init();
        Slot {
            ring,
            holders: AtomicU64::default(),
            next: AtomicU64::default(),
            linked: AtomicU32::default(),
            before: AtomicU64::default(),
            maker: AtomicU32::default(),
            values: Default::default(),
        }
    }

    /// Changes the holders, unless nobody holds it any more.
    fn change(&self, change: impl Fn(u64) -> u64) -> bool {
        let mut seen = self.holders.load(Ordering::SeqCst);
        while seen != 0 {
            match self.holders.compare_exchange(seen, change(seen), Ordering::SeqCst, Ordering::SeqCst) {
                Ok(_) => return true,
                Err(now) => seen = now,
            }
        }
        false
    }
}

/// A queue, as one participant uses it.
#[derive(Clone)]
struct World {
    family: Family,
    chain: Arc<Chain>,
    slots: Arc<Vec<Slot>>,
    me: u32,
}

/// A segment that its participant holds.
struct Link {
    world: World,
    name: u64,
}

impl Link {
    fn slot(&self) -> &Slot {
        &self.world.slots[self.name as usize - 1]
    }

    fn one(&self) -> u64 {
        1 << (8 * self.world.me)
    }
}

impl Clone for Link {
    fn clone(&self) -> Link {
        assert!(self.slot().change(|holders| holders + self.one()), "it is gone while it is held");
        Link { world: self.world.clone(), name: self.name }
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        // The killed do nothing any more.
        if !primitive::is_killed() {
            self.slot().change(|holders| holders - self.one());
        }
    }
}

impl Segment for Link {
    type Words = Arc<Queue>;
    fn ring(&self) -> &Ring<Arc<Queue>> {
        &self.slot().ring
    }
    fn name(&self) -> u64 {
        self.name
    }
    fn next(&self) -> &AtomicU64 {
        &self.slot().next
    }
    fn note_linked(&self, _: &Link) {
        self.slot().linked.store(1, Ordering::SeqCst);
    }
    fn is_linked(&self) -> bool {
        self.name == ROOT || self.slot().linked.load(Ordering::SeqCst) != 0
    }
    fn let_go(&self) {
        self.slot().change(|holders| holders & !CHAIN);
    }
}

impl Segments for World {
    type Segment = Link;
    type Error = ();
    fn chain(&self) -> &Chain {
        &self.chain
    }
    fn find(&self, name: u64) -> Option<Link> {
        let slot = self.slots.get((name as usize).checked_sub(1)?)?;
        let held = slot.change(|holders| holders + (1 << (8 * self.me)));
        held.then(|| Link { world: self.clone(), name })
    }
    fn make(&self, before: &Link, _: u64) -> Result<Link, ()> {
        let (slot, name) = (1..=MADE)
            .map(|index| (&self.slots[index], index as u64 + 1))
            .find(|(slot, _)| {
                let mine = slot.maker.compare_exchange(0, self.me + 1, Ordering::SeqCst, Ordering::SeqCst);
                mine.is_ok()
            })
            .ok_or(())?;
        slot.before.store(before.name, Ordering::SeqCst);
        slot.holders.store(1 << (8 * self.me), Ordering::SeqCst);
        assert!(slot.change(|holders| holders | CHAIN));
        Ok(Link { world: self.clone(), name })
    }
}

impl World {
    fn new() -> World {
        let chain = Arc::new(Chain::default());
        chain.begin();
        let slots: Vec<Slot> = (0..=MADE).map(|_| Slot::new()).collect();
        slots[0].holders.store(CHAIN, Ordering::SeqCst);
        World { family: Family::new(), chain, slots: Arc::new(slots), me: 3 }
    }

    /// As participant `number`.
    fn of(&self, number: u32) -> World {
        World { me: number, ..self.clone() }
    }

    fn walker(&self) -> Walker<World> {
        Walker(self.clone())
    }

    fn items(&self) -> &Bell {
        &self.slots[0].ring.0.counters.items
    }

    /// As the queue does it. False: it was closed.
    fn put(&self, me: Id, value: u32) -> bool {
        let walker = self.walker();
        let mut at = walker.last().unwrap();
        loop {
            match self.put_in(&at, me, value) {
                Committed::Done => break,
                Committed::Full => walker.grow(&at, 1).unwrap(),
                Committed::Moved => at = walker.behind(&at).unwrap(),
                Committed::Closed => return false,
                Committed::Garbled => panic!("garbled"),
            }
        }
        self.chain.note_last(at.name);
        self.items().ring(1);
        true
    }

    fn put_in(&self, at: &Link, me: Id, value: u32) -> Committed {
        let gap = match at.ring().room() {
            Ok(gap) => gap,
            Err(refused) => return refused,
        };
        let Some(spot) = at.ring().claim(gap, me) else { return Committed::Full };
        at.slot().values[spot.place as usize].store(value, Ordering::SeqCst);
        let committed = at.ring().commit(spot, gap);
        if committed != Committed::Done {
            at.ring().abandon(spot, me);
        }
        committed
    }

    /// `None`: it is empty. `Some(NOTHING)`: and was closed.
    fn try_get(&self, me: Id) -> Option<u32> {
        let walker = self.walker();
        let (at, spot) = match walker.take_aside(me) {
            Some(aside) => aside,
            None => {
                let mut at = walker.first().unwrap();
                match walker.take(&mut at, me) {
                    Taken::Message(spot) => (at, spot),
                    Taken::Closed => return Some(NOTHING),
                    Taken::Empty => return None,
                    Taken::Moved | Taken::Garbled => panic!("garbled"),
                }
            }
        };
        let value = at.slot().values[spot.place as usize].load(Ordering::SeqCst);
        assert!(at.ring().release(spot, me));
        walker.retire();
        Some(value)
    }

    fn get(&self, me: Id) -> u32 {
        loop {
            if let Some(value) = self.try_get(me) {
                return value;
            }
            let seen = self.items().announce();
            if let Some(value) = self.try_get(me) {
                return value;
            }
            primitive::wait(&[(self.items().word().into(), seen)], None);
        }
    }

    /// As the reaper does it.
    fn reap(&self, dead: Id) {
        self.walker().repair(|segment| segment.ring().repair(dead, |_| {}, |_| {}));
        self.items().ring_all();
        for (index, slot) in (0..).zip(self.slots.iter()) {
            if slot.maker.load(Ordering::SeqCst) == dead.slot() + 1
                && let Some(segment) = self.find(index + 1)
            {
                let before = slot.before.load(Ordering::SeqCst);
                let next = self.find(before).map(|before| before.next().load(Ordering::SeqCst));
                disown(&segment, next);
            }
        }
        for slot in self.slots.iter() {
            slot.change(|holders| holders & !(255 << (8 * dead.slot())));
        }
    }

    /// The chain holds what is linked and not over, and nobody holds anything else.
    fn nothing_left(&self) {
        self.walker().retire();
        let there: Vec<u64> = self.walker().all().unwrap().iter().map(|segment| segment.name).collect();
        for (name, slot) in (1..).zip(self.slots.iter()) {
            let expected = if there.contains(&name) { CHAIN } else { 0 };
            assert_eq!(slot.holders.load(Ordering::SeqCst), expected, "segment {name}, there are {there:?}");
        }
    }
}

#[test]
fn a_queue_that_grows_under_its_consumer_keeps_the_order() {
    check(2, || {
        let world = World::new();
        let here = world.of(1);
        let producer =
            world.family.spawn(1, None, move |me| assert!(here.put(me, 0) && here.put(me, 1)), unseen);
        let here = world.of(0);
        world.family.live(0, None, |me| assert_eq!([here.get(me), here.get(me)], [0, 1]), unseen);
        assert!(!producer.join().unwrap());
        world.nothing_left();
    });
}

#[test]
fn two_that_grow_it_at_once_go_on_in_one_segment() {
    check(2, || {
        let world = World::new();
        let me = crate::family::id(3);
        assert!(world.put(me, 0));
        let here = world.of(1);
        let other = world.family.spawn(1, None, move |me| assert!(here.put(me, 1)), unseen);
        let here = world.of(0);
        world.family.live(0, None, |me| assert!(here.put(me, 2)), unseen);
        assert!(!other.join().unwrap());
        let got = [world.get(me), world.get(me), world.get(me)];
        assert!(got == [0, 1, 2] || got == [0, 2, 1], "{got:?}");
        world.nothing_left();
    });
}

#[test]
fn a_queue_ends_or_grows_and_loses_nothing() {
    check(2, || {
        let world = World::new();
        let me = crate::family::id(3);
        assert!(world.put(me, 0));
        let here = world.of(1);
        let put = std::sync::Arc::new(std::sync::atomic::AtomicBool::new(false));
        let done = std::sync::Arc::clone(&put);
        let other =
            world.family.spawn(1, None, move |me| done.store(here.put(me, 1), Ordering::SeqCst), unseen);
        let here = world.of(0);
        world.family.live(
            0,
            None,
            |_| {
                let mut at = here.walker().first();
                while let Ok(segment) = at {
                    match segment.ring().close() {
                        Committed::Moved => at = here.walker().behind(&segment),
                        Committed::Done => return,
                        told => panic!("{told:?}"),
                    }
                }
                panic!("{Garbled:?}");
            },
            unseen,
        );
        assert!(!other.join().unwrap());
        assert_eq!(world.get(me), 0);
        let expected = if put.load(Ordering::SeqCst) { 1 } else { NOTHING };
        assert_eq!((world.get(me), world.put(me, 2)), (expected, false));
    });
}

/// A producer is killed anywhere while it grows the queue, and another one puts beside it.
#[test]
fn a_producer_killed_while_it_grows_leaves_no_segment_behind() {
    killed_anywhere(1, |steps| {
        let world = World::new();
        let me = crate::family::id(3);
        assert!(world.put(me, 0));
        let here = world.of(1);
        let other = world.family.spawn(1, None, move |me| assert!(here.put(me, 1)), unseen);
        let (here, reaper) = (world.of(0), world.of(2));
        let killed =
            world.family.live(0, Some(steps), |me| _ = here.put(me, 2), move |dead| reaper.reap(dead));
        assert!(!other.join().unwrap());
        let mut got: Vec<u32> = std::iter::from_fn(|| world.try_get(me)).collect();
        assert_eq!(got.remove(0), 0);
        got.sort_unstable();
        assert!(got == [1, 2] || killed && got == [1], "{got:?}");
        world.nothing_left();
        killed
    });
}

/// A consumer is killed anywhere while it leaves a segment, and another one gets beside it.
#[test]
fn a_consumer_killed_while_it_goes_on_takes_nothing_with_it() {
    killed_anywhere(1, |steps| {
        let world = World::new();
        let me = crate::family::id(3);
        assert!(world.put(me, 0) && world.put(me, 1) && world.put(me, 2));
        let here = world.of(1);
        let others = std::sync::Arc::new(std::sync::atomic::AtomicU32::new(NOTHING));
        let seen = std::sync::Arc::clone(&others);
        let other = world.family.spawn(
            1,
            None,
            move |me| seen.store(here.try_get(me).unwrap_or(NOTHING), Ordering::SeqCst),
            unseen,
        );
        let (here, reaper) = (world.of(0), world.of(2));
        let mut own = Vec::new();
        let killed = world.family.live(
            0,
            Some(steps),
            |me| own.extend(std::iter::from_fn(|| here.try_get(me)).take(2)),
            move |dead| reaper.reap(dead),
        );
        assert!(!other.join().unwrap());
        let mut got: Vec<u32> = std::iter::from_fn(|| world.try_get(me)).collect();
        got.extend(own);
        got.push(others.load(Ordering::SeqCst));
        got.retain(|value| *value != NOTHING);
        got.sort_unstable();
        // What the killed one had released it may not have told.
        assert!(got == [0, 1, 2] || killed && got.len() == 2, "{got:?}");
        world.nothing_left();
        killed
    });
}
