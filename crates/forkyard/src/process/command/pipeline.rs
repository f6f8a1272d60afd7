//! `Pipeline`: programs in a row, each reading what the one before writes.
//!
//! Of the pipe between two programs, each has its own end and nobody has another copy. So when one ends in
//! any way, the next reads the end of its input, and the one before gets `SIGPIPE` at its next write.

use std::io::{PipeReader, PipeWriter, pipe};
use std::ops::BitOr;
use std::time::{Duration, Instant};

use forkyard_sys::signal::Signal;
use forkyard_sys::wait::ExitStatus;

use super::communicate::exchange;
use super::{Popen, Program, Stdio};
use crate::error::{Error, Kind, Result};
use crate::time::Deadline;

/// Programs in a row that are to be started: `a | b | c`.
///
/// The standard input of the first, the output of the last and everybody's standard error are as set on the
/// programs themselves.
///
/// ```
/// use forkyard::process::Program;
///
/// let words = Program::new("printf").arg(r"pear\nplum\npear\n");
/// let output = (words | Program::new("sort") | Program::new("uniq")).output()?;
/// assert_eq!(output.stdout, b"pear\nplum\n");
/// assert!(output.statuses.iter().all(|status| status.success()));
/// # Ok::<(), forkyard::Error>(())
/// ```
#[derive(Debug)]
#[must_use = "a pipeline does not start by itself"]
pub struct Pipeline {
    first: Program,
    rest: Vec<Program>,
}

/// The started programs of a pipeline.
#[derive(Debug)]
pub struct Stages {
    /// The pipe to the first program's standard input, if one was asked for.
    pub stdin: Option<PipeWriter>,
    /// The pipe from the last program's standard output, if one was asked for.
    pub stdout: Option<PipeReader>,
    programs: Vec<Popen>,
}

/// What the last program of a pipeline wrote, and how all ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PipelineOutput {
    /// How the programs ended, in their order.
    #[doc(alias = "PIPESTATUS")]
    pub statuses: Vec<ExitStatus>,
    /// The last program's standard output, if that was a pipe.
    pub stdout: Vec<u8>,
    /// The standard error of each program, where that was a pipe.
    pub stderr: Vec<Vec<u8>>,
}

impl Pipeline {
    /// A pipeline of one program.
    pub fn new(first: Program) -> Pipeline {
        Pipeline { first, rest: Vec::new() }
    }

    /// Lets one more program read what the last one so far writes.
    pub fn pipe(mut self, next: Program) -> Pipeline {
        self.rest.push(next);
        self
    }

    /// Starts all programs, in their order.
    ///
    /// # Errors
    /// As [`Program::start`], and those that had been started are killed and reaped. Or
    /// [`is_invalid`](Error::is_invalid): a stream that is to be a pipe between two programs was set otherwise.
    pub fn start(self) -> Result<Stages> {
        let mut programs = Stages { stdin: None, stdout: None, programs: Vec::new() };
        let mut current = self.first;
        for mut next in self.rest {
            if current.stdout.is_some() || next.stdin.is_some() {
                return Err(programs.give_up(Error::new(
                    format!("pipe program {:?} to {:?}", current.name, next.name),
                    Kind::Invalid("the first's output or the second's input is set already".into()),
                )));
            }
            let (read, write) = match pipe() {
                Ok(ends) => ends,
                Err(error) => return Err(programs.give_up(Error::io("open a pipe between programs", &error))),
            };
            current.stdout = Some(Stdio::from(write));
            next.stdin = Some(Stdio::from(read));
            programs.add(current)?;
            current = next;
        }
        programs.add(current)?;
        programs.stdin = programs.programs.first_mut().and_then(|first| first.stdin.take());
        programs.stdout = programs.programs.last_mut().and_then(|last| last.stdout.take());
        Ok(programs)
    }

    /// Starts all programs, waits for them, and returns what the last one wrote. Standard input is empty
    /// unless it was set, and standard error is not collected unless it was asked for.
    ///
    /// # Errors
    /// As [`start`](Pipeline::start).
    pub fn output(mut self) -> Result<PipelineOutput> {
        self.first.stdin.get_or_insert(Stdio::Null);
        self.rest.last_mut().unwrap_or(&mut self.first).stdout.get_or_insert(Stdio::Pipe);
        self.start()?.communicate("")
    }
}

impl BitOr<Program> for Pipeline {
    type Output = Pipeline;

    fn bitor(self, next: Program) -> Pipeline {
        self.pipe(next)
    }
}

impl Stages {
    fn add(&mut self, program: Program) -> Result<()> {
        match program.start() {
            Ok(started) => {
                self.programs.push(started);
                Ok(())
            }
            Err(error) => Err(self.give_up(error)),
        }
    }

    /// Ends what has been started.
    fn give_up(&mut self, error: Error) -> Error {
        let _ended_anyway = self.kill();
        for program in &mut self.programs {
            let _nobody_asks = program.wait();
        }
        error
    }

    /// The programs, in their order: to look at one, wait for one, or signal one.
    #[must_use]
    pub fn programs(&mut self) -> &mut [Popen] {
        &mut self.programs
    }

    /// Waits for the end of all, and tells how each ended. Closes [`stdin`](Stages::stdin) first.
    ///
    /// # Errors
    /// As [`Popen::wait`].
    pub fn wait(&mut self) -> Result<Vec<ExitStatus>> {
        self.wait_until(Deadline::NEVER)
    }

    /// How each ended, if all have; else `None`.
    ///
    /// # Errors
    /// As [`Popen::wait`].
    pub fn try_wait(&mut self) -> Result<Option<Vec<ExitStatus>>> {
        self.programs.iter_mut().map(Popen::try_wait).collect()
    }

    /// As [`wait`](Stages::wait), for at most so long.
    ///
    /// # Errors
    /// [`is_timeout`](Error::is_timeout) if one still runs; else as `wait`.
    pub fn wait_timeout(&mut self, timeout: Duration) -> Result<Vec<ExitStatus>> {
        self.wait_until(Deadline::after(timeout))
    }

    /// As [`wait`](Stages::wait), until this moment at most.
    ///
    /// # Errors
    /// As [`wait_timeout`](Stages::wait_timeout).
    pub fn wait_deadline(&mut self, deadline: Instant) -> Result<Vec<ExitStatus>> {
        self.wait_until(deadline.into())
    }

    fn wait_until(&mut self, deadline: Deadline) -> Result<Vec<ExitStatus>> {
        self.stdin = None;
        self.programs.iter_mut().map(|program| program.wait_until(deadline)).collect()
    }

    /// Sends a signal to each that runs.
    ///
    /// # Errors
    /// As [`Popen::signal`]; the others get it all the same.
    pub fn signal(&self, signal: Signal) -> Result<()> {
        let sent: Vec<Result<()>> = self.programs.iter().map(|program| program.signal(signal)).collect();
        sent.into_iter().collect()
    }

    /// Asks each that runs to end, by `SIGTERM`.
    ///
    /// # Errors
    /// As [`signal`](Stages::signal).
    pub fn terminate(&self) -> Result<()> {
        self.signal(Signal::TERM)
    }

    /// Ends each that runs, by `SIGKILL`.
    ///
    /// # Errors
    /// As [`signal`](Stages::signal).
    pub fn kill(&self) -> Result<()> {
        self.signal(Signal::KILL)
    }

    /// Writes the input to the first, reads what the last writes (and every standard error that is a pipe),
    /// and waits for all: as [`Popen::communicate`].
    ///
    /// # Errors
    /// As [`Popen::communicate`].
    pub fn communicate(self, input: impl AsRef<[u8]>) -> Result<PipelineOutput> {
        self.communicate_until(input.as_ref(), Deadline::NEVER)
    }

    /// As [`communicate`](Stages::communicate), for at most so long; then all are killed.
    ///
    /// # Errors
    /// [`is_timeout`](Error::is_timeout); else as `communicate`.
    pub fn communicate_timeout(self, input: impl AsRef<[u8]>, timeout: Duration) -> Result<PipelineOutput> {
        self.communicate_until(input.as_ref(), Deadline::after(timeout))
    }

    /// As [`communicate`](Stages::communicate), until this moment at most; then all are killed.
    ///
    /// # Errors
    /// As [`communicate_timeout`](Stages::communicate_timeout).
    pub fn communicate_deadline(self, input: impl AsRef<[u8]>, deadline: Instant) -> Result<PipelineOutput> {
        self.communicate_until(input.as_ref(), deadline.into())
    }

    fn communicate_until(mut self, input: &[u8], deadline: Deadline) -> Result<PipelineOutput> {
        let (stdin, stdout) = (self.stdin.take(), self.stdout.take());
        let errors = self.programs.iter_mut().map(|program| program.stderr.take());
        let outputs = [stdout].into_iter().chain(errors).collect();
        let exchanged = exchange(input, stdin, outputs, deadline).and_then(|outputs| {
            let statuses = self.wait_until(deadline)?;
            let mut outputs = outputs.into_iter();
            let stdout = outputs.next().unwrap_or_default();
            Ok(PipelineOutput { statuses, stdout, stderr: outputs.collect() })
        });
        if exchanged.is_err() {
            // Dropping the handles sees to the rest.
            let _ended_anyway = self.kill();
        }
        exchanged
    }
}
