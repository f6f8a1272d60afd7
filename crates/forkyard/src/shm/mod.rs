//! Memory that processes share.

mod life;
mod safe;
mod table;

pub(crate) use life::{Id, Life, Lives, watch};
pub(crate) use safe::ShmSafe;
pub(crate) use table::Table;
