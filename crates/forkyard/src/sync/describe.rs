//! What an object says of itself, to people: who has it, and its numbers.

use std::sync::atomic::AtomicU8;

use super::base::Base;
use super::{barrier, bounded, event, owned, rwlock, semaphore};
use crate::shm::{Id, Kind, ObjectRef};

/// Somebody who holds an object.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Owner {
    pub(crate) id: Id,
    /// 0: not known.
    pub(crate) thread: u32,
    /// `lock`, `read`, `write` or `permit`.
    pub(crate) how: &'static str,
    /// For how many milliseconds at least; `None` where that is not known ([`RawLock::held_for`](super::raw::RawLock::held_for)).
    pub(crate) held_for: Option<u32>,
}

/// What an object says.
#[derive(Clone, Debug, Default)]
pub(crate) struct Description {
    pub(crate) owners: Vec<Owner>,
    pub(crate) facts: Vec<(&'static str, u64)>,
}

/// What this object says.
pub(crate) fn describe(object: ObjectRef) -> Description {
    if let Some(lock) = owned::lock_of(object) {
        return of_lock(lock);
    }
    match object.kind() {
        Some(Kind::RwLock) => object.get().map(|(state, cells)| rwlock::describe(state, cells)),
        Some(Kind::Semaphore) => object.get().map(|(shared, cells)| semaphore::describe(shared, cells)),
        Some(Kind::BoundedSemaphore) => object.get().map(|(shared, cells)| bounded::describe(shared, cells)),
        Some(Kind::Event) => object.get().map(|(shared, _): (_, &[AtomicU8])| event::describe(shared)),
        Some(Kind::Barrier) => object.get().map(|(shared, cells)| barrier::describe(shared, cells)),
        _ => None,
    }
    .unwrap_or_default()
}

fn of_lock(base: &Base) -> Description {
    let thread = base.raw.holder().map_or(0, |holder| holder.thread);
    let owner = base.raw.owner().map(|id| Owner { id, thread, how: "lock", held_for: base.raw.held_for() });
    Description { owners: owner.into_iter().collect(), facts: Vec::new() }
}
