//! `forkyard serve`: builds the server, tells where it listens, runs it, and ends the way it was ended.
//!
//! The main thread serves; signals are acted on in a thread of the library's (`control`). Killed here, its
//! children are gone within a second: see the server's own README.

mod control;
mod plan;
mod program;

use std::io::{self, Write as _};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use forkyard::serve::{Address, Event, Handler};

use crate::args::Serving;
use crate::notify::Notify;
use crate::{exit, log, own};

pub(crate) fn run(serving: Serving) -> u8 {
    if let Some(path) = &serving.flags.log
        && let Err(error) = log::to_file(path.clone())
    {
        log::error(format_args!("cannot write the log to {}: {error}", path.display()));
        return exit::NOT_STARTED;
    }
    if let Handler::Program(words) = &serving.handler
        && let Err((code, why)) = program::check(words)
    {
        log::error(format_args!("{why}"));
        return code;
    }
    let server = match plan::server(&serving) {
        Ok(server) => server,
        Err(why) => {
            log::error(format_args!("{why}"));
            return exit::NOT_STARTED;
        }
    };
    let notify = Arc::new(Notify::from_environment());
    let ending = match control::listen(&server.control(), &notify) {
        Ok(ending) => ending,
        Err(error) => {
            log::error(format_args!("failed to {error}"));
            return exit::NOT_STARTED;
        }
    };
    let addresses: Vec<Address> = server.addresses().cloned().collect();
    for address in &addresses {
        log::info(format_args!("listening on {address}"));
    }
    let port = serving.flags.print_port.then(|| server.local_addr().map(|address| address.port())).flatten();
    let ready = Arc::new(AtomicBool::new(false));
    let server = server.on_ready({
        let (ready, notify) = (Arc::clone(&ready), Arc::clone(&notify));
        move || {
            ready.store(true, Ordering::Relaxed);
            if let Some(port) = port {
                print_port(port);
            }
            tell(&notify, Notify::ready);
        }
    });
    let server = server.on_event(move |event| {
        log::info(format_args!("{event}"));
        match event {
            Event::Reloaded { .. } => tell(&notify, Notify::ready),
            Event::Upgrading => {
                tell(&notify, Notify::reloading);
                control::hold_back();
            }
            Event::UpgradeFailed(_) => {
                control::let_through();
                tell(&notify, Notify::ready);
            }
            _ => {}
        }
    });
    match server.run(serving.handler) {
        Ok(_) => match ending.signal() {
            Some(signal) => own::end_by(signal),
            None => exit::OK,
        },
        Err(error) => {
            log::error(format_args!("failed to {error}"));
            if ready.load(Ordering::Relaxed) { exit::TOOL_FAILED } else { exit::NOT_STARTED }
        }
    }
}

/// Prints the port for whoever started the server; if nobody reads it, the server serves all the same.
fn print_port(port: u16) {
    let mut out = io::stdout().lock();
    if let Err(error) = writeln!(out, "{port}").and_then(|()| out.flush()) {
        log::error(format_args!("cannot print the port: {error}"));
    }
}

/// Tells the service manager; that it cannot be told is worth a line and no more.
fn tell(notify: &Notify, what: fn(&Notify) -> io::Result<()>) {
    if let Err(error) = what(notify) {
        log::error(format_args!("cannot tell the service manager: {error}"));
    }
}
