//! From a `Program` to a process: descriptors opened, strings converted, refusals explained.

use std::ffi::{CString, OsStr, OsString};
use std::io::{PipeReader, PipeWriter};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::Path;

use forkyard_sys::Errno;
use forkyard_sys::exec::{self, Mask, Plan, SpawnError, Step, find_program};

use super::{Popen, Program, Stdio, detach};
use crate::error::{Error, Kind, Result};
use crate::process::limit;

/// The program's standard streams, where they are not simply inherited.
struct Streams([Option<OwnedFd>; 3]);

/// This process's ends of the pipes that were asked for.
struct Ends {
    stdin: Option<PipeWriter>,
    stdout: Option<PipeReader>,
    stderr: Option<PipeReader>,
}

impl Program {
    /// Starts the program by a plan that is changed last by `change`.
    pub(super) fn start_with(mut self, change: impl FnOnce(&mut Plan<'_>)) -> Result<Popen> {
        detach::sweep();
        let (streams, ends) = self.streams()?;
        let mut plan = self.plan(&streams)?;
        change(&mut plan);
        let started = exec::spawn(&plan).map_err(|error| self.refused(error))?;
        Ok(Popen::new(started, ends.stdin, ends.stdout, ends.stderr))
    }

    pub(super) fn replace(mut self) -> Error {
        let streams = match self.streams() {
            Ok((_, Ends { stdin, stdout, stderr }))
                if stdin.is_some() || stdout.is_some() || stderr.is_some() =>
            {
                return self.unacceptable("after an exec there is nobody at the other end of a pipe");
            }
            Ok((streams, _)) => streams,
            Err(error) => return error,
        };
        match self.plan(&streams) {
            Ok(plan) => self.refused(exec::replace(&plan)),
            Err(error) => error,
        }
    }

    fn streams(&mut self) -> Result<(Streams, Ends)> {
        let (stdin, stdout, stderr) = (self.stdin.take(), self.stdout.take(), self.stderr.take());
        if matches!(stdin, Some(Stdio::Stdout)) || matches!(stdout, Some(Stdio::Stdout)) {
            return Err(self.unacceptable("only standard error can follow standard output"));
        }
        let open = || {
            let (stdin, stdin_end) = stdin.unwrap_or(Stdio::Inherit).open_input()?;
            let (stdout, stdout_end) = stdout.unwrap_or(Stdio::Inherit).open_output(None)?;
            let (stderr, stderr_end) = stderr.unwrap_or(Stdio::Inherit).open_output(stdout.as_ref())?;
            let ends = Ends { stdin: stdin_end, stdout: stdout_end, stderr: stderr_end };
            Ok((Streams([stdin, stdout, stderr]), ends))
        };
        open().map_err(|error: std::io::Error| {
            let errno = Errno::from_io_error(&error).unwrap_or(Errno::IO);
            self.refused(SpawnError { step: Step::Descriptors, errno })
        })
    }

    fn plan<'fd>(&'fd self, streams: &'fd Streams) -> Result<Plan<'fd>> {
        let environment = self.environment();
        let path = match &environment {
            Some(variables) => {
                variables.iter().find(|(name, _)| name == "PATH").map(|(_, value)| value.clone())
            }
            None => std::env::var_os("PATH"),
        };
        let mut file = find_program(&self.name, path.as_deref()).map_err(|errno| self.not_found(errno))?;
        if self.directory.is_some() && self.is_searched() {
            // A relative directory in PATH is one of ours, and the program will start in another.
            let found = OsStr::from_bytes(file.as_bytes());
            let absolute =
                std::path::absolute(found).map_err(|error| Error::io(self.what("find it"), &error))?;
            file = self.string(absolute.as_os_str())?;
        }
        let own_name = self.own_name.as_ref().unwrap_or(&self.name);
        let arguments = [own_name].into_iter().chain(&self.arguments);
        let arguments = arguments.map(|argument| self.string(argument)).collect::<Result<Vec<_>>>()?;
        let mut plan = Plan::new(file, arguments);
        if let Some(variables) = environment {
            let variable = |(name, value): (OsString, OsString)| self.variable(name, value);
            plan.environment(variables.into_iter().map(variable).collect::<Result<Vec<_>>>()?);
        }
        for (fd, number) in streams.0.iter().zip(0..) {
            fd.iter().for_each(|fd| _ = plan.place(fd.as_fd(), number));
        }
        self.kept.iter().for_each(|fd| _ = plan.keep(fd.as_fd()));
        self.placed.iter().for_each(|(fd, number)| _ = plan.place(fd.as_fd(), *number));
        if let Some(directory) = &self.directory {
            plan.directory(self.string(directory)?);
        }
        plan.signal_mask(Mask::Set(0));
        self.plan_rights(&mut plan);
        Ok(plan)
    }

    fn plan_rights(&self, plan: &mut Plan<'_>) {
        if self.session {
            plan.new_session();
        }
        if self.no_new_privileges {
            plan.no_new_privileges();
        }
        if self.keep_sigpipe {
            plan.keep_sigpipe();
        }
        self.process_group.iter().for_each(|group| _ = plan.process_group(*group));
        self.umask.iter().for_each(|mask| _ = plan.umask(*mask));
        self.gid.iter().for_each(|gid| _ = plan.gid(*gid));
        self.uid.iter().for_each(|uid| _ = plan.uid(*uid));
        self.parent_death.iter().for_each(|signal| _ = plan.parent_death_signal(signal.number()));
        match (&self.groups, self.uid) {
            (Some(groups), _) => _ = plan.groups(groups.clone()),
            // Those of this process are not meant for another user.
            (None, Some(_)) => _ = plan.groups(Vec::new()),
            (None, None) => {}
        }
    }

    /// The environment, if it is not this process's.
    fn environment(&self) -> Option<Vec<(OsString, OsString)>> {
        if !self.empty_environment && self.environment.is_empty() {
            return None;
        }
        let mut variables: Vec<(OsString, OsString)> =
            if self.empty_environment { Vec::new() } else { std::env::vars_os().collect() };
        for (name, value) in &self.environment {
            variables.retain(|(other, _)| other != name);
            variables.extend(value.iter().map(|value| (name.clone(), value.clone())));
        }
        Some(variables)
    }

    fn variable(&self, name: OsString, value: OsString) -> Result<CString> {
        if name.is_empty() || name.as_bytes().contains(&b'=') {
            return Err(self.unacceptable(&format!("{name:?} is not the name of a variable")));
        }
        let text = [name.into_vec(), value.into_vec()].join(&b'=');
        self.string(&OsString::from_vec(text))
    }

    fn string(&self, text: &OsStr) -> Result<CString> {
        CString::new(text.as_bytes()).map_err(|_| self.unacceptable(&format!("{text:?} contains a NUL byte")))
    }

    fn what(&self, step: impl std::fmt::Display) -> String {
        format!("start program {:?}: {step}", self.name)
    }

    fn unacceptable(&self, why: &str) -> Error {
        Error::new(format!("start program {:?}", self.name), Kind::Invalid(why.to_owned()))
    }

    /// True if the name is looked for in `PATH`.
    fn is_searched(&self) -> bool {
        !self.name.as_bytes().contains(&b'/')
    }

    fn not_found(&self, errno: Errno) -> Error {
        let what = self.what("find it");
        match errno {
            Errno::NOENT => Error::os_hint(what, errno, "it is in no directory of PATH"),
            Errno::ACCESS => Error::os_hint(what, errno, "what PATH has under this name is not executable"),
            _ => Error::os(what, errno),
        }
    }

    fn refused(&self, SpawnError { step, errno }: SpawnError) -> Error {
        let hint = match (step, errno) {
            (_, Errno::AGAIN | Errno::MFILE | Errno::NFILE | Errno::NOMEM) => limit::hint(errno),
            (Step::Descriptors, Errno::INVAL) => "a number is given twice".to_owned(),
            (Step::Exec, Errno::TOOBIG) => "arguments and environment together are too long".to_owned(),
            (Step::Exec, Errno::NOEXEC) => {
                "neither a program for this machine nor a script with a #! line".to_owned()
            }
            (Step::Exec, Errno::NOENT) if self.is_searched() || Path::new(&self.name).exists() => {
                "the file exists; what its #! line names does not".to_owned()
            }
            _ => return Error::os(self.what(step), errno),
        };
        Error::os_hint(self.what(step), errno, hint)
    }
}
