//! Cleaning up after whoever used a queue, and what goes with a queue that nobody holds any more.
//!
//! Killed here: all of it may be done again, from the start.

use std::ptr::NonNull;

use super::chain::{Segment, Walker};
use super::layout::{Header, Layout};
use super::ring::{Ring, Words};
use super::segment::{self, Finder, SegmentHeader};
use super::word::{Place, State};
use crate::primitive::{AtomicU64, Ordering};
use crate::shm::{Id, Kind, ObjectRef, Parcel};

/// Repairs a queue, or a segment of one, that a dead participant held.
pub(super) fn repair(object: ObjectRef, dead: Id) {
    if object.kind() == Some(Kind::Segment) {
        return segment::repair(object, dead);
    }
    let Some((header, root)) = queue(object) else { return };
    if header.chain.is_used() {
        let walker = Walker(Finder { header, name: object.name().unwrap_or_default(), root: &root });
        walker.repair(|segment| repair_ring(segment.ring(), dead));
        Ring(root).ring_all();
    } else {
        let ring = Ring(root);
        repair_ring(&ring, dead);
        ring.ring_all();
    }
    header.shelf.repair();
    header.finished.ring_all();
}

fn repair_ring(ring: &Ring<Layout>, dead: Id) -> bool {
    let discard = |number| drop_parcel(&ring.0, number);
    let restore = |number| {
        if let Some((name, _)) = ring.0.parcel(number) {
            Parcel::restore(name, dead);
        }
    };
    ring.repair(dead, discard, restore)
}

pub(super) fn queue(object: ObjectRef) -> Option<(&'static Header, Layout)> {
    let (header, tail) = object.get::<Header, AtomicU64>()?;
    Some((header, Layout::of(header, (NonNull::from(tail).cast(), size_of_val(tail)))?))
}

/// Frees the parcels in a queue or a segment that is being freed, and lets go of a queue's other segments.
pub(super) fn dispose(object: ObjectRef) {
    if let Some((header, tail)) = object.get::<SegmentHeader, AtomicU64>() {
        if let Some(layout) = header.layout((NonNull::from(tail).cast(), size_of_val(tail))) {
            drop_parcels(&layout);
        }
        return;
    }
    let Some((header, root)) = queue(object) else { return };
    if header.chain.is_used() {
        // No segment is made any more, so it needs no name for that.
        Walker(Finder { header, name: (0, 0), root: &root }).clear();
    }
    if let Some(me) = crate::shm::joined() {
        header.shelf.clear(me);
    }
    drop_parcels(&root);
}

fn drop_parcels(layout: &Layout) {
    // What a free place says is of a message that was released, or that its producer took back and put somewhere else.
    let is_taken = |number: &u32| {
        let place = layout.place(*number).map(|word| Place::of_word(word.load(Ordering::SeqCst)));
        !matches!(place, Some(Place { state: State::Free, .. }))
    };
    (0..layout.places()).filter(is_taken).for_each(|number| drop_parcel(layout, number));
}

fn drop_parcel(layout: &Layout, number: u32) {
    if let (Some((name, len)), Some(me)) = (layout.parcel(number), crate::shm::joined()) {
        drop(Parcel::take(name, len, me));
    }
}
