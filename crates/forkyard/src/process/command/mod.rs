//! Other programs: replace this process by one, run one through the shell, exchange streams with one, chain
//! several.
//!
//! | to | POSIX | Python | here |
//! |---|---|---|---|
//! | become another program | `execvp` | `os.execvp` | [`exec`] |
//! | run a shell command and wait | `system` | `os.system` | [`system`] |
//! | read from it or write to it | `popen` | `os.popen` | [`popen`] |
//! | both | – | `subprocess.Popen` | [`popen2`] |
//! | anything else | `posix_spawn` | `subprocess.Popen(…)` | [`Program`] |
//! | chain several | the shell's `\|` | – | [`Pipeline`] |
//!
//! A program gets descriptors 0, 1 and 2 and those that are named, nothing else: so a pipe ends when the one
//! who should hold its end has closed it, whatever other programs were started meanwhile. Starting one
//! neither copies this process nor cares about its threads.
//!
//! Killed here: if this process is killed, its programs go on, unless they notice that their pipes have
//! ended; [`Program::parent_death_signal`] is the way to have them signalled. A killed program ends the pipes
//! it held, and its status tells the signal.

mod communicate;
mod detach;
mod pipeline;
mod popen;
mod program;
mod start;
mod stdio;

use std::ffi::OsStr;

use forkyard_sys::exec::{Mask, SystemSignals};
use forkyard_sys::wait::ExitStatus;

pub use communicate::Output;
pub(super) use detach::sweep;
pub use pipeline::{Pipeline, PipelineOutput, Stages};
pub use popen::Popen;
pub use program::Program;
pub use stdio::Stdio;

use crate::error::{Error, Result};

/// Replaces this process by another program, with the same pid; returns only if that failed.
///
/// The program is searched for in `PATH`; its arguments do not include its own name. Other threads, exit
/// hooks, buffers and destructors do not come to an end, they are gone. [`Program::exec`] has the options.
///
/// ```no_run
/// let error = forkyard::process::exec("ls", ["-l"]);
/// eprintln!("{error}");
/// ```
#[doc(alias = "execvp")]
#[doc(alias = "execv")]
pub fn exec<Arguments>(program: impl AsRef<OsStr>, arguments: Arguments) -> Error
where
    Arguments: IntoIterator<Item: AsRef<OsStr>>,
{
    Program::new(program).args(arguments).exec()
}

/// Runs a command line by the shell, `sh -c`, and waits for it.
///
/// While it runs, `SIGINT` and `SIGQUIT` are ignored in this process, as POSIX wants: typed at the terminal,
/// they are meant for the command. Whether it was ended by one is in the status. A command that the shell
/// could not find is exit code 127, one that it could not execute 126.
///
/// ```
/// let status = forkyard::process::system("exit 3")?;
/// assert_eq!(status.code(), Some(3));
/// # Ok::<(), forkyard::Error>(())
/// ```
///
/// # Errors
/// The shell could not be started.
pub fn system(command_line: impl AsRef<OsStr>) -> Result<ExitStatus> {
    let signals = SystemSignals::take();
    let as_before = Mask::Set(signals.mask_before());
    let mut shell = Program::shell(command_line).start_with(|plan| _ = plan.signal_mask(as_before))?;
    shell.wait()
}

/// The direction of the pipe of [`popen`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PopenMode {
    /// The caller reads what the command writes: mode `"r"` of popen(3).
    Read,
    /// The caller writes what the command reads: mode `"w"` of popen(3).
    Write,
}

/// Starts a command line by the shell, with one pipe: from its standard output or to its standard input.
///
/// ```
/// use std::io::Read;
/// use forkyard::process::{PopenMode, popen};
///
/// let mut listing = popen("echo one; echo two", PopenMode::Read)?;
/// let mut text = String::new();
/// listing.stdout.take().expect("it was asked for").read_to_string(&mut text)?;
/// assert_eq!(text, "one\ntwo\n");
/// assert!(listing.wait()?.success());
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// # Errors
/// The shell could not be started.
pub fn popen(command_line: impl AsRef<OsStr>, mode: PopenMode) -> Result<Popen> {
    let shell = Program::shell(command_line);
    match mode {
        PopenMode::Read => shell.stdout(Stdio::Pipe).start(),
        PopenMode::Write => shell.stdin(Stdio::Pipe).start(),
    }
}

/// Starts a command line by the shell, with pipes to its standard input and from its standard output.
///
/// A program that is written to and not read from, or the other way round, stops when a pipe is full, and so
/// does whoever waits for it: for more than a pipe holds (64 KiB), use [`Popen::communicate`], which does
/// both at once.
///
/// ```
/// let output = forkyard::process::popen2("tr a-z A-Z")?.communicate("loud")?;
/// assert_eq!(output.stdout, b"LOUD");
/// # Ok::<(), forkyard::Error>(())
/// ```
///
/// # Errors
/// The shell could not be started.
pub fn popen2(command_line: impl AsRef<OsStr>) -> Result<Popen> {
    Program::shell(command_line).stdin(Stdio::Pipe).stdout(Stdio::Pipe).start()
}
