//! Processes as Python starts them: children by their pidfds, and the copies that a zygote makes of itself.

mod child;
mod cradle;
mod keeper;

pub(crate) use child::Child;
pub(crate) use cradle::{Cradle, populate};
pub(crate) use keeper::{after_fork_in_child, after_fork_in_parent, before_fork};
