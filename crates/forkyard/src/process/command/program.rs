//! `Program`: which program, with what.

use std::ffi::{OsStr, OsString};
use std::ops::BitOr;
use std::os::fd::{OwnedFd, RawFd};
use std::path::Path;

use forkyard_sys::signal::Signal;

use super::communicate::Output;
use super::{Pipeline, Popen, Stdio};
use crate::error::{Error, Result};
use crate::process::runtime;

/// Another program and what it is to be started with.
///
/// It is used up by its start, so this process keeps no end of a pipe that it gave away.
///
/// ```
/// use forkyard::process::{Program, Stdio};
///
/// let output = Program::new("sh").args(["-c", "echo $GREETING"]).env("GREETING", "hello").output()?;
/// assert_eq!(output.stdout, b"hello\n");
///
/// let sorted = (Program::new("printf").arg(r"b\na\n") | Program::new("sort")).output()?;
/// assert_eq!(sorted.stdout, b"a\nb\n");
/// # Ok::<(), forkyard::Error>(())
/// ```
///
/// By default it has this process's standard streams, environment and directory, no other descriptors, no
/// blocked signals, and every signal at its default that this process does not ignore; `SIGPIPE` too, which
/// Rust ignores.
#[derive(Debug)]
#[must_use = "a program does not start by itself"]
#[doc(alias = "Command")]
pub struct Program {
    pub(super) name: OsString,
    pub(super) arguments: Vec<OsString>,
    pub(super) own_name: Option<OsString>,
    pub(super) stdin: Option<Stdio>,
    pub(super) stdout: Option<Stdio>,
    pub(super) stderr: Option<Stdio>,
    pub(super) empty_environment: bool,
    /// Changes in the order made; `None` removes.
    pub(super) environment: Vec<(OsString, Option<OsString>)>,
    pub(super) directory: Option<OsString>,
    pub(super) kept: Vec<OwnedFd>,
    pub(super) placed: Vec<(OwnedFd, RawFd)>,
    pub(super) session: bool,
    pub(super) process_group: Option<i32>,
    pub(super) umask: Option<u32>,
    pub(super) no_new_privileges: bool,
    pub(super) groups: Option<Vec<u32>>,
    pub(super) gid: Option<u32>,
    pub(super) uid: Option<u32>,
    pub(super) parent_death: Option<Signal>,
    pub(super) keep_sigpipe: bool,
}

impl Program {
    /// The program of this name in `PATH`, or this file if there is a slash in it. A relative file counts
    /// from the program's own directory, see [`cwd`](Program::cwd).
    ///
    /// A script needs a `#!` line.
    pub fn new(name: impl AsRef<OsStr>) -> Program {
        Program {
            name: name.as_ref().to_owned(),
            arguments: Vec::new(),
            own_name: None,
            stdin: None,
            stdout: None,
            stderr: None,
            empty_environment: false,
            environment: Vec::new(),
            directory: None,
            kept: Vec::new(),
            placed: Vec::new(),
            session: false,
            process_group: None,
            umask: None,
            no_new_privileges: false,
            groups: None,
            gid: None,
            uid: None,
            parent_death: None,
            keep_sigpipe: false,
        }
    }

    /// The shell, with this command line: `sh -c`. What a user typed must not become part of it unquoted.
    pub fn shell(command_line: impl AsRef<OsStr>) -> Program {
        Program::new("/bin/sh").args(["-c", "--"]).arg(command_line).arg0("sh")
    }

    /// Adds an argument.
    pub fn arg(mut self, argument: impl AsRef<OsStr>) -> Program {
        self.arguments.push(argument.as_ref().to_owned());
        self
    }

    /// Adds arguments.
    pub fn args(mut self, arguments: impl IntoIterator<Item: AsRef<OsStr>>) -> Program {
        self.arguments.extend(arguments.into_iter().map(|argument| argument.as_ref().to_owned()));
        self
    }

    /// Sets what the program is told as its own name; by default the name it was asked for by.
    pub fn arg0(mut self, name: impl AsRef<OsStr>) -> Program {
        self.own_name = Some(name.as_ref().to_owned());
        self
    }

    /// Sets a variable of its environment.
    pub fn env(mut self, name: impl AsRef<OsStr>, value: impl AsRef<OsStr>) -> Program {
        self.environment.push((name.as_ref().to_owned(), Some(value.as_ref().to_owned())));
        self
    }

    /// Sets variables of its environment.
    pub fn envs(
        mut self,
        variables: impl IntoIterator<Item = (impl AsRef<OsStr>, impl AsRef<OsStr>)>,
    ) -> Program {
        for (name, value) in variables {
            self = self.env(name, value);
        }
        self
    }

    /// Leaves a variable out of its environment.
    pub fn env_remove(mut self, name: impl AsRef<OsStr>) -> Program {
        self.environment.push((name.as_ref().to_owned(), None));
        self
    }

    /// Starts its environment from nothing: variables set before and of this process are left out.
    pub fn env_clear(mut self) -> Program {
        self.empty_environment = true;
        self.environment.clear();
        self
    }

    /// Sets its working directory.
    #[doc(alias = "current_dir")]
    pub fn cwd(mut self, directory: impl AsRef<Path>) -> Program {
        self.directory = Some(directory.as_ref().as_os_str().to_owned());
        self
    }

    /// Sets where its standard input comes from.
    pub fn stdin(mut self, from: impl Into<Stdio>) -> Program {
        self.stdin = Some(from.into());
        self
    }

    /// Sets where its standard output goes.
    pub fn stdout(mut self, to: impl Into<Stdio>) -> Program {
        self.stdout = Some(to.into());
        self
    }

    /// Sets where its standard error goes.
    pub fn stderr(mut self, to: impl Into<Stdio>) -> Program {
        self.stderr = Some(to.into());
        self
    }

    /// Hands a descriptor over to the program, under the number it has here.
    #[doc(alias = "pass_fds")]
    pub fn keep_fd(mut self, fd: impl Into<OwnedFd>) -> Program {
        self.kept.push(fd.into());
        self
    }

    /// Hands a descriptor over to the program, under this number. Each number can be given once.
    #[doc(alias = "dup2")]
    pub fn place_fd(mut self, fd: impl Into<OwnedFd>, number: RawFd) -> Program {
        self.placed.push((fd.into(), number));
        self
    }

    /// Makes it the leader of a new session, without a controlling terminal.
    #[doc(alias = "setsid")]
    #[doc(alias = "start_new_session")]
    pub fn new_session(mut self) -> Program {
        self.session = true;
        self
    }

    /// Puts it into this process group; 0 makes a new one, with its pid as number.
    #[doc(alias = "setpgid")]
    pub fn process_group(mut self, group: i32) -> Program {
        self.process_group = Some(group);
        self
    }

    /// Sets its file mode creation mask.
    pub fn umask(mut self, mask: u32) -> Program {
        self.umask = Some(mask);
        self
    }

    /// Forbids it to gain rights by executing set-user-id files and the like.
    pub fn no_new_privs(mut self) -> Program {
        self.no_new_privileges = true;
        self
    }

    /// Sets its user id. Without [`groups`](Program::groups), it has no supplementary groups.
    #[doc(alias = "setuid")]
    pub fn uid(mut self, uid: u32) -> Program {
        self.uid = Some(uid);
        self
    }

    /// Sets its group id.
    #[doc(alias = "setgid")]
    pub fn gid(mut self, gid: u32) -> Program {
        self.gid = Some(gid);
        self
    }

    /// Sets its supplementary groups.
    #[doc(alias = "setgroups")]
    #[doc(alias = "extra_groups")]
    pub fn groups(mut self, groups: impl Into<Vec<u32>>) -> Program {
        self.groups = Some(groups.into());
        self
    }

    /// Has the kernel send it this signal when the *thread* that starts it ends: for threads that live as
    /// long as what the program is needed for.
    #[doc(alias = "PR_SET_PDEATHSIG")]
    pub fn parent_death_signal(mut self, signal: Signal) -> Program {
        self.parent_death = Some(signal);
        self
    }

    /// Leaves `SIGPIPE` ignored in it if it is here: writing into a pipe that nobody reads is an error then,
    /// and does not end the program. Most expect to be ended.
    pub fn keep_sigpipe(mut self) -> Program {
        self.keep_sigpipe = true;
        self
    }

    /// Starts it in a new process.
    ///
    /// # Errors
    /// The step that failed and the errno, with the limit that was met: no such program, not executable, too
    /// many processes or descriptors, … A failed start leaves nothing behind.
    #[doc(alias = "spawn")]
    #[doc(alias = "posix_spawn")]
    pub fn start(self) -> Result<Popen> {
        self.start_with(|_| ())
    }

    /// Starts it, waits for it, and returns what it wrote. Standard output and error are collected unless
    /// they were set to lead elsewhere; standard input is empty unless it was set.
    ///
    /// # Errors
    /// As [`start`](Program::start).
    #[doc(alias = "check_output")]
    pub fn output(mut self) -> Result<Output> {
        _ = self.stdin.get_or_insert(Stdio::Null);
        _ = self.stdout.get_or_insert(Stdio::Pipe);
        _ = self.stderr.get_or_insert(Stdio::Pipe);
        self.start()?.communicate("")
    }

    /// Replaces this process by it, with the same pid; returns only if that failed. Children of this process become the
    /// program's, but for the daemonic ones, which the kernel ends, and the library's own, which are ended before. After a failure,
    /// descriptors of this process may have become close-on-exec, and steps that had succeeded stay done.
    #[doc(alias = "execvp")]
    pub fn exec(self) -> Error {
        match runtime::existing() {
            // Nobody makes another zygote meanwhile.
            Some(runtime) => runtime.with_template(|template| {
                template.lose();
                self.replace()
            }),
            None => self.replace(),
        }
    }
}

impl BitOr for Program {
    type Output = Pipeline;

    /// `a | b`: what `a` writes, `b` reads.
    fn bitor(self, next: Program) -> Pipeline {
        Pipeline::new(self).pipe(next)
    }
}
