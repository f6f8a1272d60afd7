//! Signals. Every test that touches what belongs to the whole process runs in a process of its own (`alone`).
#![allow(unsafe_code, clippy::unwrap_used, clippy::panic)]

mod alone;
mod fork;
mod handle;
mod pause;
mod send;
mod timer;
mod wait;
