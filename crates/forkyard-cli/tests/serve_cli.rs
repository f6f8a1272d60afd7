//! Claims about `forkyard serve`, run as a user runs it.

mod common;

use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{Shutdown, TcpListener};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixDatagram;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use common::server::{QUIET, Server, converse, is_closed};
use common::{LIMIT, Signal, forkyard, run, run_with_input};
use forkyard_cli::exit;

/// A name of this test's own in the temporary directory.
fn scratch(name: &str) -> PathBuf {
    std::env::temp_dir().join(format!("forkyard-serve-{}-{name}", std::process::id()))
}

#[test]
fn lines_come_back_in_capitals_and_term_ends_it() {
    let mut server = Server::start(&[]);
    assert_eq!(server.ask("hello\nworld\n"), "HELLO\nWORLD\n");
    server.logs(&format!("listening on 127.0.0.1:{}", server.port));
    server.stop();
}

#[test]
fn echo_and_prefork_serve_as_well() {
    let server = Server::start(&["--mode", "prefork", "-w", "2", "--max-requests", "2", "echo"]);
    for round in 0..8 {
        assert_eq!(server.ask(&format!("Round {round}\n")), format!("Round {round}\n"));
    }
    server.stop();
}

#[test]
fn connect_is_the_client_to_try_it_with() {
    let server = Server::start(&[]);
    let address = format!("127.0.0.1:{}", server.port);
    assert_eq!(run_with_input(&["connect", &address], b"hello\n").code(exit::OK).stdout, "HELLO\n");
    server.stop();
}

#[test]
fn it_listens_on_every_address_it_is_given() {
    let socket = scratch("socket");
    let at = format!("unix:{}", socket.display());
    let mut server = Server::start(&["-b", &at, "-b", "[::1]:0", "-b", "localhost:0"]);
    server.logs(&at);
    let line = server.logs("[::1]:");
    let six = line.rsplit("listening on ").next().unwrap().to_owned();
    for to in [at.as_str(), &six] {
        assert_eq!(run_with_input(&["connect", to], b"hello\n").code(exit::OK).stdout, "HELLO\n", "{to}");
    }
    server.stop();
    assert!(!socket.exists(), "the socket's file is left");
}

#[test]
fn a_program_gets_the_connection_and_its_environment() {
    let script = "echo $PROTO $TCPREMOTEIP $TCPLOCALPORT \"[$NOTIFY_SOCKET$FORKYARD_GRACE]\"; cat; ls /proc/self/fd | wc -l";
    let mut command = forkyard();
    command
        .env("FORKYARD_GRACE", "9s")
        .env("FORKYARD_HANDLER", "echo")
        .env("NOTIFY_SOCKET", "/nonexistent/socket");
    command.args(["serve", "-1", "-b", "127.0.0.1:0", "--", "sh", "-c", script]);
    let server = Server::spawn(command);
    // ls has its own directory open, besides the three.
    let expected = format!("TCP 127.0.0.1 {} []\nhello\n4\n", server.port);
    assert_eq!(server.ask("hello\n"), expected);
    server.stop();
}

#[test]
fn a_program_that_cannot_be_executed_is_told_at_the_start() {
    run(["serve", "--", "no-such-program"]).code(exit::NOT_FOUND).says("in PATH");
    run(["serve", "--", "./no-such-program"]).code(exit::NOT_FOUND).says("no program ./no-such-program");
    run(["serve", "--", "/etc/passwd"]).code(exit::NOT_EXECUTABLE).says("chmod +x");
    run(["serve", "--", "/"]).code(exit::NOT_EXECUTABLE).says("directory");
}

#[test]
fn what_cannot_be_listened_on_is_told_with_the_reason() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    run(["serve", "-b", &address]).code(exit::NOT_STARTED).says("another server listens there");
    run(["serve", "-b", "no-such-host.invalid:1"]).code(exit::NOT_STARTED).says("not known");
    run(["serve", "-b", "unix:/nonexistent/directory/socket"]).code(exit::NOT_STARTED).says("No such file");
    run(["serve", "-b", "fd://77"]).code(exit::NOT_STARTED).says("fd://77");
    run(["serve", "-u", "no-such-user"]).code(exit::NOT_STARTED).says("no-such-user");
    run(["serve", "--log", "/nonexistent/directory/log"]).code(exit::NOT_STARTED).says("/nonexistent");
}

#[test]
fn int_lets_connections_finish_and_a_second_one_does_not() {
    let mut server = Server::start(&["--grace", "1h"]);
    let mut stream = server.connect();
    converse(&mut stream, "one\n", "ONE\n");
    server.signal(Signal::INT);
    server.logs("stopping");
    converse(&mut stream, "two\n", "TWO\n");
    server.signal(Signal::INT);
    is_closed(&mut stream);
    assert_eq!(server.ends(), Ok(Signal::INT));
}

#[test]
fn ctrl_c_on_a_terminal_lets_connections_finish_too() {
    let mut server = Server::start(&["--grace", "1h"]);
    let mut stream = server.connect();
    converse(&mut stream, "one\n", "ONE\n");
    // What the terminal does: the signal goes to the whole group.
    let group = rustix::process::Pid::from_raw(server.pid() as i32).unwrap();
    rustix::process::kill_process_group(group, Signal::INT).unwrap();
    server.logs("stopping");
    converse(&mut stream, "two\n", "TWO\n");
    drop(stream);
    assert_eq!(server.ends(), Ok(Signal::INT));
}

#[test]
fn a_graceful_stop_accepts_nothing_more_and_ends_with_the_last_connection() {
    let mut server = Server::start(&["--grace", "1h"]);
    let mut stream = server.connect();
    converse(&mut stream, "one\n", "ONE\n");
    server.signal(Signal::TERM);
    server.logs("stopping");
    let refused = std::net::TcpStream::connect(("127.0.0.1", server.port)).unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::ConnectionRefused);
    converse(&mut stream, "two\n", "TWO\n");
    drop(stream);
    assert_eq!(server.ends(), Ok(Signal::TERM));
}

/// What a program has left behind in a session of its own ends with the server, however the server ends.
#[test]
fn nothing_that_a_program_left_behind_outlives_the_server() {
    for signal in [Signal::TERM, Signal::QUIT, Signal::KILL] {
        let program = "trap '' TERM; setsid sleep 1000 & echo $!; cat";
        let server = Server::start(&["--grace", "100ms", "--", "sh", "-c", program]);
        let mut stream = server.connect();
        let line = common::read_until(&mut stream, "\n");
        let left_behind = std::path::PathBuf::from(format!("/proc/{}/exe", line.trim()));
        assert!(left_behind.exists(), "{line}");
        server.signal(signal);
        // QUIT ends with a code.
        let _ = server.ends();
        let end = std::time::Instant::now() + std::time::Duration::from_secs(20);
        while left_behind.exists() {
            assert!(std::time::Instant::now() < end, "{signal:?}: process {line} is still there");
            std::thread::yield_now();
        }
    }
}

#[test]
fn grace_is_over_when_it_is_over() {
    // The program does not mind TERM, so that it takes a KILL.
    let server = Server::start(&[
        "--grace",
        "100ms",
        "--",
        "sh",
        "-c",
        "trap '' TERM; echo ready; while read line; do :; done",
    ]);
    let mut stream = server.connect();
    assert_eq!(common::read_until(&mut stream, "\n"), "ready\n");
    server.signal(Signal::TERM);
    assert_eq!(server.ends(), Ok(Signal::TERM));
    drop(stream);
}

#[test]
fn quit_ends_it_at_once() {
    let server = Server::start(&["--grace", "1h"]);
    let mut stream = server.connect();
    converse(&mut stream, "one\n", "ONE\n");
    server.signal(Signal::QUIT);
    is_closed(&mut stream);
    // By its code and not by the signal, which would write a core image.
    assert_eq!(server.ends(), Err(i32::from(exit::signalled(3))));
}

#[test]
fn hup_brings_fresh_processes_and_old_connections_go_on() {
    let mut server = Server::start(&[]);
    let mut stream = server.connect();
    converse(&mut stream, "one\n", "ONE\n");
    server.signal(Signal::HUP);
    server.logs("reloaded");
    converse(&mut stream, "two\n", "TWO\n");
    assert_eq!(server.ask("three\n"), "THREE\n");
    drop(stream);
    server.stop();
}

#[test]
fn ttin_and_ttou_change_the_number_of_workers() {
    let mut server = Server::start(&["--mode", "prefork", "-w", "2"]);
    server.signal(Signal::TTIN);
    server.logs("keeping 3 workers");
    server.signal(Signal::TTOU);
    server.logs("keeping 2 workers");
    assert_eq!(server.ask("hello\n"), "HELLO\n");
    server.stop();
}

#[test]
fn usr1_opens_the_log_file_anew() {
    let (log, moved) = (scratch("log"), scratch("log.1"));
    let server = Server::start(&["--log", log.to_str().unwrap()]);
    let text = std::fs::read_to_string(&log).unwrap();
    assert!(text.contains("Z listening on 127.0.0.1:"), "{text}");
    std::fs::rename(&log, &moved).unwrap();
    server.signal(Signal::USR1);
    let deadline = std::time::Instant::now() + LIMIT;
    while !std::fs::read_to_string(&log).is_ok_and(|text| text.contains("open anew")) {
        assert!(std::time::Instant::now() < deadline, "no new file");
        std::thread::yield_now();
    }
    server.stop();
    for path in [log, moved] {
        std::fs::remove_file(path).unwrap();
    }
}

#[test]
fn the_service_manager_is_told_how_it_goes() {
    let path = scratch("notify");
    let manager = UnixDatagram::bind(&path).unwrap();
    manager.set_read_timeout(Some(LIMIT)).unwrap();
    let told = || {
        let mut buffer = [0; 256];
        let length = manager.recv(&mut buffer).unwrap();
        String::from_utf8_lossy(&buffer[..length]).into_owned()
    };
    let mut command = forkyard();
    command.args(["serve", "-1", "-b", "127.0.0.1:0"]).env("NOTIFY_SOCKET", &path);
    let server = Server::spawn(command);
    assert_eq!(told(), format!("READY=1\nMAINPID={}", server.pid()));
    server.signal(Signal::HUP);
    assert!(told().starts_with("RELOADING=1\nMONOTONIC_USEC="));
    assert!(told().starts_with("READY=1"));
    server.signal(Signal::TERM);
    assert_eq!(told(), "STOPPING=1");
    assert_eq!(server.ends(), Ok(Signal::TERM));
    std::fs::remove_file(path).unwrap();
}

#[test]
fn inherited_listeners_take_the_place_of_the_default_address() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let program = forkyard();
    let script = "exec 3<&0 </dev/null; LISTEN_FDS=1 LISTEN_PID=$$ exec \"$0\" serve -1";
    let mut command = Command::new("sh");
    command.arg("-c").arg(script).arg(program.get_program());
    command.stdin(Stdio::from(OwnedFd::from(listener))).stdout(Stdio::piped()).stderr(Stdio::piped());
    let server = Server::spawn(command);
    assert_eq!(server.port, port);
    assert_eq!(server.ask("hello\n"), "HELLO\n");
    server.stop();
}

#[test]
fn a_flag_wins_over_the_environment_and_that_over_the_file() {
    let file = scratch("config");
    std::fs::write(&file, "# ours\nhandler = echo\nmode = \"prefork\"\nworkers = 3\nno-new-privs = true\n")
        .unwrap();
    let mut command = forkyard();
    command.env("FORKYARD_BIND", "127.0.0.1:0 [::1]:0").env("FORKYARD_WORKERS", "5");
    command.args(["serve", "-1", "--config", file.to_str().unwrap(), "-w", "1"]);
    let mut server = Server::spawn(command);
    assert_eq!(server.ask("Hello\n"), "Hello\n", "the file's handler");
    server.logs("listening on [::1]:");
    server.signal(Signal::TTIN);
    server.logs("keeping 2 workers");
    server.stop();
    std::fs::remove_file(file).unwrap();
}

#[test]
fn limits_reach_the_processes() {
    let script = "ulimit -n; grep NoNewPrivs /proc/self/status";
    let server = Server::start(&["--rlimit", "nofile=99:128", "--no-new-privs", "--", "sh", "-c", script]);
    assert_eq!(server.ask(""), "99\nNoNewPrivs:\t1\n");
    server.stop();
}

#[test]
fn idle_and_long_connections_are_ended() {
    let server = Server::start(&["--idle-timeout", "100ms"]);
    let mut stream = server.connect();
    converse(&mut stream, "one\n", "ONE\n");
    is_closed(&mut stream);
    server.stop();

    let server = Server::start(&["--timeout", "300ms", "--", "cat"]);
    let mut stream = server.connect();
    converse(&mut stream, "one\n", "one\n");
    is_closed(&mut stream);
    server.stop();
}

#[test]
fn connections_beyond_a_limit_wait_and_are_served_later() {
    let server = Server::start(&["-C", "1"]);
    let mut first = server.connect();
    converse(&mut first, "one\n", "ONE\n");
    let mut second = server.connect();
    second.write_all(b"two\n").unwrap();
    second.set_read_timeout(Some(QUIET)).unwrap();
    assert!(second.read(&mut [0]).is_err(), "it is served beside the first");
    second.set_read_timeout(Some(LIMIT)).unwrap();
    drop(first);
    assert_eq!(common::read_until(&mut second, "\n"), "TWO\n");
    second.shutdown(Shutdown::Both).unwrap();
    server.stop();
}

#[test]
fn quiet_is_quiet() {
    let server = Server::start(&["-q"]);
    assert_eq!(server.ask("hello\n"), "HELLO\n");
    server.signal(Signal::TERM);
    assert_eq!(server.ends_with_log(), (Ok(Signal::TERM), String::new()));
}

#[test]
fn as_pid_1_it_serves_and_ends_with_the_signals_code() {
    let program = forkyard();
    let mut command = Command::new("unshare");
    command.args(["--pid", "--fork", "--kill-child"]);
    if !rustix::process::getuid().is_root() {
        command.args(["--user", "--map-root-user"]);
    }
    let probe = Command::new("unshare").args(command.get_args()).arg("true").output();
    if !probe.is_ok_and(|probe| probe.status.success()) {
        eprintln!("skipped: no pid namespace may be made here");
        return;
    }
    // The shell prints the pid that its child has out here, and hands its code on.
    command.arg(program.get_program()).args(["serve", "-1", "-b", "127.0.0.1:0"]);
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let server = Server::spawn(command);
    assert_eq!(server.ask("hello\n"), "HELLO\n");
    let children = std::fs::read_to_string(format!("/proc/{0}/task/{0}/children", server.pid())).unwrap();
    let inside: u32 = children.split_whitespace().next().unwrap().parse().unwrap();
    common::signal(inside, Signal::TERM);
    assert_eq!(server.ends(), Err(i32::from(exit::signalled(15))));
}
