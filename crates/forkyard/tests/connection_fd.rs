//! Descriptors of files, sockets and connections travel over pipes and Unix sockets, to Python and from it too.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by a panic")]

mod common;

use std::fs::File;
use std::io::{Read, Seek, Write};
use std::net::{TcpListener, TcpStream};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::process::{Command, Stdio};
use std::time::Duration;

use common::{DEADLINE, isolated, open_fds, own_pid};
use forkyard::channel::{Address, AuthKey, Client, Connection, Listener, pipe};
use forkyard::process::{self, Fd};

/// Gets a file, a listening socket and a connection, and uses each.
#[forkyard::task]
fn uses_what_it_gets(parent: Connection) {
    let mut file = File::from(parent.recv_fd().unwrap());
    file.write_all(b"by the child").unwrap();
    let listener = TcpListener::from(parent.recv_fd().unwrap());
    let (mut visitor, _) = listener.accept().unwrap();
    visitor.write_all(b"hello").unwrap();
    drop(visitor);
    let connection = Connection::from(parent.recv_fd().unwrap());
    connection.send(&"over another one").unwrap();
    let (ours, theirs) = pipe().unwrap();
    parent.send_fd(&theirs).unwrap();
    drop(theirs);
    assert_eq!(ours.recv::<u32>().unwrap(), 7);
}

#[forkyard::task]
fn descriptors_travel() {
    let (ours, theirs) = pipe().unwrap();
    let child = process::spawn(uses_what_it_gets, (theirs,)).unwrap();
    let mut file = File::from(forkyard_sys::memfd::holding("shared", b"").unwrap());
    ours.send_fd(&file).unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    ours.send_fd(&listener).unwrap();
    let mut text = String::new();
    TcpStream::connect(listener.local_addr().unwrap()).unwrap().read_to_string(&mut text).unwrap();
    assert_eq!(text, "hello");
    let (one, other) = pipe().unwrap();
    ours.send_fd_timeout(&other, DEADLINE).unwrap();
    drop(other);
    assert_eq!(one.recv::<String>().unwrap(), "over another one");
    let childs = Connection::from(ours.recv_fd_timeout(DEADLINE).unwrap());
    childs.send(&7u32).unwrap();
    child.join().unwrap();
    assert!(childs.recv::<u32>().unwrap_err().is_disconnected());
    file.rewind().unwrap();
    let mut text = String::new();
    file.read_to_string(&mut text).unwrap();
    assert_eq!(text, "by the child");
}

#[test]
fn files_sockets_and_connections_travel_both_ways() {
    isolated(descriptors_travel);
}

#[forkyard::task]
fn nothing_leaks() {
    let before = open_fds();
    let (one, other) = pipe().unwrap();
    for _ in 0..20 {
        // Nobody receives them, or nobody expects them.
        one.send_fd(&one).unwrap();
    }
    assert_eq!(File::from(other.recv_fd().unwrap()).metadata().unwrap().len(), 0);
    // As bytes they are the length of a message that never comes.
    assert!(other.recv_bytes_timeout(Duration::from_millis(1)).unwrap_err().is_timeout());
    drop((one, other));
    assert_eq!(open_fds(), before);
}

#[test]
fn descriptors_that_nobody_wants_are_closed() {
    isolated(nothing_leaks);
}

#[test]
fn where_no_descriptor_can_be_is_an_error() {
    let listener = Listener::bind(Address::Tcp("127.0.0.1:0".parse().unwrap())).unwrap();
    let client = Client::new(listener.address().clone()).connect().unwrap();
    let server = listener.accept_timeout(DEADLINE).unwrap();
    assert!(client.send_fd(&client).unwrap_err().is_invalid());
    assert!(server.recv_fd().unwrap_err().is_invalid());

    let (one, other) = pipe().unwrap();
    assert!(other.recv_fd_timeout(Duration::from_millis(1)).unwrap_err().is_timeout());
    let mut half = UnixStream::from(one.as_fd().try_clone_to_owned().unwrap());
    half.write_all(&[0, 0, 0, 2, b'o']).unwrap();
    assert!(other.recv_bytes_timeout(Duration::from_millis(1)).unwrap_err().is_timeout());
    let error = other.recv_fd().unwrap_err();
    assert!(error.is_invalid() && error.to_string().contains("rest of it"), "{error}");
    half.write_all(b"k").unwrap();
    assert_eq!(other.recv_bytes().unwrap(), b"ok");
    one.send_bytes(b"a message").unwrap();
    assert!(other.recv_fd().unwrap_err().to_string().contains("without one"));
    assert!(one.send_bytes(b"more").unwrap_err().is_disconnected(), "it was hung up");
}

#[test]
fn sending_one_takes_no_longer_than_it_may() {
    let (one, _other) = pipe().unwrap();
    while one.send_bytes_timeout(&[0; 1000], Duration::ZERO).is_ok() {}
    // The rest of what was begun is still in the way.
    assert!(one.send_fd_timeout(&one, Duration::from_millis(5)).unwrap_err().is_timeout());
}

const PYTHON: &str = "
import os, sys
from multiprocessing import reduction
from multiprocessing.connection import Client
with Client(sys.argv[1], authkey=b'key') as connection:
    reader, writer = os.pipe()
    reduction.send_handle(connection, reader, None)
    os.write(writer, b'written by python')
    os.close(writer)
    with open(reduction.recv_handle(connection), 'rb') as file:
        connection.send_bytes(file.read())
";

#[test]
fn descriptors_travel_to_python_and_back() {
    let path = std::env::temp_dir().join(format!("forkyard-fd-{}", own_pid()));
    let listener = Listener::bind(path.clone()).unwrap().authkey(AuthKey::new("key")).allow_md5();
    let mut python = Command::new("python3");
    python.args(["-c", PYTHON]).arg(&path).stdin(Stdio::null());
    let mut python = python.spawn().expect("python3 is needed here");
    let connection = listener.accept_timeout(DEADLINE).unwrap();
    let mut text = String::new();
    File::from(connection.recv_fd_timeout(DEADLINE).unwrap()).read_to_string(&mut text).unwrap();
    assert_eq!(text, "written by python");
    let (reader, mut writer) = std::io::pipe().unwrap();
    connection.send_fd(OwnedFd::from(reader)).unwrap();
    writer.write_all(b"read by python").unwrap();
    drop(writer);
    assert_eq!(connection.recv_bytes_timeout(DEADLINE).unwrap(), b"read by python");
    assert!(python.wait().unwrap().success());
}

#[derive(serde::Serialize, serde::Deserialize)]
struct Parcel {
    name: String,
    files: Vec<Fd>,
    line: Option<Connection>,
    filling: Vec<u8>,
}

/// Writes into the files of a message, and answers over the connection in it.
#[forkyard::task]
fn uses_a_message(parent: Connection) {
    let parcel: Parcel = parent.recv().unwrap();
    for file in parcel.files {
        File::from(file).write_all(parcel.name.as_bytes()).unwrap();
    }
    parcel.line.unwrap().send(&parcel.filling.len()).unwrap();
}

fn parcel(file: &File, line: Option<Connection>, filling: usize) -> Parcel {
    let files = (0..2).map(|_| file.try_clone().unwrap().into()).collect();
    Parcel { name: "told".to_owned(), files, line, filling: vec![1; filling] }
}

fn memory() -> File {
    File::from(forkyard_sys::memfd::holding("shared", b"").unwrap())
}

#[forkyard::task]
fn descriptors_in_messages() {
    // In one piece, and larger than what a socket takes at once.
    for filling in [0, 1 << 20] {
        let (ours, theirs) = pipe().unwrap();
        let child = process::spawn(uses_a_message, (theirs,)).unwrap();
        let mut file = memory();
        let (one, other) = pipe().unwrap();
        ours.send(&parcel(&file, Some(other), filling)).unwrap();
        assert_eq!(one.recv::<usize>().unwrap(), filling);
        assert!(one.recv::<usize>().unwrap_err().is_disconnected(), "nobody else has the other end");
        child.join().unwrap();
        let mut text = String::new();
        file.rewind().unwrap();
        file.read_to_string(&mut text).unwrap();
        assert_eq!(text, "toldtold");
    }
}

#[test]
fn values_with_descriptors_in_them_are_sent_in_one_call() {
    isolated(descriptors_in_messages);
}

/// Killed while it waits for the rest of a message whose descriptors have come.
#[forkyard::task]
fn waits_for_more(parent: Connection) {
    let _ = parent.recv::<Parcel>();
}

#[forkyard::task]
fn who_dies_has_none() {
    let (ours, theirs) = pipe().unwrap();
    let child = process::spawn(waits_for_more, (theirs,)).unwrap();
    let (one, other) = pipe().unwrap();
    let large = parcel(&memory(), Some(other), 4 << 20);
    let sent = ours.send_timeout(&large, Duration::from_millis(50));
    drop(large);
    assert!(sent.is_err() || one.poll(Duration::ZERO).is_ok());
    child.kill().unwrap();
    child.join().unwrap_err();
    drop(ours);
    assert!(one.recv::<usize>().unwrap_err().is_disconnected(), "it went with who had it");
    // One that nobody received goes with the pipe.
    let (ours, theirs) = pipe().unwrap();
    let (one, other) = pipe().unwrap();
    ours.send(&other).unwrap();
    drop((other, ours, theirs));
    assert!(one.recv::<usize>().unwrap_err().is_disconnected());
}

#[test]
fn descriptors_of_a_message_go_with_who_is_killed() {
    isolated(who_dies_has_none);
}

#[forkyard::task]
fn unwanted_and_unsent() {
    let before = open_fds();
    {
        let (one, other) = pipe().unwrap();
        let file = memory();
        // Asked for as bytes, or as another value, or cut off.
        one.send(&parcel(&file, None, 0)).unwrap();
        other.recv_bytes().unwrap();
        one.send(&parcel(&file, None, 0)).unwrap();
        assert!(other.recv::<String>().is_ok_and(|name| name == "told"), "the rest of it is not looked at");
        one.send(&7u32).unwrap();
        assert!(other.recv::<Fd>().is_err(), "none came with it");
        let many: Vec<Fd> = (0..300).map(|_| file.try_clone().unwrap().into()).collect();
        assert!(one.send(&many).unwrap_err().is_invalid());
        one.send(&"still of use").unwrap();
        assert_eq!(other.recv::<String>().unwrap(), "still of use");
        drop(many);
        // No room: not begun, so it may be sent again.
        while one.send_bytes_timeout(&[0; 1000], Duration::ZERO).is_ok() {}
        assert!(one.send_timeout(&parcel(&file, None, 0), Duration::ZERO).unwrap_err().is_timeout());
    }
    let listener = Listener::bind(Address::Tcp(([127, 0, 0, 1], 0).into())).unwrap();
    let client = Client::new(listener.address().clone()).connect().unwrap();
    let refused = client.send(&parcel(&memory(), None, 0)).unwrap_err();
    assert!(refused.is_invalid() && refused.to_string().contains("carry descriptors"), "{refused}");
    drop((client, listener));
    assert_eq!(open_fds(), before);
}

#[test]
fn descriptors_that_do_not_arrive_are_closed() {
    isolated(unwanted_and_unsent);
}
