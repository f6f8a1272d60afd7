//! Every example runs, ends in time and prints what its text promises.
//!
//! The examples are built by `cargo test` together with this file; run alone, this test builds them first.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by a panic")]

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::{LazyLock, mpsc};
use std::thread;
use std::time::{Duration, Instant};

const DEADLINE: Duration = Duration::from_secs(30);

/// Runs an example to its end; its output, standard error after standard output.
#[track_caller]
fn output_of(example: &str) -> String {
    output_with(example, &[])
}

/// The same, with arguments.
#[track_caller]
fn output_with(example: &str, arguments: &[&str]) -> String {
    let mut child = start(example, arguments);
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
fn fork_and_wait() {
    let output = output_of("01_process");
    assert_in_order(
        &output,
        &["parent: I am process", "parent: the child says that 1 + 2 + … + 1000 = 500500"],
    );
    assert_in_order(&output, &["child:  I am process"]);
    assert_in_order(&output, &["the copy says \"HELLO FROM A COPY\""]);
}

#[test]
fn a_pipe_between_parent_and_child() {
    let output = output_of("02_pipe");
    assert_in_order(&output, &["sent: APPLES", "sent: PEARS", "sent: PLUMS", "child counted 3 lines"]);
}

#[test]
fn signals_and_alarm() {
    let output = output_of("03_signals");
    assert_in_order(&output, &["handled SIGUSR1", "handled SIGUSR1", "replaced an alarm that was due in"]);
    assert_in_order(&output, &["the alarm rings", "pending: {SIGUSR2}", "took SIGUSR2", "still here"]);
}

#[test]
fn processes_with_arguments_and_names() {
    let output = output_of("04_arguments");
    for (cook, work) in [("cook-1", "2 × soup"), ("cook-2", "1 × curry"), ("cook-3", "3 × pie")] {
        assert_in_order(&output, &[&format!("{cook} cooks {work}")]);
        assert_in_order(&output, &[&format!("{cook} is process ")]);
    }
    assert_in_order(&output, &["cook-1 asks for 7.00", "cook-2 asks for 8.90", "cook-3 asks for 12.60"]);
}

#[test]
fn terminate_and_exit_codes() {
    let output = output_of("05_exit_codes");
    assert_in_order(
        &output,
        &["finish:    \"done\"", "give_up:   ended by exit code 3", "stumble:   panicked: index"],
    );
    assert_in_order(
        &output,
        &["sleeper:   alive: true", "terminate: ended by signal 15", "kill:      ended by signal 9"],
    );
    assert_in_order(&output, &["time-out:  it still runs"]);
}

#[test]
fn a_daemon_with_heartbeat_ends_with_its_parent() {
    let output = output_of("06_daemon");
    assert_in_order(
        &output,
        &["runs", "daemon: I am ok", "daemon: I am ok", "daemon: I am ok", "the parent ends"],
    );
    wait_until_gone(daemon_pid(&output));
}

#[test]
fn a_daemon_ends_when_its_parent_is_killed() {
    let mut parent = start("06_daemon", &[]);
    let mut line = String::new();
    BufReader::new(parent.stdout.take().unwrap()).read_line(&mut line).unwrap();
    parent.kill().unwrap();
    parent.wait().unwrap();
    wait_until_gone(daemon_pid(&line));
}

#[test]
fn the_tcp_server_answers_and_stops_when_asked() {
    let mut server = start("07_tcp_server", &["127.0.0.1:0"]);
    let mut stdout = BufReader::new(server.stdout.take().unwrap());
    let mut line = String::new();
    stdout.read_line(&mut line).unwrap();
    let address = line.trim().strip_prefix("listening on ").expect("the address").to_owned();

    let mut client = TcpStream::connect(&address).unwrap();
    client.set_read_timeout(Some(DEADLINE)).unwrap();
    client.write_all(b"hello\nworld\n").unwrap();
    client.shutdown(Shutdown::Write).unwrap();
    let mut answer = String::new();
    client.read_to_string(&mut answer).unwrap();
    assert_eq!(answer, "HELLO\nWORLD\n");

    let asked = Command::new("kill").arg(server.id().to_string()).status().unwrap();
    assert!(asked.success());
    let rest = in_background(stdout).recv_timeout(DEADLINE).expect("it stops in time");
    assert_in_order(&rest, &["connections served: 1"]);
    assert!(server.wait().unwrap().success());
}

#[test]
fn other_programs() {
    let output = output_of("08_other_programs");
    assert_in_order(
        &output,
        &["system: exit code 3", "popen: spring", "popen: winter", "popen2: ANY AMOUNT"],
    );
    assert_in_order(&output, &["program: it's $5 & more", "pipeline: 1 fig", "pipeline: 3 pear"]);
    assert_in_order(&output, &["sleeper: timed out: true", "sleeper: signal 15", "error: start program"]);
}

#[test]
fn threads_with_the_words_of_processes() {
    let output = output_of("09_threads");
    assert_in_order(
        &output,
        &["mill-1 ground 250 g of ground arabica", "mill-2 ground 500 g of ground robusta"],
    );
    assert_in_order(
        &output,
        &["6 cups", "clumsy: dropped 4 cups", "main ends", "the last one turns off the light"],
    );
}

#[test]
fn two_writers_share_the_output() {
    let output = output_of("10_lock");
    let locked = output.split("with a lock:\n").nth(1).expect("the second half");
    for name in ["ann", "bob"] {
        let lines = format!("{name}: one two three\n").repeat(2);
        assert!(locked.contains(&lines), "{name} was interrupted:\n{output}");
    }
}

#[test]
fn one_runs_after_the_other() {
    assert_in_order(&output_of("11_order"), &["A: the table is laid", "B: the soup is served"]);
}

#[test]
fn an_event_and_a_time_out() {
    let output = output_of("12_event");
    assert_in_order(&output, &["main: open!", "ann: visitor number", "main: 2 visitors"]);
    assert_in_order(&output, &["main: nobody opened the other door", "main: open!", "bob: visitor number"]);
}

#[test]
fn four_processes_share_a_counter() {
    assert_in_order(&output_of("13_counter"), &["locked: 40000", "atomic: 40000"]);
}

#[test]
fn a_resource_with_permits() {
    let output = output_of("14_permits");
    for number in 1..=8 {
        assert_in_order(&output, &[&format!("guest-{number} has eaten")]);
    }
    assert_in_order(
        &output,
        &["never more than 3: true", "free seats: 2", "free seats when that guest was killed: 3"],
    );
}

#[test]
fn philosophers_report_their_deadlock() {
    let output = output_of("15_philosophers");
    for name in ["plato", "hypatia", "kant", "arendt", "confucius"] {
        assert_in_order(
            &output,
            &["was told of a deadlock:", &format!("  {name} has a fork and waits for one"), "all have eaten"],
        );
        assert_in_order(&output, &[&format!("{name} eats"), "all have eaten"]);
    }
}

#[test]
fn consumers_lose_nothing_when_one_is_killed() {
    assert_in_order(
        &output_of("16_producer_consumers"),
        &["the first consumer: signal 9", "sum of all orders: 500500, which is right: true"],
    );
}

#[test]
fn a_pipe_both_ways() {
    let output = output_of("17_duplex_pipe");
    assert_in_order(&output, &["-> 17", "-> 5050", "timed out: true", "questions answered: 2"]);
    assert_in_order(&output, &["the other end was killed: true"]);
}

#[test]
fn a_chat_of_those_who_know_the_key() {
    let output = output_of("18_chat");
    for (name, other) in [("ann", "bob"), ("bob", "ann")] {
        let heard = |line: &str| format!("{name} heard: {line}");
        let lines = [
            heard("all are here"),
            heard(&format!("hello, says {other}")),
            heard(&format!("goodbye, says {other}")),
        ];
        assert_in_order(&output, &lines.each_ref().map(String::as_str));
    }
    assert_in_order(&output, &["eve was told:", "not its own", "not let in: 1"]);
}

#[test]
fn an_open_file_is_sent() {
    let output = output_of("19_send_a_file");
    for number in [1, 2] {
        let read = format!("this process read \"head of file {number}, \"");
        assert_in_order(&output, &[&read[..read.len() - 3], "the other one read", "and the rest of it"]);
    }
}

#[test]
fn a_large_buffer_is_handed_over() {
    let output = output_with("20_one_gibibyte", &["64"]);
    assert_in_order(&output, &["filled 64 MiB", "handed over in", "found the same: true"]);
}

#[test]
fn requests_bring_the_queue_for_their_answer() {
    let output = output_of("21_request_and_answer");
    assert_in_order(
        &output,
        &["ANN ASKS", "BOB ASKS", "CYD ASKS", "its process is gone, its counter says 3"],
    );
}

fn daemon_pid(output: &str) -> u32 {
    output.split("daemon ").nth(1).and_then(|rest| rest.split(' ').next()).unwrap().parse().unwrap()
}

/// Waits until the process has ended; whether its new parent has reaped it is not our business.
#[track_caller]
fn wait_until_gone(pid: u32) {
    let deadline = Instant::now() + DEADLINE;
    let state = || std::fs::read_to_string(format!("/proc/{pid}/stat"));
    while state().is_ok_and(|stat| !stat.contains(") Z ")) {
        assert!(Instant::now() < deadline, "process {pid} is still there");
        thread::sleep(Duration::from_millis(5));
    }
}
