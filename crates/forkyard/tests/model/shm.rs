//! What the state machines use of `shm`: the very source.

#[path = "../../src/shm/life.rs"]
#[allow(dead_code, reason = "what no model uses")]
mod life;

pub(crate) use life::{Id, Life, Lives, OWNER_DIED, watch};
