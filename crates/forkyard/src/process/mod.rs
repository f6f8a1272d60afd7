//! Processes: starting, joining, telling how they ended.
//!
//! A process is started by [`spawn`] or a [`Builder`] from a [`task`](macro@crate::task), or by [`fork`] from a closure. Its
//! handle is a [`Process`]; README.md beside this file tells who does what from start to exit, and what happens when
//! any of them is killed.

mod board;
pub(crate) mod builder;
mod child;
mod command;
mod context;
mod exit;
mod fate;
mod fork;
mod handle;
mod keeper;
mod limit;
mod panic;
pub(crate) mod runtime;
pub mod signal;
mod spares;
pub(crate) mod swarm;
pub(crate) mod task;
pub(crate) mod template;
pub mod thread;
mod unseen;
mod waiting;
mod zygote;

pub use crate::fd::Fd;
pub use builder::{Builder, Start, fork, spawn};
pub use command::{
    Output, Pipeline, PipelineOutput, Popen, PopenMode, Program, Stages, Stdio, exec, popen, popen2, system,
};
pub use context::{Current, Parent, current, parent};
pub use exit::{_exit, at_exit, exit};
pub use forkyard_sys::Pid;
pub use forkyard_sys::wait::{Ending, ExitStatus, Usage};
pub use handle::{Child, Process};
pub use runtime::Exited;
pub use task::{Function, Task};
pub use waiting::{
    children, try_wait, try_waitpid, wait, wait_any, wait_any_deadline, wait_any_timeout, wait_deadline,
    wait_timeout, waitpid, waitpid_deadline, waitpid_timeout,
};
pub(crate) use zygote::FAMILY;

pub use crate::error::Ended;

/// What the macros' output uses.
#[doc(hidden)]
pub mod private {
    pub use super::task::{Answer, Entry, invoke};
}
