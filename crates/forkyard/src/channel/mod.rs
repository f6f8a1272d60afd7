//! Connections that carry messages between processes.

mod connection;

pub use connection::{Address, AuthKey, Client, Connection, Listener, connect, pipe, pipe_one_way, wait};
