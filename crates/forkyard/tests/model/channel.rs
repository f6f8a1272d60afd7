//! The state machine of queues: the very sources.
#![allow(dead_code, reason = "what no model uses")]

#[path = "../../src/channel/bell.rs"]
pub(crate) mod bell;
#[path = "../../src/channel/chain.rs"]
pub(crate) mod chain;
#[path = "../../src/channel/ring.rs"]
pub(crate) mod ring;
#[path = "../../src/channel/word.rs"]
pub(crate) mod word;
