//! Forkyard side by side with what people use today.
//!
//! One run measures both sides in alternating rounds, so that a machine that speeds up or slows down does so
//! for both; a figure is the median of the rounds with its extremes. Nothing here passes or fails by time.

pub mod flood;
pub mod kept;
pub mod locks;
pub mod options;
pub mod procfs;
pub mod queues;
pub mod rounds;
pub mod serve;
pub mod server;
pub mod start;
pub mod table;
