//! The segments of a queue without a bound, in shared memory: each but the first is an object of its own.
//!
//! A segment is held by every participant that uses it, and by the chain that it is linked in. Its maker notes whose it is before it is in the
//! chain's hands, and behind which one it is to be linked.
//!
//! Killed here: a segment whose maker died before it was linked is let go of by the reaper.
//!
//! # Safety
//! A [`Link`] points to an atomic in a block that it holds, or in the queue's, which is held as long as links of it are used.
#![allow(unsafe_code)]

use std::panic::Location;
use std::ptr::NonNull;
use std::sync::Arc;

use super::chain::{self, Chain, ROOT, Segment, Segments};
use super::layout::{Header, Layout, Numbers, Shape};
use super::ring::{Counters, Ring};
use crate::error::Result;
use crate::primitive::{AtomicU64, Ordering};
use crate::shm::{self, Kind, ObjectRef, Payload, Shared};

/// Messages of the segment that lies in the queue itself.
pub(crate) const FEWEST: usize = 16;
/// A segment for more than these is left when it is empty.
pub(crate) const FEW: u64 = 64;
/// Messages of the largest one, and its bytes.
const MANY: u64 = 1024;
const BYTES: u64 = 256 << 10;

/// The start of a segment. All but the counters are written by its maker before it is linked; but `next` once by anybody, and `linked` by
/// whoever goes on from the one before.
#[repr(C, align(64))]
pub(crate) struct SegmentHeader {
    numbers: Numbers,
    next: AtomicU64,
    /// The block of the one that it is to be linked behind: a segment's, or the queue's.
    before: AtomicU64,
    maker: AtomicU64,
    /// 0, or one more than how many messages went through the segments before it: it has been.
    linked: AtomicU64,
    /// A block of this size begins at a multiple of what names count in.
    unused: [AtomicU64; 7],
    counters: Counters,
}

// SAFETY: `repr(C)`, atomics and unused bytes.
unsafe impl Payload for SegmentHeader {
    const KIND: Kind = Kind::Segment;
}
const _: () = assert!(size_of::<SegmentHeader>() == 128 + 3 * 128);

impl SegmentHeader {
    /// How many messages went through the segments before it, when they are gone.
    fn passed(&self) -> u64 {
        self.linked.load(Ordering::SeqCst).saturating_sub(1)
    }

    /// The layout of a segment whose tail that is; `None` if its header is none of ours.
    pub(super) fn layout(&self, tail: (NonNull<u8>, usize)) -> Option<Layout> {
        Layout::told(&self.numbers, &self.counters, tail)
    }
}

/// Blocks of 1 KiB and more begin at multiples of it; so 32 bits are enough for the largest arena.
const UNIT: u64 = 1024;

fn word((offset, generation): (u64, u32)) -> u64 {
    (offset / UNIT) | (u64::from(generation) << 32)
}

/// The object of this name, held.
fn find<T: Payload>(name: u64) -> Option<Shared<T>> {
    Shared::attach((name & u64::from(u32::MAX)) * UNIT, (name >> 32) as u32).ok()
}

/// A segment that this process holds.
#[derive(Debug)]
pub(crate) struct Link {
    name: u64,
    pub(crate) ring: Ring<Layout>,
    /// None: it lies in the queue, which is held as long as this is used.
    shared: Option<Shared<SegmentHeader>>,
    next: NonNull<AtomicU64>,
}

// SAFETY: what it points to is atomic, and held: see the heading.
unsafe impl Send for Link {}
// SAFETY: as above.
unsafe impl Sync for Link {}

impl Link {
    /// How many messages the segment behind it is for, when it is full.
    pub(crate) fn larger(&self) -> u64 {
        let shape = self.ring.0.shape();
        let most = (BYTES / (shape.inline() as u64)).clamp(FEWEST as u64, MANY);
        (shape.capacity() as u64 * 4).min(most)
    }

    fn over(shared: Shared<SegmentHeader>) -> Option<Link> {
        let layout = shared.layout(shared.tail())?;
        let (name, next) = (word(shared.name()), NonNull::from(&shared.next));
        Some(Link { name, ring: Ring(layout), shared: Some(shared), next })
    }
}

impl Segment for Arc<Link> {
    type Words = Layout;

    fn ring(&self) -> &Ring<Layout> {
        &self.ring
    }

    fn name(&self) -> u64 {
        self.name
    }

    fn next(&self) -> &AtomicU64 {
        // SAFETY: in a block that is held: see the heading.
        unsafe { self.next.as_ref() }
    }

    fn note_linked(&self, before: &Arc<Link>) {
        if let Some(shared) = &self.shared {
            let passed = before.shared.as_ref().map_or(0, |shared| shared.passed());
            let noted = passed.wrapping_add(before.ring.seen().1).wrapping_add(1);
            // Also after numbers that somebody scribbled.
            shared.linked.store(noted.max(1), Ordering::SeqCst);
        }
    }

    fn is_linked(&self) -> bool {
        self.shared.as_ref().is_none_or(|shared| shared.linked.load(Ordering::SeqCst) != 0)
    }

    fn let_go(&self) {
        if let Some(shared) = &self.shared {
            shared.let_go();
        }
    }
}

/// Finds the segments of a queue, which is held while this is used.
pub(crate) struct Finder<'a> {
    pub(crate) header: &'a Header,
    /// Its block's name.
    pub(crate) name: (u64, u32),
    /// The ring in the queue itself.
    pub(crate) root: &'a Layout,
}

impl Segments for Finder<'_> {
    type Segment = Arc<Link>;
    type Error = crate::error::Error;

    fn chain(&self) -> &Chain {
        &self.header.chain
    }

    fn find(&self, name: u64) -> Option<Arc<Link>> {
        if name == ROOT {
            let next = NonNull::from(&self.header.chain.next);
            return Some(Arc::new(Link { name, ring: Ring(self.root.clone()), shared: None, next }));
        }
        let link = Link::over(find(name)?)?;
        // A place of another size is another queue's.
        (link.ring.0.shape().inline() == self.root.shape().inline()).then(|| Arc::new(link))
    }

    fn make(&self, before: &Arc<Link>, count: u64) -> Result<Arc<Link>> {
        let me = shm::me()?.id;
        let refused = || super::core::garbled();
        let count = usize::try_from(count).map_err(|_| refused())?;
        let shape = Shape::new(count, self.root.shape().inline()).ok_or_else(refused)?;
        let tail = shape.tail().ok_or_else(refused)?;
        let shared = Shared::new(tail, Location::caller(), |header: &SegmentHeader, tail| {
            Layout::make(shape, &header.numbers, &header.counters, tail);
            let block = if before.name == ROOT { word(self.name) } else { before.name };
            header.before.store(block, Ordering::Relaxed);
            header.maker.store(me.bits().into(), Ordering::Relaxed);
        })?;
        shared.keep();
        Link::over(shared).map(Arc::new).ok_or_else(refused)
    }
}

/// The ring of this segment, the name of the one behind it, and how many messages went through those before it: for whoever looks and holds
/// nothing.
pub(super) fn look(name: u64) -> Option<(Ring<Layout>, u64, u64)> {
    let object = shm::object_at((name & u64::from(u32::MAX)) * UNIT)?;
    let (header, tail) = object.get::<SegmentHeader, AtomicU64>()?;
    let layout = header.layout((NonNull::from(tail).cast(), size_of_val(tail)))?;
    let is_it = object.name().is_some_and(|own| word(own) == name);
    is_it.then(|| (Ring(layout), header.next.load(Ordering::SeqCst), header.passed()))
}

/// Lets go of a segment that a dead participant has made, and never linked.
pub(super) fn repair(object: ObjectRef, dead: shm::Id) {
    let Some((header, _)) = object.get::<SegmentHeader, AtomicU64>() else { return };
    if header.maker.load(Ordering::SeqCst) != u64::from(dead.bits()) {
        return;
    }
    let Some(shared) = object.name().and_then(|name| find::<SegmentHeader>(word(name))) else { return };
    let before = shared.before.load(Ordering::SeqCst);
    let next = find::<SegmentHeader>(before)
        .map(|before| before.next.load(Ordering::SeqCst))
        .or_else(|| Some(find::<Header>(before)?.chain.next.load(Ordering::SeqCst)));
    if let Some(link) = Link::over(shared) {
        chain::disown(&Arc::new(link), next);
    }
}
