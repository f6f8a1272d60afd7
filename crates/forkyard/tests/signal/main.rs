//! Signals. Every test that touches what belongs to the whole process runs in a process of its own (`alone`).
#![allow(
    unsafe_code,
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test fails by a panic; each unsafe block has its own reason"
)]

mod alone;
mod fork;
mod handle;
mod pause;
mod send;
mod timer;
mod wait;
