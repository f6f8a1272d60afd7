//! Running the built command, with a deadline for everything.
#![allow(
    dead_code,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test fails by a panic"
)]

pub(crate) mod server;

use std::ffi::OsStr;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::process::{Child, Command, Output, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

pub(crate) use rustix::process::Signal;
use rustix::process::{Pid, kill_process};

/// How long anything may take before it counts as a hang.
pub(crate) const LIMIT: Duration = Duration::from_secs(30);

/// The built command, in an environment without settings of ours.
pub(crate) fn forkyard() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_forkyard"));
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("FORKYARD_") {
            command.env_remove(name);
        }
    }
    command.env_remove("NOTIFY_SOCKET").env_remove("LISTEN_FDS").env_remove("LISTEN_PID");
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

/// Runs the command with these arguments to its end.
pub(crate) fn run(args: impl IntoIterator<Item = impl AsRef<OsStr>>) -> Ended {
    let mut command = forkyard();
    command.args(args);
    end(command.spawn().expect("the command starts"))
}

/// Runs the command with this input to its end.
pub(crate) fn run_with_input(args: &[&str], input: &[u8]) -> Ended {
    let mut child = forkyard().args(args).stdin(Stdio::piped()).spawn().expect("the command starts");
    let mut stdin = child.stdin.take().expect("a pipe");
    let input = input.to_vec();
    // A command that leaves early breaks the pipe, which is its right.
    thread::spawn(move || drop(stdin.write_all(&input)));
    end(child)
}

/// What an ended command left.
#[derive(Debug)]
pub(crate) struct Ended {
    pub(crate) status: std::process::ExitStatus,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl Ended {
    /// Checks the exit code and gives itself back.
    #[track_caller]
    pub(crate) fn code(self, code: u8) -> Ended {
        assert_eq!(self.status.code(), Some(i32::from(code)), "{self:?}");
        self
    }

    /// Checks that the error output says this.
    #[track_caller]
    pub(crate) fn says(self, words: &str) -> Ended {
        assert!(self.stderr.contains(words), "\"{words}\" is not in: {self:?}");
        self
    }
}

/// Waits for the end; a command that does not end is killed and fails the test.
pub(crate) fn end(child: Child) -> Ended {
    let pid = child.id();
    let (done, ended) = mpsc::channel();
    thread::spawn(move || done.send(child.wait_with_output()));
    let output = ended.recv_timeout(LIMIT).unwrap_or_else(|_| {
        signal(pid, Signal::KILL);
        panic!("the command did not end within {LIMIT:?}")
    });
    let Output { status, stdout, stderr } = output.expect("its output is read");
    let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
    Ended { status, stdout: text(stdout), stderr: text(stderr) }
}

/// Sends a signal to a child that has not been waited for, so that its number is still its own.
pub(crate) fn signal(pid: u32, signal: Signal) {
    let pid = Pid::from_raw(pid as i32).expect("a pid");
    kill_process(pid, signal).expect("the child is there");
}

/// A server on a free port that treats its one connection so; gives its address.
pub(crate) fn serve_one(treat: impl FnOnce(TcpStream) + Send + 'static) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = listener.local_addr().expect("its address").to_string();
    thread::spawn(move || {
        let (stream, _) = listener.accept().expect("a connection");
        stream.set_read_timeout(Some(LIMIT)).expect("a time-out");
        treat(stream);
    });
    address
}

/// Reads until these words have come, and gives everything read.
#[track_caller]
pub(crate) fn read_until(from: &mut impl Read, words: &str) -> String {
    let mut seen = Vec::new();
    let mut byte = [0];
    while !String::from_utf8_lossy(&seen).contains(words) {
        match from.read(&mut byte) {
            Ok(1) => seen.push(byte[0]),
            other => panic!("{other:?} before \"{words}\"; so far: {:?}", String::from_utf8_lossy(&seen)),
        }
    }
    String::from_utf8_lossy(&seen).into_owned()
}
