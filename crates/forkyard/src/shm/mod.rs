//! Memory that processes share.

mod safe;
mod table;

pub(crate) use safe::ShmSafe;
pub(crate) use table::Table;
