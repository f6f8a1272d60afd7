//! A server under measurement: started, asked for its port, and ended by its pid whatever happens.
//!
//! The measuring process adopts orphans (`PR_SET_CHILD_SUBREAPER`), so what a server leaves behind is found and
//! ended too. Killed here: the server gets SIGKILL from the kernel.

use std::ffi::OsStr;
use std::fs::File;
use std::io::{Read as _, Seek as _};
use std::net::{Ipv4Addr, SocketAddrV4};
use std::os::unix::process::CommandExt as _;
use std::process::{Child, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, Signal, WaitOptions, pidfd_open, pidfd_send_signal};

use crate::procfs;

/// How long a server may take to say its port, or to end.
const PATIENCE: Duration = Duration::from_secs(10);

/// A running server.
pub struct Server {
    child: Child,
    _stdout: ChildStdout,
    /// Where it listens.
    pub addr: SocketAddrV4,
}

impl Server {
    /// Starts `program` and reads the port it prints as a line of its own or at the end of one.
    pub fn start(program: impl AsRef<OsStr>, args: &[&OsStr]) -> Result<Server, String> {
        let program = program.as_ref();
        let named = |what: &str, e: &dyn std::fmt::Display| format!("{}: {what}: {e}", program.display());
        rustix::process::set_child_subreaper(Some(rustix::process::getpid()))
            .map_err(|e| named("subreaper", &e))?;
        let log = rustix::fs::memfd_create("log", rustix::fs::MemfdFlags::CLOEXEC);
        let mut log = File::from(log.map_err(|e| named("memfd", &e))?);
        let mut command = Command::new(program);
        command.args(args).stdin(Stdio::null()).stdout(Stdio::piped());
        command.stderr(log.try_clone().map_err(|e| named("memfd", &e))?);
        // SAFETY: one system call that takes no pointer.
        unsafe {
            command.pre_exec(|| {
                libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL);
                Ok(())
            })
        };
        let mut child = command.spawn().map_err(|e| named("not started", &e))?;
        let Some(mut stdout) = child.stdout.take() else { return Err(named("no stdout", &"")) };
        let port = read_port(&mut stdout);
        let addr = SocketAddrV4::new(Ipv4Addr::LOCALHOST, port.unwrap_or(0));
        let server = Server { child, _stdout: stdout, addr };
        if port.is_some() {
            return Ok(server);
        }
        server.stop()?;
        let mut said = String::new();
        let _ = log.rewind().and_then(|()| log.read_to_string(&mut said));
        Err(named("printed no port", &said.lines().last().unwrap_or("nothing on stderr")))
    }

    /// Ends the server, and whatever it left; an error if it had to be forced or something was left.
    pub fn stop(mut self) -> Result<(), String> {
        self.end()
    }

    /// The server's process id.
    pub fn pid(&self) -> i32 {
        self.child.id() as i32
    }

    fn end(&mut self) -> Result<(), String> {
        if matches!(self.child.try_wait(), Ok(Some(_))) {
            return no_orphans();
        }
        signal(self.pid(), Signal::TERM);
        let forced = !ended_within(self.pid(), PATIENCE);
        let below = if forced { names(&procfs::descendants(self.pid())) } else { String::new() };
        let _ = self.child.kill();
        let _ = self.child.wait();
        no_orphans()?;
        if forced {
            return Err(format!("did not end within {PATIENCE:?} of SIGTERM, had below it: {below}"));
        }
        Ok(())
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.end();
    }
}

/// The first run of digits at the end of a line.
fn read_port(stdout: &mut ChildStdout) -> Option<u16> {
    let deadline = Instant::now() + PATIENCE;
    let mut line = String::new();
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        let mut ready = [PollFd::new(&*stdout, PollFlags::IN)];
        if poll(&mut ready, Some(&Timespec::try_from(left).ok()?)).ok()? == 0 {
            return None;
        }
        let mut byte = [0];
        if stdout.read(&mut byte).ok()? == 0 {
            return None;
        }
        if byte != *b"\n" {
            line.push(char::from(byte[0]));
            continue;
        }
        let start = line.trim_end_matches(|c: char| c.is_ascii_digit()).len();
        if let Ok(port) = line[start..].parse() {
            return Some(port);
        }
        line.clear();
    }
}

fn signal(pid: i32, signal: Signal) {
    if let Some(fd) = Pid::from_raw(pid).and_then(|pid| pidfd_open(pid, PidfdFlags::empty()).ok()) {
        let _ = pidfd_send_signal(fd, signal);
    }
}

fn ended_within(pid: i32, limit: Duration) -> bool {
    let Some(fd) = Pid::from_raw(pid).and_then(|pid| pidfd_open(pid, PidfdFlags::empty()).ok()) else {
        return true;
    };
    let Ok(limit) = Timespec::try_from(limit) else { return false };
    matches!(poll(&mut [PollFd::new(&fd, PollFlags::IN)], Some(&limit)), Ok(1))
}

/// Waits until this process has no descendants, and reaps the adopted ones; what stays is killed and named.
fn no_orphans() -> Result<(), String> {
    let me = rustix::process::getpid().as_raw_nonzero().get();
    let deadline = Instant::now() + PATIENCE;
    loop {
        let left = procfs::descendants(me);
        if left.is_empty() {
            return Ok(());
        }
        let late = Instant::now() > deadline;
        for stat in &left {
            if late {
                signal(stat.pid, Signal::KILL);
            }
            if stat.ppid == me {
                ended_within(stat.pid, Duration::from_millis(20));
                let _ = rustix::process::waitpid(Pid::from_raw(stat.pid), WaitOptions::NOHANG);
            }
        }
        if late {
            return Err(format!("left behind after {PATIENCE:?}: {}", names(&left)));
        }
    }
}

fn names(processes: &[procfs::Stat]) -> String {
    let one = |s: &procfs::Stat| format!("{} {} ({})", s.pid, s.comm, s.state);
    processes.iter().map(one).collect::<Vec<_>>().join(", ")
}
