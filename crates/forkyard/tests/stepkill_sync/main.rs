//! The single-step kill test of shared memory and synchronisation: for every operation, a victim is killed after each
//! instruction of it; whoever waits and whoever comes has to go on, what must be exact is exact, and nothing is left.
//!
//! Arguments choose operations by a part of their names. With `FORKYARD_STEPKILL=all` every instruction is a point, with
//! `3/16` one in 16, from the third on.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by a panic")]

mod actor;
mod cases;
mod channel;
#[path = "../common/mod.rs"]
mod common;
mod founder;
mod joining;
mod marker;
mod naive;
mod points;
#[path = "../stepkill/report.rs"]
#[allow(dead_code, reason = "the other test has parts of its own")]
mod report;
mod stage;
mod sweep;
#[path = "../stepkill/trace.rs"]
#[allow(dead_code, reason = "the other test has parts of its own")]
mod trace;
mod words;

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if arguments.first().is_some_and(|first| first == founder::ROLE) {
        return founder::main();
    }
    if let Some(why) = reason_to_skip() {
        println!("skipped: {why}");
        return;
    }
    report::watch();
    stay_on_one_cpu();
    let chosen = |name: &str| arguments.is_empty() || arguments.iter().any(|part| name.contains(part));
    let mut wrong = Vec::new();
    for case in cases::all().into_iter().filter(|case| chosen(case.name)) {
        let failed = sweep::sweep(&case);
        if (failed > 0) != case.control {
            wrong.push(case.name);
        }
    }
    assert!(wrong.is_empty(), "wrong: {wrong:?}");
}

/// A step hands over from the tester to the victim and back: far quicker on one CPU than from one to another.
#[allow(unsafe_code)]
fn stay_on_one_cpu() {
    // SAFETY: all-zero is an empty set, and the calls fill and read the live local variable.
    unsafe {
        let mut cpus: libc::cpu_set_t = std::mem::zeroed();
        let cpu = usize::try_from(libc::sched_getcpu()).unwrap_or(0);
        libc::CPU_SET(cpu, &mut cpus);
        libc::sched_setaffinity(0, size_of_val(&cpus), &raw const cpus);
    }
}

/// Why this machine has nothing to show here.
fn reason_to_skip() -> Option<String> {
    let mut child = std::process::Command::new("cat").stdin(std::process::Stdio::piped()).spawn().ok()?;
    let seized = trace::Tracee::seize(i32::try_from(child.id()).ok()?, false);
    child.kill().ok()?;
    child.wait().ok()?;
    seized.err().map(|error| format!("ptrace is not allowed here: {error}"))
}
