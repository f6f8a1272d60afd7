//! What layers above know of their objects and the reaper does not: how to repair one, and what else goes with it.

use std::sync::OnceLock;

use super::allocate::Found;
use super::kind::Kind;
use super::life::Id;
use super::shared::ObjectRef;

/// A kind's hooks. They may run again, or after one of them was cut off.
#[derive(Clone, Copy)]
pub(crate) struct Hooks {
    /// Brings an object that a dead participant held into a state that a living one could have left.
    pub(crate) repair: fn(ObjectRef, Id),
    /// Frees what belongs to an object that nobody holds any more.
    pub(crate) dispose: fn(ObjectRef),
}

static QUEUE: OnceLock<Hooks> = OnceLock::new();

/// Says what to do with queues: before anything else runs in this process.
pub(crate) fn set_queue_hooks(hooks: Hooks) {
    let _ = QUEUE.set(hooks);
}

/// The hooks of this kind.
pub(crate) fn hooks(kind: Kind) -> Option<Hooks> {
    match kind {
        Kind::Queue | Kind::Segment => QUEUE.get().copied(),
        _ => None,
    }
}

/// The object in this block is about to be freed, by this process.
pub(super) fn dispose(found: Found) {
    if let Some(hooks) = Kind::of_number(found.block.kind()).and_then(hooks) {
        (hooks.dispose)(ObjectRef::of(found));
    }
}
