//! Objects that are a lock with one owner, or have one: what the reaper, the search for deadlocks and people look at in all of them alike.

use std::sync::atomic::AtomicU8;

use super::base::Base;
use super::{array, lock, mutex, once, rlock, value};
use crate::shm::{Kind, ObjectRef, Payload};

/// A payload with such a lock.
pub(super) trait HasLock: Payload {
    fn base(&self) -> &Base;
}

/// The lock of this object, if it has one.
pub(super) fn lock_of(object: ObjectRef) -> Option<&'static Base> {
    match object.kind()? {
        Kind::Mutex => of::<mutex::State>(object),
        Kind::Lock => of::<lock::State>(object),
        Kind::RLock => of::<rlock::State>(object),
        Kind::Once => of::<once::State>(object),
        Kind::Value => of::<value::State>(object),
        Kind::Array => of::<array::State>(object),
        _ => None,
    }
}

fn of<S: HasLock>(object: ObjectRef) -> Option<&'static Base> {
    object.get::<S, AtomicU8>().map(|(state, _)| state.base())
}
