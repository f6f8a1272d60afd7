//! A running `forkyard serve`, its log, and its end.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpStream;
use std::os::unix::process::{CommandExt as _, ExitStatusExt as _};
use std::process::{Child, Command};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::thread;
use std::time::{Duration, Instant};

use super::{LIMIT, Signal, forkyard, read_until, signal};

pub(crate) struct Server {
    child: Option<Child>,
    log: Receiver<String>,
    pub(crate) seen: String,
    pub(crate) port: u16,
}

impl Server {
    /// A server on a free port, with these arguments more.
    pub(crate) fn start(args: &[&str]) -> Server {
        let mut command = forkyard();
        command.args(["serve", "-1", "-b", "127.0.0.1:0"]).args(args);
        Server::spawn(command)
    }

    /// A server by this command, which prints its port.
    pub(crate) fn spawn(mut command: Command) -> Server {
        // A group of its own, as an interactive shell would give it.
        let mut child = command.process_group(0).spawn().expect("the server starts");
        let mut stdout = child.stdout.take().expect("a pipe");
        let stderr = BufReader::new(child.stderr.take().expect("a pipe"));
        let (sender, log) = channel();
        thread::spawn(move || stderr.lines().map_while(Result::ok).try_for_each(|line| sender.send(line)));
        let (text, reader) = channel();
        thread::spawn(move || {
            let mut line = Vec::new();
            let mut byte = [0];
            while line.last() != Some(&b'\n') && matches!(stdout.read(&mut byte), Ok(1)) {
                line.push(byte[0]);
            }
            text.send(String::from_utf8_lossy(&line).into_owned())
        });
        let port = reader.recv_timeout(LIMIT);
        let Some(port) = port.ok().and_then(|line| line.trim_end().parse().ok()) else {
            let _ = child.kill();
            let _ = child.wait();
            panic!("no port within {LIMIT:?}; log: {:?}", log.try_iter().collect::<Vec<_>>());
        };
        Server { child: Some(child), log, seen: String::new(), port }
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.as_ref().expect("it runs").id()
    }

    pub(crate) fn connect(&self) -> TcpStream {
        let stream = TcpStream::connect(("127.0.0.1", self.port)).expect("a connection");
        stream.set_read_timeout(Some(LIMIT)).expect("a time-out");
        stream
    }

    /// Sends these lines on a new connection and gives the answer.
    pub(crate) fn ask(&self, lines: &str) -> String {
        let mut stream = self.connect();
        stream.write_all(lines.as_bytes()).expect("it takes them");
        stream.shutdown(std::net::Shutdown::Write).expect("half a close");
        let mut answer = String::new();
        stream.read_to_string(&mut answer).expect("an answer");
        answer
    }

    pub(crate) fn signal(&self, which: Signal) {
        signal(self.pid(), which);
    }

    /// Waits until the log says this, after what was waited for before.
    #[track_caller]
    pub(crate) fn logs(&mut self, words: &str) -> String {
        let deadline = Instant::now() + LIMIT;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            match self.log.recv_timeout(left) {
                Ok(line) => {
                    self.seen.push_str(&line);
                    self.seen.push('\n');
                    if line.contains(words) {
                        return line;
                    }
                }
                Err(_) => panic!("\"{words}\" is not in the log: {}", self.seen),
            }
        }
    }

    /// Waits for the end and for that of everything it started; gives the signal it ended by, or its code.
    #[track_caller]
    pub(crate) fn ends(self) -> Result<Signal, i32> {
        self.ends_with_log().0
    }

    /// The same, and the rest of the log.
    #[track_caller]
    pub(crate) fn ends_with_log(mut self) -> (Result<Signal, i32>, String) {
        let status = super::end(self.child.take().expect("it runs")).status;
        // Every process that it started has its standard error; the log ends with the last of them.
        let deadline = Instant::now() + LIMIT;
        let mut rest = String::new();
        loop {
            match self.log.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
                Ok(line) => rest = rest + &line + "\n",
                Err(RecvTimeoutError::Disconnected) => break,
                Err(RecvTimeoutError::Timeout) => panic!("a process is left after {status}"),
            }
        }
        assert!(!rest.contains("panicked"), "{rest}");
        (status.signal().and_then(Signal::from_named_raw).ok_or(status.code().unwrap_or(-1)), rest)
    }

    /// Ends it gracefully and checks how.
    #[track_caller]
    pub(crate) fn stop(self) {
        self.signal(Signal::TERM);
        assert_eq!(self.ends(), Ok(Signal::TERM));
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// Sends a line and checks its answer.
#[track_caller]
pub(crate) fn converse(stream: &mut TcpStream, line: &str, answer: &str) {
    stream.write_all(line.as_bytes()).expect("it takes a line");
    assert_eq!(read_until(stream, "\n"), answer);
}

/// Waits until nothing more comes because the peer has closed, in whatever way.
#[track_caller]
pub(crate) fn is_closed(stream: &mut TcpStream) {
    let mut byte = [0];
    match stream.read(&mut byte) {
        Ok(0) => {}
        Err(error) if error.kind() == std::io::ErrorKind::ConnectionReset => {}
        other => panic!("not closed: {other:?}"),
    }
}

/// So long nothing may happen before we believe that nothing happens.
pub(crate) const QUIET: Duration = Duration::from_millis(300);
