//! The operations, and what has to hold when their users are killed.

mod control;
mod data;
mod locks;
mod memory;
mod queues;
mod signals;

use crate::sweep::Case;

/// All of them, by layer.
pub(crate) fn all() -> Vec<Case> {
    [control::CASES, memory::CASES, locks::CASES, signals::CASES, data::CASES, queues::CASES].concat()
}
