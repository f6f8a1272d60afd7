//! What the state machines use of `shm`: the very source.

#[path = "../../src/shm/block.rs"]
#[allow(dead_code, reason = "what no model uses")]
mod block;
#[path = "../../src/shm/entry.rs"]
#[allow(dead_code, reason = "what no model uses")]
mod entry;
#[path = "../../src/shm/life.rs"]
#[allow(dead_code, reason = "what no model uses")]
mod life;

pub(crate) use block::{Block, State};
pub(crate) use entry::{Entry, Use};
pub(crate) use life::{Id, Life, Lives, OWNER_DIED, watch};
