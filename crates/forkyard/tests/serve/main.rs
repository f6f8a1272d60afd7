//! The server, with real processes, sockets and signals. A file per question.

mod basics;
mod doors;
mod kills;
mod limits;
mod orders;
mod status;
mod support;
