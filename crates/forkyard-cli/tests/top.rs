//! Claims about `forkyard top`.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by a panic")]

mod common;

use std::io::BufRead;
use std::time::Instant;

use common::server::Server;
use common::{LIMIT, Signal, end, forkyard, run, signal};
use forkyard_cli::exit;

/// The family of a running server, which may be stopped.
fn family_of(pid: u32) -> serde_json::Value {
    let text = run(["top", "--once", "--json", &pid.to_string()]).code(exit::OK).stdout;
    serde_json::from_str(&text).unwrap()
}

#[test]
fn a_stopped_family_is_shown_as_well() {
    let server = Server::start(&[]);
    let pid = server.pid();
    for stop in [false, true] {
        if stop {
            signal(pid, Signal::STOP);
        }
        let deadline = Instant::now() + LIMIT;
        let (family, master) = loop {
            let family = family_of(pid);
            let processes = family["processes"].as_array().unwrap();
            let master = processes.iter().find(|process| process["pid"] == pid).unwrap().clone();
            // A signal takes its time to stop a process.
            if !stop || master["state"] == "T" {
                break (family, master);
            }
            assert!(Instant::now() < deadline, "{master}");
        };
        let processes = family["processes"].as_array().unwrap();
        let since_1970 = std::time::UNIX_EPOCH.elapsed().unwrap().as_secs_f64();
        assert!(master["started"].as_f64().is_some_and(|at| at > 1e9 && at <= since_1970), "{master}");
        assert!(master["pss"].as_u64().is_some_and(|pss| pss > 0), "{master}");
        assert!(processes.iter().any(|process| process["parent"] == pid), "{family:#}");
        assert!(family["arena"]["used"].as_u64() < family["arena"]["size"].as_u64());
        let table = run(["top", "--once", &pid.to_string()]).code(exit::OK).stdout;
        assert!(table.contains("PID") && table.contains(&pid.to_string()), "{table}");
    }
    signal(pid, Signal::CONT);
    server.stop();
}

#[test]
fn it_ends_when_its_reader_has_gone() {
    let server = Server::start(&[]);
    let mut child = forkyard().args(["top", "--interval", "1ms", &server.pid().to_string()]).spawn().unwrap();
    // Its first look is read, and no other.
    std::io::BufReader::new(child.stdout.take().unwrap()).read_line(&mut String::new()).unwrap();
    end(child).code(exit::OK);
    server.stop();
}

#[test]
fn a_process_without_a_family_is_an_error_that_says_so() {
    let own = std::process::id().to_string();
    run(["top", "--once", &own]).code(exit::NOT_STARTED).says("takes part in none");
    run(["top", "--once", "4194304"]).code(exit::NOT_STARTED).says("no such process");
    run(["top", "--once", "0"]).code(exit::USAGE);
    run(["top"]).code(exit::USAGE);
}
