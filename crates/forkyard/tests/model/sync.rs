//! The state machines: the very sources.
#![allow(dead_code, reason = "what no model uses")]

#[path = "../../src/sync/raw.rs"]
pub(crate) mod raw;
#[path = "../../src/sync/sleep.rs"]
mod sleep;
#[path = "../../src/sync/word/mod.rs"]
pub(crate) mod word;
