//! A zygote whose requester was killed before it found out that it is one ends, and does not run main.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by a panic")]

use std::time::Duration;

use forkyard::process::{Output, Program, Stdio};

/// What a zygote finds at its start, in a program whose parent (the shell) has not made the socket.
fn orphan(family: &str) -> Output {
    let (_ours, theirs) = forkyard_sys::socket::pair().unwrap();
    let this = std::env::current_exe().unwrap();
    Program::new("sh")
        .args(["-c", "\"$0\" --list; echo ended: $?"])
        .arg(this)
        .env("FORKYARD_ZYGOTE", "template")
        .env("FORKYARD_FAMILY", family)
        .stdin(Stdio::Null)
        .stdout(Stdio::Pipe)
        .place_fd(theirs, 3)
        .start()
        .unwrap()
        .communicate_timeout("", Duration::from_secs(30))
        .unwrap()
}

#[test]
fn it_ends_without_running_main() {
    assert_eq!(String::from_utf8_lossy(&orphan(&"0".repeat(32)).stdout), "ended: 0\n");
}

#[test]
fn a_stray_variable_is_an_ordinary_start() {
    let output = orphan("stray");
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(text.contains("a_stray_variable_is_an_ordinary_start: test"), "{text}");
    assert!(text.ends_with("ended: 0\n"), "{text}");
}
