//! Signals: the table, sending, handling, waiting, timers.
//!
//! | to… | use |
//! |---|---|
//! | look one up | [`Signal`], its constants, [`Signal::ALL`] |
//! | send | [`send`] by pidfd, [`send_value`]; [`raise`]; [`send_to_group`]; [`send_to_pid`] where a number is all there is |
//! | act on one | [`handle`] a closure, [`ignore`], [`set_default`] |
//! | hold it back | [`block`], [`unblock`], [`set_mask`]: guards that restore |
//! | wait for one | [`pause`] for a handled one, [`wait`] for a blocked one |
//! | be woken | [`alarm`], [`TimerKind`] |
//!
//! Closures run in a thread of the library's, never in the middle of other code, so they may lock, allocate and
//! print. README.md beside this file tells how a signal gets there.
//!
//! ```no_run
//! use std::time::Duration;
//! use forkyard::signal::{self, Signal};
//!
//! # fn main() -> forkyard::Result<()> {
//! let _registration = signal::handle(Signal::ALRM, |info| println!("{} is here", info.signal()))?;
//! signal::alarm(Duration::from_secs(2));
//! signal::pause()?;
//! # Ok(())
//! # }
//! ```
//!
//! # Facts to know
//! - **`SIGPIPE`.** Rust programs ignore it from their start, so a write to a pipe that nobody reads is an
//!   `EPIPE` error and not a death. [`ignore`]`(Signal::PIPE)` says so where the program is not Rust's.
//! - **`SIGCHLD` ignored** ([`ignore`]`(Signal::CHLD)`): the kernel then reaps every child by itself. A wait still
//!   waits until the child has ended, but finds no status: `ECHILD` from wait(2) and
//!   [`std::process::Child::wait`]. A [`Process`](crate::process::Process) is joined as ever and its result arrives;
//!   its exit status is without resource usage, and unknown below Linux 6.15. (A forked one may be gone before its
//!   parent has a pidfd of it; its start then fails with `ESRCH`.) The default action of `SIGCHLD`,
//!   which is to do nothing, has none of these effects.
//! - **Masks** are per thread, and a new thread or process starts with its creator's. Dispositions are per
//!   process; exec keeps what is ignored and sets what is handled back to default.
//! - **`EINTR`** comes out of no call of this crate.

mod dispatch;
mod disposition;
mod mask;
mod pause;
mod registry;
mod send;
mod timer;
mod wait;

pub(crate) use dispatch::{own_threads, resume_after_fork};

pub use disposition::{Disposition, disposition, ignore, set_default};
pub use forkyard_sys::signal::timer::{TimerKind, TimerState};
pub use forkyard_sys::signal::{
    ChildEvent, DefaultAction, Origin, ParseSignalError, Signal, SignalInfo, SignalSet,
};
pub use mask::{MaskGuard, block, mask, pending, set_mask, unblock};
pub use pause::{pause, pause_deadline, pause_timeout, try_pause};
pub use registry::{Registration, handle, lost};
pub use send::{raise, send, send_to_group, send_to_own_group, send_to_pid, send_value, send_value_to_pid};
pub use timer::{alarm, get_timer, set_timer};
pub use wait::{try_wait, wait, wait_deadline, wait_timeout};
