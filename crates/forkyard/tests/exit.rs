//! How a process ends: exit hooks, flushed output.

#![allow(
    unsafe_code,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test fails by a panic; each unsafe block has its own reason"
)]

mod common;

use std::io::{Read, Write};
use std::os::fd::OwnedFd;

use common::{METHODS, builder, isolated};
use forkyard::process::{self, Ended, Fd, Start, at_exit};

/// A hook that writes one letter.
fn letter(out: &Fd, letter: &'static str) -> impl FnOnce() + Send + use<> {
    let mut out = std::fs::File::from(out.try_clone().unwrap());
    move || out.write_all(letter.as_bytes()).unwrap()
}

#[forkyard::task]
fn hooked(out: Fd, how: String) -> u8 {
    at_exit(letter(&out, "a"));
    at_exit(letter(&out, "b"));
    let late = out.try_clone().unwrap();
    at_exit(move || {
        letter(&late, "c")();
        // One that is registered by a hook runs, too.
        at_exit(letter(&late, "d"));
    });
    drop(out);
    end(&how)
}

fn end(how: &str) -> u8 {
    match how {
        "exit" => process::exit(3),
        "std exit" => std::process::exit(3),
        "_exit" => process::_exit(3),
        "panic" => panic!("on purpose"),
        // SAFETY: a function without arguments that does not return.
        "abort" => unsafe { libc::abort() },
        "kill" => common::kill(common::own_pid(), 9),
        _ => {}
    }
    0
}

/// What the hooks of a child that ends like this wrote, and how it ended.
fn told(start: Start, how: &str) -> (String, Option<Ended>) {
    let (mut reader, writer) = std::io::pipe().unwrap();
    let child = builder(start).spawn(hooked, (writer.into(), how.to_owned())).unwrap();
    let mut text = String::new();
    reader.read_to_string(&mut text).unwrap();
    let result = child.join();
    (text, result.err().and_then(|error| error.ended()))
}

#[forkyard::task]
fn hooks() {
    for start in METHODS {
        assert_eq!(told(start, "return"), ("cdba".to_owned(), None), "{start:?}");
        assert_eq!(told(start, "panic"), ("cdba".to_owned(), None), "{start:?}");
        assert_eq!(told(start, "exit"), ("cdba".to_owned(), Some(Ended::Exit)), "{start:?}");
        assert_eq!(told(start, "std exit"), ("cdba".to_owned(), Some(Ended::Exit)), "{start:?}");
        assert_eq!(told(start, "_exit"), (String::new(), Some(Ended::QuickExit)), "{start:?}");
        assert_eq!(told(start, "abort"), (String::new(), Some(Ended::Signal)), "{start:?}");
        assert_eq!(told(start, "kill"), (String::new(), Some(Ended::Signal)), "{start:?}");
    }
}

#[test]
fn exit_hooks_run_last_first_when_a_process_ends_by_itself_and_only_then() {
    isolated(hooks);
}

#[forkyard::task]
fn has_no_hooks() {}

#[forkyard::task]
fn parent_with_hooks(out: Fd) {
    at_exit(letter(&out, "p"));
    for start in METHODS {
        builder(start).spawn(has_no_hooks, ()).unwrap().join().unwrap();
        let own = out.try_clone().unwrap();
        process::fork(move || at_exit(letter(&own, "f"))).unwrap().join().unwrap();
    }
}

#[forkyard::task]
fn not_inherited() {
    let (mut reader, writer) = std::io::pipe().unwrap();
    builder(Start::Spawn).spawn(parent_with_hooks, (writer.into(),)).unwrap().join().unwrap();
    let mut text = String::new();
    reader.read_to_string(&mut text).unwrap();
    assert_eq!(text, "fffp", "a fork runs its own, and its parent's run once, in the parent");
}

#[test]
fn exit_hooks_are_not_inherited() {
    isolated(not_inherited);
}

#[forkyard::task]
fn panicking_hook(out: Fd) -> u32 {
    at_exit(letter(&out, "a"));
    at_exit(|| panic!("in a hook, on purpose"));
    at_exit(letter(&out, "b"));
    7
}

#[forkyard::task]
fn exiting_hook(out: Fd) -> u32 {
    at_exit(letter(&out, "a"));
    at_exit(|| process::_exit(9));
    at_exit(letter(&out, "b"));
    7
}

#[forkyard::task]
fn bad_hooks() {
    for start in METHODS {
        let (mut reader, writer) = std::io::pipe().unwrap();
        let value = builder(start).spawn(panicking_hook, (writer.into(),)).unwrap().join().unwrap();
        let mut text = String::new();
        reader.read_to_string(&mut text).unwrap();
        assert_eq!((value, text.as_str()), (7, "ba"), "{start:?}: the others ran, and the value is told");

        let (mut reader, writer) = std::io::pipe().unwrap();
        let error = builder(start).spawn(exiting_hook, (writer.into(),)).unwrap().join().unwrap_err();
        let mut text = String::new();
        reader.read_to_string(&mut text).unwrap();
        assert_eq!(error.ended(), Some(Ended::AfterTask), "{start:?}: {error}");
        assert_eq!((error.exit_status().unwrap().code(), text.as_str()), (Some(9), "b"));
    }
}

/// In the first process of a program the hooks run when its thread's locals are gone.
#[test]
fn a_hook_starts_a_process() {
    const INSIDE: &str = "FORKYARD_TEST_HOOK_STARTS";
    if std::env::var_os(INSIDE).is_some() {
        let started = || process::spawn(fd_of, (std::fs::File::open("/dev/null").unwrap().into(),));
        assert!(started().unwrap().join().unwrap() > 2);
        process::at_exit(move || {
            eprintln!("it returned {:?}", started().and_then(|child| child.join()).is_ok())
        });
        process::exit(0);
    }
    let mut program = std::process::Command::new(std::env::current_exe().unwrap());
    let inside = program.args(["--exact", "a_hook_starts_a_process", "--nocapture"]).env(INSIDE, "1");
    let output = inside.output().unwrap();
    assert!(String::from_utf8_lossy(&output.stderr).contains("it returned true"), "{output:?}");
}

#[forkyard::task]
fn fd_of(fd: Fd) -> i32 {
    std::os::fd::AsRawFd::as_raw_fd(&OwnedFd::from(fd))
}

#[test]
fn a_hook_that_panics_stops_no_other_and_one_that_exits_is_told() {
    isolated(bad_hooks);
}

/// Puts a pipe in the place of stdout, says something without an end of line, and ends.
#[forkyard::task]
fn say(out: Fd, how: String) -> u8 {
    let out = OwnedFd::from(out);
    // SAFETY: replaces descriptor 1, which std's output uses by its number.
    assert_eq!(unsafe { libc::dup2(std::os::fd::AsRawFd::as_raw_fd(&out), 1) }, 1);
    drop(out);
    let mut stdout = std::io::stdout();
    stdout.write_all(b"no end of line").unwrap();
    end(&how)
}

#[forkyard::task]
fn flushed() {
    for start in METHODS {
        for (how, expected) in [
            ("return", "no end of line"),
            ("exit", "no end of line"),
            ("panic", "no end of line"),
            ("_exit", ""),
        ] {
            let (mut reader, writer) = std::io::pipe().unwrap();
            let child = builder(start).spawn(say, (writer.into(), how.to_owned())).unwrap();
            let mut text = String::new();
            reader.read_to_string(&mut text).unwrap();
            child.wait_ended().unwrap();
            assert_eq!(text, expected, "{start:?}, {how}");
        }
    }
}

#[test]
fn what_a_child_printed_is_flushed_at_its_end() {
    isolated(flushed);
}

/// Leaves something in a stream of the C library's, with or without another thread, and a handler of exit(3).
#[forkyard::task]
fn use_c(out: Fd, threads: bool) {
    extern "C" fn handler() {
        // SAFETY: the descriptor of the pipe, which nothing has closed.
        unsafe { libc::write(OUT, c"!".as_ptr().cast(), 1) };
    }
    const OUT: i32 = 77;
    let out = OwnedFd::from(out);
    // SAFETY: a number that nobody uses, a mode and a text that are strings, and the stream that was just opened.
    unsafe {
        assert_eq!(libc::dup2(std::os::fd::AsRawFd::as_raw_fd(&out), OUT), OUT);
        libc::atexit(handler);
        libc::fputs(c"in a stream".as_ptr(), libc::fdopen(OUT, c"w".as_ptr()));
    }
    if threads {
        std::thread::spawn(|| {
            loop {
                std::thread::park()
            }
        });
    }
}

#[forkyard::task]
fn c_streams_flushed() {
    for (start, threads) in METHODS.into_iter().flat_map(|start| [(start, false), (start, true)]) {
        let (mut reader, writer) = std::io::pipe().unwrap();
        let child = builder(start).spawn(use_c, (writer.into(), threads)).unwrap();
        let mut text = String::new();
        reader.read_to_string(&mut text).unwrap();
        child.join().unwrap();
        assert_eq!(text.trim_start_matches('!'), "in a stream", "{start:?}, other threads: {threads}");
    }
}

#[test]
fn what_a_task_left_in_streams_of_the_c_library_is_flushed() {
    isolated(c_streams_flushed);
}

/// Prints half a line before it forks.
#[forkyard::task]
fn print_and_fork(out: Fd) {
    let out = OwnedFd::from(out);
    // SAFETY: as above.
    assert_eq!(unsafe { libc::dup2(std::os::fd::AsRawFd::as_raw_fd(&out), 1) }, 1);
    drop(out);
    let mut stdout = std::io::stdout();
    stdout.write_all(b"parent,").unwrap();
    for start in METHODS {
        builder(start).spawn(has_no_hooks, ()).unwrap().join().unwrap();
    }
    process::fork(|| std::io::stdout().write_all(b"child,").unwrap()).unwrap().join().unwrap();
    stdout.write_all(b"parent").unwrap();
}

#[forkyard::task]
fn printed_once() {
    let (mut reader, writer) = std::io::pipe().unwrap();
    builder(Start::Spawn).spawn(print_and_fork, (writer.into(),)).unwrap().join().unwrap();
    let mut text = String::new();
    reader.read_to_string(&mut text).unwrap();
    assert_eq!(text, "parent,child,parent");
}

#[test]
fn what_was_printed_before_a_fork_appears_once() {
    isolated(printed_once);
}
