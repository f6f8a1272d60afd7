//! Cleaning up after the dead: what they held is repaired, what they alone held is freed, and their slot given back.
//!
//! Done by whoever notices a death. Killed here: the next one goes on where this one stopped; every step can be done twice.

use std::sync::atomic::{AtomicU8, AtomicU64};

use super::{barrier, bounded, condition, owned, rwlock, semaphore};
use crate::shm::{self, Id, Kind, ObjectRef, Payload};

/// Cleans up after all participants that have died; true if there was one.
pub(crate) fn reap() -> bool {
    if !shm::any_dead() && !shm::any_fork_over() {
        return false;
    }
    let Ok(me) = shm::me() else { return false };
    let mut any = false;
    while let Some(dead) = shm::claim_dead(me.id).or_else(|| shm::claim_lost_fork(me.id)) {
        shm::for_each_object(|object| {
            if object.is_held_by(dead) {
                repair(object, dead);
            }
        });
        shm::reap_memory(dead, me.id);
        shm::bury(dead, me.id);
        any = true;
    }
    any
}

/// Brings an object into a state that a living process could have left, and has its sleepers look at it.
fn repair(object: ObjectRef, dead: Id) {
    if let Some(lock) = owned::lock_of(object) {
        lock.raw.repair(dead);
    }
    match object.kind() {
        Some(Kind::SharedMemory) => shm::remove_name(object, dead),
        Some(Kind::RwLock) => with_cells(object, |state, cells| rwlock::repair(state, cells, dead)),
        Some(Kind::Semaphore) => with_cells(object, |shared, cells| semaphore::repair(shared, cells, dead)),
        Some(Kind::BoundedSemaphore) => {
            with_cells(object, |shared, cells| bounded::repair(shared, cells, dead))
        }
        Some(Kind::Barrier) => with_cells(object, |shared, cells| barrier::repair(shared, cells, dead)),
        Some(Kind::Condition) => with(object, condition::repair),
        // At an event nothing is owed.
        _ => {}
    }
    if let Some(hooks) = object.kind().and_then(shm::hooks) {
        (hooks.repair)(object, dead);
    }
}

/// Calls `repair` with the object's payload, if it is one.
fn with<T: Payload>(object: ObjectRef, repair: impl FnOnce(&T)) {
    if let Some((payload, _)) = object.get::<T, AtomicU8>() {
        repair(payload);
    }
}

/// The same with the cells behind it.
fn with_cells<T: Payload>(object: ObjectRef, repair: impl FnOnce(&T, &[AtomicU64])) {
    if let Some((payload, cells)) = object.get() {
        repair(payload, cells);
    }
}
