//! Standard input to the peer and the peer to standard output, both at once, byte by byte.
//!
//! At the end of the input the sending half is closed. The end is the peer's: when it has said everything, this
//! is over. Input that is under way then may still arrive as long as the peer goes on taking it; that it did not
//! take it is an error. Input that nobody has written yet is not waited for.

use std::fs::File;
use std::io::{self, Read as _, Write as _};
use std::os::fd::{AsFd as _, BorrowedFd};
use std::sync::{Condvar, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use super::stream::{Stream, retry};
use crate::{exit, log};

/// How far the sending side is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Sending {
    /// Waiting for input.
    Idle,
    /// Handing input to the peer.
    Busy,
    /// All input was handed over.
    Done,
    /// The peer did not take it.
    Refused,
    /// The input could not be read; the reason was told.
    Unreadable,
}

struct Progress {
    /// The state, and how many pieces of input were handed over.
    state: Mutex<(Sending, u64)>,
    changed: Condvar,
}

/// How long the sending side may stand still once the peer has said everything.
const STANDSTILL: Duration = Duration::from_millis(250);

pub(super) fn run(stream: &Stream) -> u8 {
    let (input, output) = match (own(io::stdin().as_fd()), own(io::stdout().as_fd())) {
        (Ok(input), Ok(output)) => (input, output),
        (Err(error), _) | (_, Err(error)) => {
            log::error(format_args!("cannot use standard input and output: {error}"));
            return exit::TOOL_FAILED;
        }
    };
    let progress = Progress { state: Mutex::new((Sending::Idle, 0)), changed: Condvar::new() };
    thread::scope(|scope| {
        let sender = thread::Builder::new()
            .name("input".into())
            .spawn_scoped(scope, || send(input, stream, &progress));
        let code = match sender {
            Ok(_) => receive(stream, output, &progress),
            Err(error) => {
                log::error(format_args!("cannot start the thread that reads the input: {error}"));
                exit::TOOL_FAILED
            }
        };
        // The sender may be waiting for input that never comes; the process ends without it.
        std::process::exit(i32::from(code))
    })
}

/// An unbuffered file over a standard stream.
fn own(fd: BorrowedFd<'_>) -> io::Result<File> {
    fd.try_clone_to_owned().map(File::from)
}

fn send(mut input: File, stream: &Stream, progress: &Progress) {
    let mut buffer = vec![0; 64 << 10];
    let end = loop {
        match retry(|| input.read(&mut buffer)) {
            Ok(0) => {
                // It fails only where the connection has broken, which the receiving side tells.
                let _ = stream.end_sending();
                break Sending::Done;
            }
            Ok(length) => {
                progress.set(Sending::Busy);
                if let Err(error) = stream.send(&buffer[..length]) {
                    log::detail(format_args!("the peer takes no more input: {error}"));
                    break Sending::Refused;
                }
                progress.set(Sending::Idle);
            }
            Err(error) => {
                log::error(format_args!("cannot read standard input: {error}"));
                let _ = stream.end_sending();
                break Sending::Unreadable;
            }
        }
    };
    progress.set(end);
}

fn receive(stream: &Stream, mut output: File, progress: &Progress) -> u8 {
    let mut buffer = vec![0; 64 << 10];
    loop {
        let length = match stream.receive(&mut buffer) {
            Ok(0) => break,
            Ok(length) => length,
            Err(error) => return super::broke(&error),
        };
        match output.write_all(&buffer[..length]) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => return exit::OK,
            Err(error) => {
                log::error(format_args!("cannot write to standard output: {error}"));
                return exit::TOOL_FAILED;
            }
        }
    }
    match progress.settled() {
        Sending::Idle | Sending::Done => exit::OK,
        Sending::Unreadable => exit::FAILED,
        Sending::Busy | Sending::Refused => {
            log::error(format_args!("closed by the peer before it had taken all input"));
            exit::FAILED
        }
    }
}

impl Progress {
    fn set(&self, to: Sending) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let handed_over = state.0 == Sending::Busy && to == Sending::Idle;
        *state = (to, state.1 + u64::from(handed_over));
        self.changed.notify_all();
    }

    /// How far the sending side comes: to its end, or to where it stands still.
    fn settled(&self) -> Sending {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        loop {
            let before = *state;
            let unchanged = |now: &mut (Sending, u64)| {
                matches!(now.0, Sending::Idle | Sending::Busy) && now.1 == before.1
            };
            let waited = self.changed.wait_timeout_while(state, STANDSTILL, unchanged);
            let (now, timeout) = waited.unwrap_or_else(PoisonError::into_inner);
            if timeout.timed_out() || !matches!(now.0, Sending::Idle | Sending::Busy) {
                return now.0;
            }
            state = now;
        }
    }
}
