//! Writing to a program and reading from it at once, without either side stopping the other.

use std::io::{ErrorKind, PipeReader, PipeWriter, Read, Write};
use std::time::{Duration, Instant};

use forkyard_sys::poll::{PollFd, PollFlags, poll};
use forkyard_sys::wait::ExitStatus;

use super::Popen;
use crate::error::{Error, Kind, Result};
use crate::time::Deadline;

/// What a program wrote, and how it ended.
#[derive(Clone, Debug, PartialEq, Eq)]
#[doc(alias = "CompletedProcess")]
pub struct Output {
    /// How it ended.
    pub status: ExitStatus,
    /// Its standard output, if that was a pipe.
    pub stdout: Vec<u8>,
    /// Its standard error, if that was a pipe.
    pub stderr: Vec<u8>,
}

impl Popen {
    /// Writes the input, reads all outputs to their ends, and waits: any amount each way, whatever the
    /// order in which the program reads and writes. Input that the program does not want is left.
    ///
    /// # Errors
    /// As [`wait`](Popen::wait); input was given and its standard input is no pipe.
    pub fn communicate(self, input: impl AsRef<[u8]>) -> Result<Output> {
        self.communicate_until(input.as_ref(), Deadline::NEVER)
    }

    /// As [`communicate`](Popen::communicate), for at most so long; then the program is killed.
    ///
    /// # Errors
    /// [`is_timeout`](Error::is_timeout); else as `communicate`.
    pub fn communicate_timeout(self, input: impl AsRef<[u8]>, timeout: Duration) -> Result<Output> {
        self.communicate_until(input.as_ref(), Deadline::after(timeout))
    }

    /// As [`communicate`](Popen::communicate), until this moment at most; then the program is killed.
    ///
    /// # Errors
    /// As [`communicate_timeout`](Popen::communicate_timeout).
    pub fn communicate_deadline(self, input: impl AsRef<[u8]>, deadline: Instant) -> Result<Output> {
        self.communicate_until(input.as_ref(), deadline.into())
    }

    fn communicate_until(mut self, input: &[u8], deadline: Deadline) -> Result<Output> {
        let (stdin, outputs) = (self.stdin.take(), vec![self.stdout.take(), self.stderr.take()]);
        let exchanged = exchange(input, stdin, outputs, deadline).and_then(|outputs| {
            let status = self.wait_until(deadline)?;
            let mut outputs = outputs.into_iter();
            let mut next = || outputs.next().unwrap_or_default();
            Ok(Output { status, stdout: next(), stderr: next() })
        });
        if exchanged.is_err() {
            // Dropping the handle sees to the rest.
            let _ended_anyway = self.kill();
        }
        exchanged
    }
}

/// As much as a pipe that polls writable takes without blocking (pipe(7), `PIPE_BUF`).
const CHUNK: usize = 4096;

/// Writes `input` and reads each of `outputs` to its end.
pub(super) fn exchange(
    mut input: &[u8],
    mut stdin: Option<PipeWriter>,
    mut outputs: Vec<Option<PipeReader>>,
    deadline: Deadline,
) -> Result<Vec<Vec<u8>>> {
    if stdin.is_none() && !input.is_empty() {
        let why = "there is input for it, but its standard input is not a pipe";
        return Err(Error::new(WHAT, Kind::Invalid(why.into())));
    }
    let mut collected = vec![Vec::new(); outputs.len()];
    loop {
        if input.is_empty() {
            stdin = None;
        }
        if stdin.is_none() && outputs.iter().all(Option::is_none) {
            return Ok(collected);
        }
        let (writable, readable) = wait_ready(stdin.as_ref(), &outputs, deadline)?;
        if writable {
            write_some(&mut stdin, &mut input)?;
        }
        for (at, _) in readable.into_iter().enumerate().filter(|(_, readable)| *readable) {
            if let (Some(output), Some(collected)) = (outputs.get_mut(at), collected.get_mut(at)) {
                read_some(output, collected)?;
            }
        }
    }
}

const WHAT: &str = "exchange data with a program";

/// Whether the input can be written to, and which outputs can be read from. At least one of them.
fn wait_ready(
    stdin: Option<&PipeWriter>,
    outputs: &[Option<PipeReader>],
    deadline: Deadline,
) -> Result<(bool, Vec<bool>)> {
    let mut fds: Vec<PollFd<'_>> = Vec::with_capacity(outputs.len() + 1);
    fds.extend(stdin.map(|pipe| PollFd::new(pipe, PollFlags::OUT)));
    fds.extend(outputs.iter().flatten().map(|pipe| PollFd::new(pipe, PollFlags::IN)));
    let count = poll(&mut fds, deadline.timeout()).map_err(|errno| Error::os(WHAT, errno))?;
    // A program that never pauses is out of time as well.
    if count == 0 || deadline.has_passed() {
        return Err(Error::new(WHAT, Kind::TimedOut));
    }
    let mut ready = fds.iter().map(|fd| !fd.revents().is_empty());
    let mut next = |watched: bool| watched && ready.next().unwrap_or(false);
    Ok((next(stdin.is_some()), outputs.iter().map(|output| next(output.is_some())).collect()))
}

fn write_some(stdin: &mut Option<PipeWriter>, input: &mut &[u8]) -> Result<()> {
    let Some(pipe) = stdin else { return Ok(()) };
    match pipe.write(input.get(..CHUNK).unwrap_or(input)) {
        Ok(written) => *input = input.get(written..).unwrap_or_default(),
        Err(error) if error.kind() == ErrorKind::Interrupted => {}
        // Nobody will read the rest.
        Err(error) if error.kind() == ErrorKind::BrokenPipe => *stdin = None,
        Err(error) => return Err(Error::io(WHAT, &error)),
    }
    Ok(())
}

fn read_some(output: &mut Option<PipeReader>, collected: &mut Vec<u8>) -> Result<()> {
    let Some(pipe) = output else { return Ok(()) };
    let mut buffer = [0; 1 << 14];
    match pipe.read(&mut buffer) {
        Ok(0) => *output = None,
        Ok(length) => collected.extend_from_slice(buffer.get(..length).unwrap_or_default()),
        Err(error) if error.kind() == ErrorKind::Interrupted => {}
        Err(error) => return Err(Error::io(WHAT, &error)),
    }
    Ok(())
}
