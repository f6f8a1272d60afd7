//! The `#[task]` attribute of Forkyard.
