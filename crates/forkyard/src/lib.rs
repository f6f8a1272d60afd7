//! Process-based parallelism that survives `kill -9`.
