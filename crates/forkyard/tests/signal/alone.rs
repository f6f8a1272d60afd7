//! Runs a test's body in a new copy of the test binary, with a deadline.

use std::process::{Command, Output, Stdio};
use std::sync::mpsc;
use std::time::Duration;

use forkyard::signal::{self, Signal, SignalSet};

const MARKER: &str = "FORKYARD_TEST_ALONE";
const DEADLINE: Duration = Duration::from_secs(60);

/// Runs `body` alone; `name` is the path of the calling test. What the process printed is returned to the
/// harness, and `None` inside.
pub(crate) fn alone(name: &str, body: fn()) -> Option<Output> {
    alone_blocking(name, SignalSet::EMPTY, body)
}

/// The same, with these signals blocked in every thread from the start, the harness's included.
pub(crate) fn alone_blocking(name: &str, blocked: SignalSet, body: fn()) -> Option<Output> {
    if std::env::var_os(MARKER).is_some_and(|marker| marker == name) {
        body();
        return None;
    }
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args([name, "--exact", "--nocapture"]).env(MARKER, name);
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    let child = {
        let _mask = signal::block(blocked);
        command.spawn().unwrap()
    };
    let pid = child.id().cast_signed();
    let (send, receive) = mpsc::channel();
    std::thread::spawn(move || send.send(child.wait_with_output()));
    let output = match receive.recv_timeout(DEADLINE) {
        Ok(output) => output.unwrap(),
        Err(_) => {
            // SAFETY: passes numbers; the child is not reaped, its waiter still waits.
            unsafe { libc::kill(pid, libc::SIGKILL) };
            panic!("{name} hangs");
        }
    };
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let told = format!("{}\n{}", text(&output.stdout), text(&output.stderr));
    assert!(output.status.success() && told.contains("1 passed"), "{:?}\n{told}", output.status);
    Some(output)
}

/// Waits for a message from a handler.
pub(crate) fn told<T>(receiver: &mpsc::Receiver<T>) -> T {
    receiver.recv_timeout(DEADLINE).unwrap()
}

/// This process.
pub(crate) fn me() -> forkyard_sys::Pid {
    forkyard_sys::Pid::from_raw(std::process::id().cast_signed()).unwrap()
}

/// A real-time signal.
pub(crate) fn realtime(n: i32) -> Signal {
    Signal::realtime(n).unwrap()
}
