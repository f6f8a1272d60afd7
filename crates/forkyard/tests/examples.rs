//! Every example runs, ends in time and prints what its text promises.
//!
//! The examples are built by `cargo test` together with this file; run alone, this test builds them first.

use std::io::Read;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::{LazyLock, mpsc};
use std::thread;
use std::time::Duration;

const DEADLINE: Duration = Duration::from_secs(30);

/// Runs an example to its end; its output, standard error after standard output.
#[track_caller]
fn output_of(example: &str) -> String {
    let mut child = start(example, &[]);
    let stdout = in_background(child.stdout.take().unwrap());
    let stderr = in_background(child.stderr.take().unwrap());
    let (Ok(stdout), Ok(stderr)) = (stdout.recv_timeout(DEADLINE), stderr.recv_timeout(DEADLINE)) else {
        let _ = child.kill();
        panic!("{example}: its output was still open after {DEADLINE:?}");
    };
    let status = child.wait().unwrap();
    let output = stdout + &stderr;
    assert!(status.success(), "{example} ended with {status} and said:\n{output}");
    output
}

/// Asserts that the parts occur in the output, in this order.
#[track_caller]
fn assert_in_order(output: &str, parts: &[&str]) {
    let mut rest = output;
    for part in parts {
        let Some(at) = rest.find(part) else { panic!("{part:?} is missing or out of order in:\n{output}") };
        rest = &rest[at + part.len()..];
    }
}

fn start(example: &str, arguments: &[&str]) -> Child {
    Command::new(path_of(example))
        .args(arguments)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap_or_else(|error| panic!("start example {example}: {error}"))
}

fn path_of(example: &str) -> PathBuf {
    static BUILT: LazyLock<bool> = LazyLock::new(|| {
        let mut cargo = Command::new(env!("CARGO"));
        cargo.args(["build", "--quiet", "--workspace", "--examples"]);
        if !cfg!(debug_assertions) {
            cargo.arg("--release");
        }
        cargo.status().is_ok_and(|status| status.success())
    });
    assert!(*BUILT, "the examples do not build");
    // target/<profile>/deps/<this test> → target/<profile>/examples/<example>
    let this = std::env::current_exe().unwrap();
    this.parent().unwrap().parent().unwrap().join("examples").join(example)
}

fn in_background(mut stream: impl Read + Send + 'static) -> mpsc::Receiver<String> {
    let (sender, receiver) = mpsc::channel();
    thread::spawn(move || {
        let mut text = Vec::new();
        let _ = stream.read_to_end(&mut text);
        let _ = sender.send(String::from_utf8_lossy(&text).into_owned());
    });
    receiver
}

#[test]
fn signals_and_alarm() {
    let output = output_of("03_signals");
    assert_in_order(&output, &["handled SIGUSR1", "replaced an alarm that was due in", "the alarm rings"]);
    assert_in_order(&output, &["pending: {SIGUSR2}", "took SIGUSR2", "still here"]);
}
