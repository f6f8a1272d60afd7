//! `forkyard connect`: a client to try a server with, on a terminal or in a pipe.

mod editing;
mod interactive;
mod pipe;
mod screen;
mod stream;

use std::io::{self, IsTerminal as _};
use std::time::Instant;

use crate::address::Peer;
use crate::flags::Connect;
use crate::{exit, log};
use stream::Stream;

pub(crate) fn run(options: &Connect) -> u8 {
    let deadline = options.connect_timeout.and_then(|time| Instant::now().checked_add(time));
    let stream = match Stream::connect(&options.to, deadline) {
        Ok(stream) => stream,
        Err(error) => {
            log::error(format_args!("cannot connect to {}: {}", options.to, why(&error, &options.to)));
            let own_deadline = error.kind() == io::ErrorKind::TimedOut && deadline.is_some();
            return if own_deadline { exit::TIMED_OUT } else { exit::NOT_STARTED };
        }
    };
    if io::stdin().is_terminal() && io::stdout().is_terminal() && can_edit() {
        log::info(format_args!("connected to {}; Ctrl-D ends", options.to));
        interactive::run(&stream, options)
    } else {
        pipe::run(&stream)
    }
}

/// Whether the terminal is one that the line editor can draw on; on others lines come from the kernel's own editor.
fn can_edit() -> bool {
    let kind = std::env::var("TERM").unwrap_or_default();
    !["dumb", "emacs", "cons25"].contains(&kind.as_str())
}

/// What an error of connecting means and what to do about it.
fn why(error: &io::Error, to: &Peer) -> String {
    use io::ErrorKind as Kind;
    match (error.kind(), to) {
        (Kind::ConnectionRefused, Peer::Tcp(_)) => {
            "connection refused; nobody listens there (is the server running, and is the port right?)".into()
        }
        (Kind::ConnectionRefused, Peer::Unix(_)) => {
            "connection refused; the socket is there and its server is not".into()
        }
        (Kind::NotFound, Peer::Unix(_)) => "there is no such socket (is the server running?)".into(),
        (Kind::PermissionDenied, Peer::Unix(_)) => {
            "permission denied; the socket belongs to another user".into()
        }
        (Kind::TimedOut, _) => "timed out; nothing answers there".into(),
        _ => error.to_string(),
    }
}

/// Tells how a connection broke.
fn broke(error: &io::Error) -> u8 {
    match error.kind() {
        io::ErrorKind::ConnectionReset => {
            log::error(format_args!("connection reset by the peer; part of its answer may be missing"));
        }
        _ => log::error(format_args!("cannot read from the connection: {error}")),
    }
    exit::FAILED
}
