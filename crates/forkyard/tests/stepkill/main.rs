//! The single-step kill test of starting processes: whoever takes part is killed at each point of what it does, and
//! the others have to go on.
//!
//! Arguments choose operations by a part of their names. With `FORKYARD_STEPKILL=all` every instruction is a point,
//! which takes long.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by a panic")]

mod child;
#[path = "../common/mod.rs"]
mod common;
mod control;
mod family;
mod guard;
mod points;
mod report;
mod requester;
#[allow(dead_code, reason = "the test of shared memory has parts of its own")]
mod trace;
mod zygote;

/// One part of the test: true if it found what it should.
type Part = fn() -> bool;

const PARTS: [(&str, Part); 16] = [
    ("zygote-ahead", zygote::making_the_next_spare),
    ("zygote-two", zygote::making_two),
    ("zygote-direct", zygote::making_a_child),
    ("zygote-without-statuses", zygote::without_statuses),
    ("child", child::with_a_small_value),
    ("child-direct", child::with_a_long_argument),
    ("child-with-a-packet", child::with_a_packet),
    ("child-with-a-memfd", child::with_a_memfd),
    ("child-with-a-handle", child::with_a_handle),
    ("child-number-again", child::whose_number_is_used_again),
    ("family-first", family::first_start),
    ("family-later", family::later_start),
    ("family-not-daemonic", family::started_and_not_daemonic),
    ("family-zygote", family::zygote_in_the_making),
    ("guard", guard::programs_of_daemons),
    ("control", control::a_naive_start_loses_children),
];

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match arguments.first().map(String::as_str) {
        Some("requester") => return requester::main(),
        Some("naive-requester") => return control::main(),
        _ => {}
    }
    if let Some(why) = reason_to_skip() {
        println!("skipped: {why}");
        return;
    }
    inherit_orphans();
    report::watch();
    let chosen = |name: &str| arguments.is_empty() || arguments.iter().any(|part| name.contains(part));
    let wrong: Vec<&str> =
        PARTS.iter().filter(|(name, part)| chosen(name) && !part()).map(|(name, _)| *name).collect();
    assert!(wrong.is_empty(), "wrong: {wrong:?}");
}

/// Why this machine, or this run, has nothing to show here.
fn reason_to_skip() -> Option<String> {
    use forkyard_sys::fallback::{Feature, VARIABLE, forced};
    if forced(Feature::CloneParent) {
        return Some(format!("{VARIABLE} leaves no zygote to kill"));
    }
    let mut child = std::process::Command::new("cat").stdin(std::process::Stdio::piped()).spawn().ok()?;
    let seized = trace::Tracee::seize(i32::try_from(child.id()).ok()?, false);
    child.kill().ok()?;
    child.wait().ok()?;
    seized.err().map(|error| format!("ptrace is not allowed here: {error}"))
}

/// Whoever loses its parent becomes this process's child, so nothing is overlooked.
#[allow(unsafe_code)]
fn inherit_orphans() {
    // SAFETY: numbers only.
    unsafe { libc::prctl(libc::PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) };
}
