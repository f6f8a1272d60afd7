//! Default and ignored signals.

use forkyard_sys::signal as sys;

pub use forkyard_sys::signal::Disposition;

use super::Signal;
use crate::error::Kind;
use crate::{Error, Result};

/// Gives a signal its default action ([`Signal::default_action`]).
///
/// Closures registered for it stay registered but are not called, until [`handle`](super::handle) is called
/// for the signal again.
///
/// # Errors
/// `SIGKILL`, `SIGSTOP` and the two signals of glibc's cannot be changed.
#[doc(alias = "SIG_DFL")]
pub fn set_default(signal: Signal) -> Result<()> {
    set(signal, false, "set default action of")
}

/// Has a signal ignored, also by the programs that this process execs.
///
/// Closures registered for it stay registered but are not called, until [`handle`](super::handle) is called
/// for the signal again. What it means to ignore `SIGCHLD` is told [above](super#facts-to-know).
///
/// # Errors
/// `SIGKILL`, `SIGSTOP` and the two signals of glibc's cannot be changed.
#[doc(alias = "SIG_IGN")]
pub fn ignore(signal: Signal) -> Result<()> {
    set(signal, true, "ignore")
}

/// What this process does with a signal now.
///
/// # Errors
/// Nothing is known about the two signals of glibc's.
#[doc(alias = "sigaction")]
pub fn disposition(signal: Signal) -> Result<Disposition> {
    sys::disposition(signal).map_err(|errno| Error::os(format!("read disposition of {signal}"), errno))
}

fn set(signal: Signal, ignored: bool, verb: &str) -> Result<()> {
    check_changeable(signal, verb)?;
    sys::set_disposition(signal, ignored).map_err(|errno| Error::os(format!("{verb} {signal}"), errno))
}

pub(super) fn check_changeable(signal: Signal, verb: &str) -> Result<()> {
    let why = match signal {
        Signal::KILL | Signal::STOP => "the kernel lets no process change what it does",
        _ if signal.is_reserved() => "glibc keeps it for itself",
        _ => return Ok(()),
    };
    Err(Error::new(format!("{verb} {signal}"), Kind::Invalid(why.to_owned())))
}
