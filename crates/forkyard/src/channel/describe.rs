//! What a queue says of itself, to people: what is in it, and how much has gone through it.
//!
//! It is read without a part in the family, and nothing is written: so all of it is a hint, and may change while it is read.

use super::chain::ROOT;
use super::core::{GET, JOIN, PUT};
use super::layout::Layout;
use super::ring::Ring;
use super::{repair, segment};
use crate::primitive::Ordering;
use crate::shm::ObjectRef;

/// Most messages whose bytes are added up.
const MOST: u64 = 1 << 20;
/// Most segments that are looked at.
const SEGMENTS: usize = 1 << 16;

/// What a thread waits to do at a queue.
pub(crate) fn end_name(end: u8) -> Option<&'static str> {
    match end {
        GET => Some("get"),
        PUT => Some("put"),
        JOIN => Some("join"),
        _ => None,
    }
}

/// The numbers of a queue; none if the object is none.
pub(crate) fn describe(object: ObjectRef) -> Vec<(&'static str, u64)> {
    let Some((header, root)) = repair::queue(object) else { return Vec::new() };
    let most_bytes = root.shape().most_bytes();
    let capacity = root.shape().capacity() as u64;
    let (mut rings, mut name, mut passed) = (Vec::new(), header.chain.first_name(), 0u64);
    let root = Ring(root);
    let is_bounded = !header.chain.is_used();
    if is_bounded {
        rings.push(root);
    } else {
        while name != 0 && rings.len() < SEGMENTS {
            let found = match name {
                ROOT => Some((root.clone(), header.chain.next.load(Ordering::SeqCst), 0)),
                name => segment::look(name),
            };
            let Some((ring, next, before)) = found else { break };
            if rings.is_empty() {
                passed = before;
            }
            rings.push(ring);
            name = next;
        }
    }
    let sum = |of: fn(&Ring<Layout>) -> u64| rings.iter().map(of).fold(0, u64::saturating_add);
    let mut facts = vec![("depth", sum(depth)), ("bytes", sum(bytes)), ("taken", sum(Ring::taken))];
    if is_bounded {
        facts.push(("capacity", capacity));
    } else {
        facts.push(("segments", rings.len() as u64));
    }
    let count = |of: fn(&Ring<Layout>) -> u64| passed.saturating_add(sum(of));
    facts.extend([("put", count(|ring| ring.seen().1)), ("got", count(|ring| ring.seen().0))]);
    facts.extend(most_bytes.map(|most| ("most_bytes", most)));
    facts
}

fn depth(ring: &Ring<Layout>) -> u64 {
    let (head, tail) = ring.seen();
    tail.saturating_sub(head)
}

fn bytes(ring: &Ring<Layout>) -> u64 {
    let (head, tail) = ring.seen();
    (head..tail.min(head.saturating_add(MOST))).filter_map(|position| ring.size_at(position)).sum()
}
