//! What to start and how: the builder, the steps, the error.

use std::ffi::CString;
use std::fmt;
use std::os::fd::{AsRawFd, BorrowedFd, RawFd};

use rustix::io::Errno;

/// What to start, and with which descriptors, directory, signals and rights.
///
/// By default the program inherits the environment, directory and signal mask of the caller, and of its
/// descriptors only 0, 1 and 2. Signals with a handler are reset to their default, as exec does; ignored ones
/// stay ignored, except `SIGPIPE`, which Rust's runtime ignores and programs expect at its default.
///
/// The steps are taken in the order of [`Step`].
#[derive(Clone, Debug)]
pub struct Plan<'fd> {
    pub(super) program: CString,
    /// The open file to execute instead, by its number in the caller.
    pub(super) file: Option<RawFd>,
    pub(super) arguments: Vec<CString>,
    pub(super) environment: Option<Vec<CString>>,
    pub(super) placed: Vec<(BorrowedFd<'fd>, RawFd)>,
    pub(super) kept: Vec<BorrowedFd<'fd>>,
    pub(super) keep_all: bool,
    pub(super) new_session: bool,
    pub(super) process_group: Option<i32>,
    pub(super) umask: Option<u32>,
    pub(super) limits: Vec<(u32, libc::rlimit)>,
    pub(super) no_new_privileges: bool,
    pub(super) groups: Option<Vec<u32>>,
    pub(super) gid: Option<u32>,
    pub(super) uid: Option<u32>,
    pub(super) directory: Option<CString>,
    pub(super) parent_death: Option<i32>,
    pub(super) default_signals: u64,
    pub(super) mask: Mask,
}

/// The signal mask that the program starts with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mask {
    /// That of the calling thread, as POSIX has it.
    Inherit,
    /// This one: bit n−1 is signal n. Zero blocks nothing.
    Set(u64),
}

impl<'fd> Plan<'fd> {
    /// Plans to execute the file `program` with these arguments, of which the first is the program's name for
    /// itself.
    ///
    /// The file is not searched for: [`find_program`](super::find_program) does that. A relative path counts
    /// from the directory that the program starts in.
    #[must_use]
    pub fn new(program: CString, arguments: Vec<CString>) -> Plan<'fd> {
        Plan {
            program,
            file: None,
            arguments,
            environment: None,
            placed: Vec::new(),
            kept: Vec::new(),
            keep_all: false,
            new_session: false,
            process_group: None,
            umask: None,
            limits: Vec::new(),
            no_new_privileges: false,
            groups: None,
            gid: None,
            uid: None,
            directory: None,
            parent_death: None,
            default_signals: bit(libc::SIGPIPE),
            mask: Mask::Inherit,
        }
    }

    /// Plans to execute this open file, which is no script. Its number may not be a target of [`place`](Plan::place).
    #[doc(alias = "fexecve")]
    #[must_use]
    pub fn of_file(file: BorrowedFd<'fd>, arguments: Vec<CString>) -> Plan<'fd> {
        Plan { file: Some(file.as_raw_fd()), ..Plan::new(CString::default(), arguments) }
    }

    /// Gives the program exactly these `NAME=value` strings as environment.
    #[doc(alias = "envp")]
    pub fn environment(&mut self, variables: Vec<CString>) -> &mut Self {
        self.environment = Some(variables);
        self
    }

    /// Gives the program `source` as its descriptor number `target`. Sources and targets may overlap in any
    /// way; a target named twice, or named and kept, is `EINVAL` of [`Step::Descriptors`].
    #[doc(alias = "dup2")]
    pub fn place(&mut self, source: BorrowedFd<'fd>, target: RawFd) -> &mut Self {
        self.placed.push((source, target));
        self
    }

    /// Lets the program keep this descriptor, under its own number.
    pub fn keep(&mut self, fd: BorrowedFd<'fd>) -> &mut Self {
        self.kept.push(fd);
        self
    }

    /// Lets the program keep every descriptor that is not close-on-exec, as exec does on its own.
    pub fn keep_all(&mut self) -> &mut Self {
        self.keep_all = true;
        self
    }

    /// Makes the process the leader of a new session, without a controlling terminal.
    #[doc(alias = "setsid")]
    pub fn new_session(&mut self) -> &mut Self {
        self.new_session = true;
        self
    }

    /// Moves the process into this process group; 0 makes it the leader of a new one.
    #[doc(alias = "setpgid")]
    pub fn process_group(&mut self, group: i32) -> &mut Self {
        self.process_group = Some(group);
        self
    }

    /// Sets the file mode creation mask.
    pub fn umask(&mut self, mask: u32) -> &mut Self {
        self.umask = Some(mask);
        self
    }

    /// Sets a resource limit: `RLIMIT_*`, soft and hard value.
    #[doc(alias = "setrlimit")]
    pub fn limit(&mut self, resource: u32, soft: u64, hard: u64) -> &mut Self {
        self.limits.push((resource, libc::rlimit { rlim_cur: soft, rlim_max: hard }));
        self
    }

    /// Forbids the program to gain rights by executing set-user-id files and the like.
    pub fn no_new_privileges(&mut self) -> &mut Self {
        self.no_new_privileges = true;
        self
    }

    /// Replaces the supplementary groups.
    #[doc(alias = "setgroups")]
    pub fn groups(&mut self, groups: Vec<u32>) -> &mut Self {
        self.groups = Some(groups);
        self
    }

    /// Sets the real, effective and saved group id.
    #[doc(alias = "setgid")]
    pub fn gid(&mut self, gid: u32) -> &mut Self {
        self.gid = Some(gid);
        self
    }

    /// Sets the real, effective and saved user id. Supplementary groups stay unless
    /// [`groups`](Plan::groups) is called too.
    #[doc(alias = "setuid")]
    pub fn uid(&mut self, uid: u32) -> &mut Self {
        self.uid = Some(uid);
        self
    }

    /// Sets the working directory, with the rights that the program will have.
    #[doc(alias = "chdir")]
    pub fn directory(&mut self, directory: CString) -> &mut Self {
        self.directory = Some(directory);
        self
    }

    /// Sends the process this signal when the *thread* that called [`spawn`](super::spawn) ends, also if it
    /// ended during the start. Executing a set-user-id program cancels it.
    #[doc(alias = "PR_SET_PDEATHSIG")]
    pub fn parent_death_signal(&mut self, signal: i32) -> &mut Self {
        self.parent_death = Some(signal);
        self
    }

    /// Resets this signal to its default even if it is ignored.
    pub fn default_signal(&mut self, signal: i32) -> &mut Self {
        self.default_signals |= bit(signal);
        self
    }

    /// Leaves `SIGPIPE` ignored if it is.
    pub fn keep_sigpipe(&mut self) -> &mut Self {
        self.default_signals &= !bit(libc::SIGPIPE);
        self
    }

    /// Sets the signal mask that the program starts with.
    pub fn signal_mask(&mut self, mask: Mask) -> &mut Self {
        self.mask = mask;
        self
    }

    /// The same plan without its descriptors.
    pub(super) fn without_descriptors(self) -> Plan<'static> {
        Plan {
            program: self.program,
            file: self.file,
            arguments: self.arguments,
            environment: self.environment,
            placed: Vec::new(),
            kept: Vec::new(),
            keep_all: self.keep_all,
            new_session: self.new_session,
            process_group: self.process_group,
            umask: self.umask,
            limits: self.limits,
            no_new_privileges: self.no_new_privileges,
            groups: self.groups,
            gid: self.gid,
            uid: self.uid,
            directory: self.directory,
            parent_death: self.parent_death,
            default_signals: self.default_signals,
            mask: self.mask,
        }
    }
}

pub(super) fn bit(signal: i32) -> u64 {
    match signal {
        1..=64 => 1 << (signal - 1),
        _ => 0,
    }
}

/// A step on the way to the new program, in the order in which they are taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Step {
    /// Creating the process, before it takes any step itself.
    Clone,
    /// setsid(2).
    Session,
    /// setpgid(2).
    ProcessGroup,
    /// Placing, keeping and closing descriptors.
    Descriptors,
    /// setrlimit(2).
    Limits,
    /// `PR_SET_NO_NEW_PRIVS`.
    NoNewPrivileges,
    /// setgroups(2).
    Groups,
    /// setresgid(2).
    Gid,
    /// setresuid(2).
    Uid,
    /// chdir(2).
    Directory,
    /// `PR_SET_PDEATHSIG`.
    ParentDeath,
    /// execve(2).
    Exec,
}

impl Step {
    pub(super) const fn failed(self, errno: Errno) -> SpawnError {
        SpawnError { step: self, errno }
    }
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Step::Clone => "create a process",
            Step::Session => "start a session",
            Step::ProcessGroup => "set the process group",
            Step::Descriptors => "place file descriptors",
            Step::Limits => "set resource limits",
            Step::NoNewPrivileges => "give up gaining privileges",
            Step::Groups => "set the supplementary groups",
            Step::Gid => "set the group id",
            Step::Uid => "set the user id",
            Step::Directory => "change the working directory",
            Step::ParentDeath => "set the parent-death signal",
            Step::Exec => "execute the program",
        })
    }
}

/// The step that failed, and why.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SpawnError {
    /// What was being done.
    pub step: Step,
    /// The kernel's answer.
    pub errno: Errno,
}

impl fmt::Display for SpawnError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.step, self.errno)
    }
}

impl std::error::Error for SpawnError {}
