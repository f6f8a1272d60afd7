//! Processes: starting, joining, telling how they ended.
pub mod signal;
