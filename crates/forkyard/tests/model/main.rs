//! The state machines of `sync` and `channel` under a model checker: the very sources, over atomics and futexes of loom's.
//!
//! A model runs in every order of its steps that differs, up to a number of preemptions, and fails where somebody sleeps for
//! ever. A participant may be killed before any of its steps: `killed_anywhere` tries them one by one.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by a panic")]

mod alloc;
mod barrier;
mod channel;
mod condition;
mod event;
mod family;
mod lock;
mod permits;
mod primitive;
mod queue;
mod queue_chain;
mod readers;
mod semaphore;
mod shm;
mod sync;
mod watched;
