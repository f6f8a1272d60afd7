//! Standard input to the peer and the peer to standard output, both at once, byte by byte.
//!
//! At the end of the input the sending half is closed. The end is the peer's: when it has said everything, this
//! is over, though there may be input that nobody has written yet. Input that is on its way then is an error
//! unless the peer takes it.

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
    state: Mutex<Sending>,
    changed: Condvar,
}

/// How long input that is on its way may take once the peer has said everything.
const LINGER: Duration = Duration::from_secs(1);

pub(super) fn run(stream: &Stream) -> u8 {
    let (input, output) = match (own(io::stdin().as_fd()), own(io::stdout().as_fd())) {
        (Ok(input), Ok(output)) => (input, output),
        (Err(error), _) | (_, Err(error)) => {
            log::error(format_args!("cannot use standard input and output: {error}"));
            return exit::TOOL_FAILED;
        }
    };
    let progress = Progress { state: Mutex::new(Sending::Idle), changed: Condvar::new() };
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
    fn set(&self, state: Sending) {
        *self.state.lock().unwrap_or_else(PoisonError::into_inner) = state;
        self.changed.notify_all();
    }

    /// The state once input that is on its way has arrived, or after a while.
    fn settled(&self) -> Sending {
        let state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let busy = |state: &mut Sending| *state == Sending::Busy;
        match self.changed.wait_timeout_while(state, LINGER, busy) {
            Ok((state, _)) => *state,
            Err(poisoned) => *poisoned.into_inner().0,
        }
    }
}
