//! Pipes, listeners and clients, with processes of ours and with Python's.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by a panic")]

mod common;

use std::io::{Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::Duration;

use common::{METHODS, eventually, isolated, own_pid};
use forkyard::channel::{Address, AuthKey, Client, Connection, Listener, connect, pipe, pipe_one_way, wait};
use forkyard::process::{self, Builder};

const LONG: Duration = Duration::from_secs(30);

#[forkyard::task]
fn echo(connection: Connection) {
    loop {
        let message = connection.recv_bytes().unwrap();
        if message == b"stop" {
            return;
        }
        connection.send_bytes(&message).unwrap();
    }
}

#[forkyard::task]
fn every_form_of_a_call() {
    let (ours, theirs) = pipe().unwrap();
    let soon = || std::time::Instant::now() + common::DEADLINE;
    assert!(theirs.try_recv::<u32>().unwrap_err().is_timeout());
    ours.send_deadline(&1u32, soon()).unwrap();
    ours.send_deadline(&2u32, soon()).unwrap();
    assert_eq!(theirs.try_recv::<u32>().unwrap(), 1);
    assert_eq!(theirs.recv_deadline::<u32>(soon()).unwrap(), 2);
    let late = theirs.recv_deadline::<u32>(std::time::Instant::now()).unwrap_err();
    assert!(late.is_timeout() && late.to_string().contains("receive a message"), "{late}");
    // Whoever gave a connection up is told that it did, and not that the other end is gone.
    ours.send_bytes(&[7; 100]).unwrap();
    assert!(theirs.recv_bytes_most(10).is_err());
    let given_up = theirs.recv_bytes().unwrap_err();
    assert!(given_up.is_disconnected() && given_up.to_string().contains("given up here"), "{given_up}");
}

#[forkyard::task]
fn every_form_of_a_limit() {
    let (ours, theirs) = pipe().unwrap();
    let soon = || std::time::Instant::now() + common::DEADLINE;
    assert!(theirs.try_recv_bytes_most(4).unwrap_err().is_timeout());
    assert!(theirs.recv_bytes_most_timeout(4, Duration::from_millis(1)).unwrap_err().is_timeout());
    assert!(theirs.recv_bytes_most_deadline(4, std::time::Instant::now()).unwrap_err().is_timeout());
    (0..4).for_each(|_| ours.send_bytes(b"four").unwrap());
    assert_eq!(theirs.try_recv_bytes_most(4).unwrap(), b"four");
    assert_eq!(theirs.recv_bytes_most_timeout(4, common::DEADLINE).unwrap(), b"four");
    assert_eq!(theirs.recv_bytes_most_deadline(4, soon()).unwrap(), b"four");
    let long = theirs.recv_bytes_most_timeout(3, common::DEADLINE).unwrap_err();
    assert!(!long.is_timeout() && long.to_string().contains("4 bytes"), "{long}");

    // A message that a call with a higher limit began is measured by the one that ends it.
    let (raw, theirs) = UnixStream::pair().unwrap();
    let theirs = Connection::from(OwnedFd::from(theirs));
    (&raw).write_all(b"\0\0\0\x05hel").unwrap();
    assert!(theirs.recv_bytes_most_timeout(9, Duration::from_millis(1)).unwrap_err().is_timeout());
    (&raw).write_all(b"lo").unwrap();
    assert!(theirs.recv_bytes_most(4).unwrap_err().to_string().contains("5 bytes"));
}

#[test]
fn a_limit_goes_with_every_form_of_a_call() {
    isolated(every_form_of_a_limit);
}

#[test]
fn values_are_sent_and_received_in_every_form_of_a_call() {
    isolated(every_form_of_a_call);
}

#[forkyard::task]
fn messages_travel() {
    for start in METHODS {
        let (ours, theirs) = pipe().unwrap();
        let child = Builder::new().start(start).spawn(echo, (theirs,)).unwrap();
        for len in [0, 1, 4, 1000, 16 << 10, (16 << 10) + 1, 1 << 20, 20 << 20] {
            let message: Vec<u8> = (0..len).map(|n| n as u8).collect();
            // Longer ones do not fit into the socket: both sides have to go on.
            std::thread::scope(|scope| {
                scope.spawn(|| ours.send_bytes(&message).unwrap());
                assert!(ours.recv_bytes().unwrap() == message, "{len} bytes by {start:?}");
            });
        }
        ours.send(&("typed", 7u32)).unwrap();
        assert_eq!(ours.recv::<(String, u32)>().unwrap(), ("typed".to_owned(), 7));
        ours.send_bytes(b"stop").unwrap();
        child.join().unwrap();
    }
}

#[test]
fn messages_of_every_size_travel_by_every_start_method() {
    isolated(messages_travel);
}

#[forkyard::task]
fn dies_sending(connection: Connection) {
    // A header that promises more than comes.
    let mut stream = UnixStream::from(connection.as_fd().try_clone_to_owned().unwrap());
    stream.write_all(&100u32.to_be_bytes()).unwrap();
    stream.write_all(b"half").unwrap();
    process::_exit(0);
}

#[test]
fn the_end_of_the_other_side_is_an_error_of_its_own() {
    let (one, other) = pipe().unwrap();
    one.send_bytes(b"last words").unwrap();
    drop(one);
    assert!(other.poll(LONG).unwrap());
    assert_eq!(other.recv_bytes().unwrap(), b"last words");
    let error = other.recv_bytes().unwrap_err();
    assert!(error.is_disconnected() && !error.is_timeout(), "{error}");
    assert!(other.send_bytes(b"x").unwrap_err().is_disconnected());
    let (ours, theirs) = pipe().unwrap();
    let child = process::spawn(dies_sending, (theirs,)).unwrap();
    let error = ours.recv_bytes().unwrap_err();
    assert!(error.is_disconnected() && error.to_string().contains("middle"), "{error}");
    child.wait_ended().unwrap();
}

#[test]
fn one_way_means_one_way() {
    let (reader, writer) = pipe_one_way().unwrap();
    writer.send(&1u8).unwrap();
    assert_eq!(reader.recv::<u8>().unwrap(), 1);
    assert!(reader.send(&1u8).unwrap_err().is_disconnected());
    assert!(writer.recv::<u8>().unwrap_err().is_disconnected());
}

#[test]
fn time_outs_are_honoured_in_the_middle_of_a_message_and_nothing_is_lost() {
    let (one, other) = pipe().unwrap();
    assert!(other.recv_bytes_timeout(Duration::from_millis(5)).unwrap_err().is_timeout());
    assert!(other.try_recv_bytes().unwrap_err().is_timeout());
    assert!(!other.poll(Duration::ZERO).unwrap());
    let mut half = UnixStream::from(one.as_fd().try_clone_to_owned().unwrap());
    half.write_all(&[0, 0, 0, 5, b'h', b'e']).unwrap();
    assert!(other.recv_bytes_timeout(Duration::from_millis(5)).unwrap_err().is_timeout());
    half.write_all(b"llo").unwrap();
    assert_eq!(other.recv_bytes().unwrap(), b"hello");
    // More than fits into the socket: the sender's time is up in the middle.
    let large = vec![7u8; 8 << 20];
    assert!(one.send_bytes_timeout(&large, Duration::from_millis(20)).unwrap_err().is_timeout());
    std::thread::scope(|scope| {
        scope.spawn(|| one.send_bytes(b"next").unwrap());
        assert!(other.recv_bytes().unwrap() == large);
        assert_eq!(other.recv_bytes().unwrap(), b"next");
    });
}

#[test]
fn what_is_no_message_is_an_error() {
    for garbage in [&[0x80, 0, 0, 0][..], &[255; 12]] {
        let (one, other) = UnixStream::pair().unwrap();
        let connection = Connection::from(OwnedFd::from(other));
        (&one).write_all(garbage).unwrap();
        let error = connection.recv_bytes().unwrap_err();
        assert!(error.to_string().contains("length"), "{error}");
        assert!(connection.recv_bytes().is_err(), "and it is of no more use");
    }
    let (one, other) = pipe().unwrap();
    one.send_bytes(&[0; 100]).unwrap();
    assert!(other.recv_bytes_most(99).is_err());
    let (one, other) = pipe().unwrap();
    one.send_bytes(b"\xff").unwrap();
    assert!(other.recv::<String>().unwrap_err().to_string().contains("decode"));
}

#[forkyard::task]
fn writes_to_what_it_is_sent(connection: Connection) {
    let mut file = std::fs::File::from(connection.recv_fd().unwrap());
    file.write_all(b"by the child").unwrap();
    connection.send_bytes(b"done").unwrap();
}

#[test]
fn descriptors_travel_over_a_pipe() {
    let (ours, theirs) = pipe().unwrap();
    let child = process::spawn(writes_to_what_it_is_sent, (theirs,)).unwrap();
    let (mut reader, writer) = std::io::pipe().unwrap();
    ours.send_fd(&writer).unwrap();
    drop(writer);
    assert_eq!(ours.recv_bytes().unwrap(), b"done");
    child.join().unwrap();
    let mut text = String::new();
    reader.read_to_string(&mut text).unwrap();
    assert_eq!(text, "by the child");
}

#[forkyard::task]
fn returns() {}

#[test]
fn several_are_waited_for_at_once_and_processes_among_them() {
    let (one, other) = pipe().unwrap();
    let (_three, four) = pipe().unwrap();
    assert!(wait(&[other.as_fd(), four.as_fd()], Some(Duration::ZERO)).unwrap().is_empty());
    one.send(&1u8).unwrap();
    assert_eq!(wait(&[four.as_fd(), other.as_fd()], None).unwrap(), [1]);
    let child = process::spawn(returns, ()).unwrap();
    assert_eq!(wait(&[four.as_fd(), child.as_fd()], Some(LONG)).unwrap(), [1]);
    child.join().unwrap();
}

fn path(name: &str) -> PathBuf {
    std::env::temp_dir().join(format!("forkyard-connection-{}-{name}", own_pid()))
}

fn addresses(name: &str) -> [Address; 2] {
    [Address::Tcp("127.0.0.1:0".parse().unwrap()), Address::Unix(path(name))]
}

#[forkyard::task]
fn connects(port: u16, path: PathBuf, key: String) -> Result<u32, String> {
    let address = match port {
        0 => Address::Unix(path),
        port => Address::Tcp(([127, 0, 0, 1], port).into()),
    };
    let connection = connect(address, AuthKey::new(key)).map_err(|error| error.to_string())?;
    connection.send(&20u32).map_err(|error| error.to_string())?;
    connection.recv().map_err(|error| error.to_string())
}

#[test]
fn who_knows_the_key_is_let_in_and_who_does_not_is_counted() {
    for address in addresses("key") {
        let listener = Listener::bind(address).unwrap().authkey(AuthKey::new("right"));
        let (port, path) = match listener.address() {
            Address::Tcp(address) => (address.port(), PathBuf::new()),
            Address::Unix(path) => (0, path.clone()),
        };
        let wrong = process::spawn(connects, (port, path.clone(), "wrong".to_owned())).unwrap();
        let right = process::spawn(connects, (port, path, "right".to_owned())).unwrap();
        let connection = listener.accept_timeout(LONG).unwrap();
        assert_eq!(connection.recv::<u32>().unwrap(), 20);
        connection.send(&21u32).unwrap();
        assert_eq!(right.join().unwrap(), Ok(21));
        assert!(listener.accept_timeout(Duration::from_millis(1)).unwrap_err().is_timeout());
        eventually("the other one is counted", || {
            let _ = listener.try_accept();
            listener.dropped() == 1
        });
        let why = wrong.join().unwrap().unwrap_err();
        assert!(why.contains("our key is not its own"), "{why}");
    }
    assert!(!path("key").exists(), "the file is removed with the listener");
}

#[test]
fn garbage_floods_and_silence_hold_up_nobody() {
    let listener = Listener::bind(Address::Unix(path("garbage"))).unwrap().authkey(AuthKey::new("k"));
    let listener = listener.handshake_timeout(Duration::from_millis(300));
    let connect_raw = || UnixStream::connect(path("garbage")).unwrap();
    let (silent, mut garbage, mut half, mut flood) =
        (connect_raw(), connect_raw(), connect_raw(), connect_raw());
    garbage.write_all(b"GET / HTTP/1.0\r\n\r\n").unwrap();
    half.write_all(&[0, 0, 0, 40, b'{']).unwrap();
    flood.write_all(&[0, 0, 1, 0]).unwrap();
    // EPIPE: it was dropped.
    let _ = flood.write_all(&[0; 1 << 16]);
    let client = std::thread::spawn(|| connect(Address::Unix(path("garbage")), AuthKey::new("k")).unwrap());
    let connection = listener.accept_timeout(LONG).unwrap();
    let client = client.join().unwrap();
    client.send(&5u8).unwrap();
    assert_eq!(connection.recv::<u8>().unwrap(), 5);
    eventually("all four are dropped", || {
        let _ = listener.try_accept();
        listener.dropped() == 4
    });
    drop(silent);
}

/// A Python that is there.
#[derive(Clone, Debug)]
struct Python {
    /// For pyenv, which has several.
    version: Option<String>,
    /// It knows MD5 only.
    is_old: bool,
}

impl Python {
    fn command(&self) -> Command {
        let mut command = Command::new("python3");
        if let Some(version) = &self.version {
            command.env("PYENV_VERSION", version);
        }
        command
    }
}

/// The Pythons that are there: the system's, and those of pyenv that are supported.
fn pythons() -> Vec<Python> {
    let listed = Command::new("pyenv").args(["versions", "--bare"]).output();
    let listed =
        listed.map_or_else(|_| String::new(), |output| String::from_utf8_lossy(&output.stdout).into_owned());
    let others = listed
        .lines()
        .map(str::trim)
        .filter(|line| line.starts_with("3.1"))
        .map(|line| Some(line.to_owned()));
    let mut seen = Vec::new();
    let mut found = Vec::new();
    for version in std::iter::once(None).chain(others) {
        let python = Python { version, is_old: false };
        let script = "import sys; print('%d.%d' % sys.version_info[:2])";
        let Ok(output) = python.command().args(["-c", script]).output() else { continue };
        let version = String::from_utf8_lossy(&output.stdout).trim().to_owned();
        if output.status.success() && !seen.contains(&version) {
            let is_old = ["3.8", "3.9", "3.10", "3.11"].contains(&version.as_str());
            found.push(Python { is_old, ..python });
            seen.push(version);
        }
    }
    println!("with Python {seen:?}");
    found
}

const PYTHON_CLIENT: &str = "
import sys
from multiprocessing.connection import Client
from multiprocessing import AuthenticationError
try:
    with Client(sys.argv[1], authkey=sys.argv[2].encode()) as c:
        c.send_bytes(b'from python')
        message = c.recv_bytes()
        c.send_bytes(message * 2)
        print('met')
except (AuthenticationError, EOFError, OSError) as error:
    print('refused')
";

const PYTHON_LISTENER: &str = "
import sys
from multiprocessing.connection import Listener
from multiprocessing import AuthenticationError
with Listener(sys.argv[1], authkey=sys.argv[2].encode()) as listener:
    print('listening', flush=True)
    try:
        with listener.accept() as c:
            c.send_bytes(b'x' * 70000)
            print(len(c.recv_bytes()))
    except (AuthenticationError, EOFError, OSError) as error:
        print('refused')
";

fn run(python: &Python, script: &str, key: &str, path: &std::path::Path) -> std::process::Child {
    let mut command = python.command();
    command.args(["-c", script]).arg(path).arg(key).stdout(Stdio::piped()).spawn().unwrap()
}

fn said(mut child: std::process::Child) -> String {
    let mut text = String::new();
    child.stdout.take().unwrap().read_to_string(&mut text).unwrap();
    assert!(child.wait().unwrap().success());
    text.trim().to_owned()
}

/// Nobody is let in, and so many have been dropped.
fn is_dropped(listener: &Listener, count: u64) {
    eventually("the peer is dropped", || {
        assert!(listener.try_accept().is_err());
        listener.dropped() == count
    });
}

#[test]
fn pythons_clients_meet_our_listener() {
    for python in pythons() {
        let path = path("python-client");
        let listener = Listener::bind(Address::Unix(path.clone())).unwrap().authkey(AuthKey::new("secret"));
        let refused = run(&python, PYTHON_CLIENT, "wrong", &path);
        is_dropped(&listener, 1);
        assert_eq!(said(refused), "refused", "{python:?}");
        if python.is_old {
            let refused = run(&python, PYTHON_CLIENT, "secret", &path);
            // MD5 has to be allowed.
            is_dropped(&listener, 2);
            assert_eq!(said(refused), "refused", "{python:?}");
        }
        let listener = listener.allow_md5();
        let client = run(&python, PYTHON_CLIENT, "secret", &path);
        let connection = listener.accept_timeout(LONG).unwrap();
        assert_eq!(connection.recv_bytes().unwrap(), b"from python");
        connection.send_bytes(b"to python").unwrap();
        assert_eq!(connection.recv_bytes().unwrap(), b"to pythonto python");
        assert_eq!(said(client), "met", "{python:?}");
    }
}

#[test]
fn our_client_meets_pythons_listeners() {
    for python in pythons() {
        let path = path("python-listener");
        for (key, allowed) in [("secret", true), ("wrong", true), ("secret", false)] {
            let mut listener = run(&python, PYTHON_LISTENER, "secret", &path);
            let mut line = [0; 10];
            listener.stdout.as_mut().unwrap().read_exact(&mut line).unwrap();
            let mut client = Client::new(path.clone()).authkey(AuthKey::new(key)).timeout(LONG);
            if allowed {
                client = client.allow_md5();
            }
            match client.connect() {
                Ok(connection) => {
                    assert!(key == "secret" && (allowed || !python.is_old), "{python:?} {key} {allowed}");
                    assert_eq!(connection.recv_bytes().unwrap(), [b'x'; 70_000]);
                    connection.send_bytes(&[0; 100_000]).unwrap();
                    assert_eq!(said(listener), "100000", "{python:?}");
                }
                Err(error) => {
                    assert!(
                        key == "wrong" || (python.is_old && !allowed),
                        "{python:?} {key} {allowed}: {error}"
                    );
                    assert!(error.is_authentication(), "{error}");
                    assert_eq!(said(listener), "refused", "{python:?}");
                }
            }
        }
    }
}
