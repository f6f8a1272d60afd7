//! Programs as handlers, by the convention of UCSPI: the connection is standard input and output, and who is there
//! stands in the environment.
//!
//! TCP: `PROTO=TCP`, `TCPLOCALIP`, `TCPLOCALPORT`, `TCPREMOTEIP`, `TCPREMOTEPORT`, `TCPCONNNUM` (connections from that
//! address now, this one included). Unix: `PROTO=UNIX`, `UNIXLOCALPATH`, `UNIXREMOTEPID`, `UNIXREMOTEEUID`,
//! `UNIXREMOTEEGID`, `UNIXCONNNUM`. Everything else is inherited, but for what was meant for the server alone:
//! `LISTEN_*`, `NOTIFY_SOCKET`, `WATCHDOG_*` and Forkyard's own.
//!
//! The master executes the program itself, without copying anybody: a spare process would only be replaced. If the new process
//! is stopped (SIGSTOP) in the moment before its exec, the master waits until it is continued or killed.

use std::cell::Cell;
use std::ffi::{CStr, CString, OsStr};
use std::net::SocketAddr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};

use forkyard_sys::Errno;
use forkyard_sys::exec::{self, Launch, Mask, Plan, SpawnError, Spawned, Step};
use forkyard_sys::net::{self, End};

use super::handoff::Handed;
use super::peer::Peer;
use super::rights::Rights;
use crate::process::FAMILY;

/// A program, its arguments and the environment that all its runs have in common.
#[derive(Debug)]
pub(super) struct Program {
    name: Vec<u8>,
    found: Result<CString, Errno>,
    arguments: Vec<CString>,
    environment: Vec<CString>,
    rights: Rights,
    /// It has been executed before, as it stands: no need to wait and see.
    proven: Cell<bool>,
}

const SIGKILL: i32 = 9;
const STDIN: i32 = 0;
const STDOUT: i32 = 1;
const STDERR: i32 = 2;

/// True for a variable that a served program does not get.
fn is_private(name: &[u8]) -> bool {
    const PREFIXES: [&[u8]; 6] = [b"LISTEN_", b"NOTIFY_SOCKET", b"WATCHDOG_", b"FORKYARD_", b"TCP", b"UNIX"];
    const OURS: [&[u8]; 5] = [b"IP", b"PORT", b"NUM", b"PATH", b"ID"];
    if name == b"PROTO" {
        return true;
    }
    match PREFIXES.iter().position(|prefix| name.starts_with(prefix)) {
        None => false,
        Some(0..=3) => true,
        // Left from a UCSPI server around us: TCPREMOTEINFO too, but not somebody's UNIX_TIME.
        Some(_) => OURS.iter().any(|end| name.ends_with(end)) || name == b"TCPREMOTEINFO",
    }
}

/// The program's file; found in `PATH` if its name has no slash.
pub(super) fn find(name: &[u8]) -> Result<CString, Errno> {
    exec::find_program(OsStr::from_bytes(name), std::env::var_os("PATH").as_deref())
}

impl Program {
    /// Looks everything up that does not depend on the connection. `token` is what the cleaner-up of a killed master
    /// finds the program and its descendants by.
    pub(super) fn prepare(args: &[Vec<u8>], rights: &Rights, token: &str) -> Program {
        let environment = std::env::vars_os();
        let environment = environment.filter(|(name, _)| !is_private(name.as_bytes()) && name != FAMILY);
        let environment = environment.map(|(name, value)| [name.as_bytes(), value.as_bytes()].join(&b'='));
        let mut family = [FAMILY.as_bytes(), b"="].concat();
        if let Some(above) = std::env::var_os(FAMILY) {
            family.extend([above.as_bytes(), b":"].concat());
        }
        family.extend(token.as_bytes());
        let environment = environment.chain([family]).filter_map(|line| CString::new(line).ok());
        let name = args.first().cloned().unwrap_or_default();
        Program {
            found: find(&name),
            name,
            arguments: args.iter().filter_map(|arg| CString::new(arg.clone()).ok()).collect(),
            environment: environment.collect(),
            rights: rights.clone(),
            proven: Cell::new(false),
        }
    }

    /// Executes the program on this connection, in a new process. With a [`Launch`] it has not been executed yet, and the launch will
    /// tell whether it could be.
    pub(super) fn start(&self, handed: &Handed) -> Result<(Spawned, Option<Launch>), SpawnError> {
        let mut environment = self.environment.clone();
        environment.extend(about(handed.fd.as_fd(), handed.peer, handed.neighbours));
        if let (true, Ok(file)) = (self.proven.get(), &self.found) {
            return self.plan(file, self.arguments.clone(), environment, &handed.fd, |plan| {
                exec::launch(plan).map(|(spawned, launch)| (spawned, Some(launch)))
            });
        }
        // A program that was not there when the server started may have been installed since.
        let found = self.found.clone().or_else(|_| find(&self.name));
        let file = found.map_err(|errno| SpawnError { step: Step::Exec, errno })?;
        let spawn = |plan: Plan<'_>| exec::spawn(&plan).map(|spawned| (spawned, None));
        let result = self.plan(&file, self.arguments.clone(), environment.clone(), &handed.fd, spawn);
        if !result.as_ref().is_err_and(|error| error.errno == Errno::NOEXEC) {
            self.proven.set(result.is_ok());
            return result;
        }
        // A script without a first line that names its interpreter is the shell's, as execvp(3) has it.
        let mut arguments = vec![c"sh".to_owned(), file];
        arguments.extend(self.arguments.iter().skip(1).cloned());
        self.plan(c"/bin/sh", arguments, environment, &handed.fd, spawn)
    }

    /// The next start waits and sees again.
    pub(super) fn doubt(&self) {
        self.proven.set(false);
    }

    /// Plans the execution of this file, and starts it.
    fn plan<S>(
        &self,
        file: &CStr,
        arguments: Vec<CString>,
        environment: Vec<CString>,
        fd: &OwnedFd,
        start: impl FnOnce(Plan<'_>) -> Result<S, SpawnError>,
    ) -> Result<S, SpawnError> {
        let stderr = std::io::stderr();
        let mut plan = Plan::new(file.to_owned(), arguments);
        plan.environment(environment).place(fd.as_fd(), STDIN).place(fd.as_fd(), STDOUT);
        plan.place(stderr.as_fd(), STDERR).signal_mask(Mask::Set(0)).parent_death_signal(SIGKILL);
        // A group of its own: Ctrl-C on a terminal is for the master, which lets connections finish.
        plan.process_group(0);
        self.rights.plan(&mut plan);
        start(plan)
    }

    /// Says in one line why it could not be executed.
    pub(super) fn complain(&self, error: &SpawnError) {
        let line = format!("forkyard: failed to execute {}: {error}\n", String::from_utf8_lossy(&self.name));
        eprint!("{line}");
    }
}

/// The variables that tell about the connection.
fn about(fd: BorrowedFd<'_>, peer: Peer, neighbours: u64) -> Vec<CString> {
    let ip = |address: SocketAddr| address.ip().to_canonical().to_string();
    let mut variables: Vec<(&str, Vec<u8>)> = Vec::with_capacity(6);
    match peer {
        Peer::Tcp(remote) => {
            variables.push(("PROTO", b"TCP".to_vec()));
            if let Ok(End::Tcp(local)) = net::local(fd) {
                variables.push(("TCPLOCALIP", ip(local).into()));
                variables.push(("TCPLOCALPORT", local.port().to_string().into()));
            }
            variables.push(("TCPREMOTEIP", ip(remote).into()));
            variables.push(("TCPREMOTEPORT", remote.port().to_string().into()));
            variables.push(("TCPCONNNUM", neighbours.to_string().into()));
        }
        Peer::Unix => {
            variables.push(("PROTO", b"UNIX".to_vec()));
            if let Ok(End::Unix(Some(path))) = net::local(fd) {
                variables.push(("UNIXLOCALPATH", path.into_os_string().into_vec()));
            }
            if let Ok((pid, uid, gid)) = net::peer_credentials(fd) {
                variables.push(("UNIXREMOTEPID", pid.to_string().into()));
                variables.push(("UNIXREMOTEEUID", uid.to_string().into()));
                variables.push(("UNIXREMOTEEGID", gid.to_string().into()));
            }
            variables.push(("UNIXCONNNUM", neighbours.to_string().into()));
        }
    }
    let texts = variables.into_iter().filter_map(|(name, value)| {
        let mut text = Vec::from(name);
        text.push(b'=');
        text.extend(value);
        CString::new(text).ok()
    });
    texts.collect()
}

#[cfg(test)]
mod tests {
    use super::is_private;

    #[test]
    fn variables_for_the_server_stay_with_it() {
        for name in ["LISTEN_FDS", "LISTEN_PID", "NOTIFY_SOCKET", "FORKYARD_UPGRADE", "PROTO", "TCPREMOTEIP"]
        {
            assert!(is_private(name.as_bytes()), "{name}");
        }
        for name in ["PATH", "HOME", "TCP_FASTOPEN", "UNIX_TIME", "LANG"] {
            assert!(!is_private(name.as_bytes()), "{name}");
        }
    }
}
