//! What an object says of itself, to people: who has it, and its numbers.

use crate::shm::{Id, ObjectRef};

/// Somebody who holds an object.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Owner {
    pub(crate) id: Id,
    /// 0: not known.
    pub(crate) thread: u32,
    /// `lock`, `read`, `write` or `permit`.
    pub(crate) how: &'static str,
}

/// What an object says.
#[derive(Clone, Debug, Default)]
pub(crate) struct Description {
    pub(crate) owners: Vec<Owner>,
    pub(crate) facts: Vec<(&'static str, u64)>,
}

/// What this object says.
pub(crate) fn describe(object: ObjectRef) -> Description {
    let _ = object;
    Description::default()
}
