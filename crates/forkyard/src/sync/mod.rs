//! Locks and the other means to wait for one another, between processes and between threads. README.md beside this file
//! tells how they survive the death of whoever uses them.

mod describe;
mod raw;
mod reap;
mod sleep;
mod word;

pub(crate) use describe::describe;
pub(crate) use reap::reap;
pub(crate) use sleep::{Slept, sleep};
