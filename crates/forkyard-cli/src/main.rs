//! The `forkyard` command.
fn main() {}
