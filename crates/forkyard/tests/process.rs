//! Processes: values, endings, waiting, identity.

use std::time::Duration;

use forkyard::process::{self, Builder, Ended, Start};

#[forkyard::task]
fn add(a: u64, b: u64) -> u64 {
    a + b
}

#[forkyard::task]
fn repeat(text: String, times: usize) -> String {
    text.repeat(times)
}

#[forkyard::task]
fn fail(how: String) -> u8 {
    match how.as_str() {
        "panic" => panic!("no more {}", "tea"),
        "exit" => process::exit(3),
        "_exit" => process::_exit(4),
        "abort" => std::process::abort(),
        _ => 0,
    }
}

const METHODS: [Start; 2] = [Start::Zygote, Start::Spawn];

#[test]
fn a_value_travels_back() {
    for start in METHODS {
        let child = Builder::new().start(start).spawn(add, (2, 40)).unwrap();
        assert_eq!(child.join().unwrap(), 42);
        assert!(child.exit_status().unwrap().success());
        assert!(child.join().unwrap_err().is_already_joined());
    }
}

#[test]
fn a_large_value_and_large_arguments_travel() {
    for start in METHODS {
        let text = "x".repeat(300_000);
        let child = Builder::new().start(start).spawn(repeat, (text, 10)).unwrap();
        assert_eq!(child.join().unwrap().len(), 3_000_000);
    }
}

#[test]
fn endings_are_told_apart() {
    for start in METHODS {
        let run = |how: &str| {
            Builder::new().start(start).spawn(fail, (how.to_owned(),)).unwrap().join().unwrap_err()
        };
        let error = run("panic");
        let panic = error.panic().unwrap();
        assert_eq!(panic.message, "no more tea");
        assert!(panic.location.as_ref().unwrap().contains("tests/process.rs"), "{panic:?}");
        assert!(panic.backtrace.is_some());
        assert_eq!(error.exit_status().unwrap().code(), Some(101));
        let error = run("exit");
        assert_eq!((error.ended(), error.exit_status().unwrap().code()), (Some(Ended::Exit), Some(3)));
        let error = run("_exit");
        assert_eq!((error.ended(), error.exit_status().unwrap().code()), (Some(Ended::QuickExit), Some(4)));
        let error = run("abort");
        assert_eq!((error.ended(), error.exit_status().unwrap().signal()), (Some(Ended::Signal), Some(6)));
    }
}

#[forkyard::task]
fn sleep_for_ever() {
    loop {
        std::thread::park();
    }
}

#[test]
fn a_killed_child_is_told_with_its_signal() {
    for start in METHODS {
        let child = Builder::new().start(start).spawn(sleep_for_ever, ()).unwrap();
        assert!(child.is_alive());
        assert!(child.join_timeout(Duration::from_millis(20)).unwrap_err().is_timeout());
        child.kill().unwrap();
        let error = child.join().unwrap_err();
        assert_eq!(error.exit_status().unwrap().signal(), Some(9));
    }
}
