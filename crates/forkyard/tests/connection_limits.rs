//! Deaths, deadlines, floods and long messages: what a connection and a listener bear.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by a panic")]

mod common;

use std::io::{Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use common::{DEADLINE, eventually, isolated, own_pid};
use forkyard::channel::{Address, AuthKey, Client, Connection, Listener, connect, pipe, wait};
use forkyard::process::{self, Builder, Start};

const SHORT: Duration = Duration::from_millis(20);

fn path(name: &str) -> PathBuf {
    std::env::temp_dir().join(format!("forkyard-limits-{}-{name}", own_pid()))
}

fn key() -> AuthKey {
    AuthKey::new("key")
}

#[forkyard::task]
fn stays(connection: Connection) {
    connection.send(&"here").unwrap();
    loop {
        thread::park();
    }
}

#[forkyard::task]
fn the_last_holder_is_killed() {
    for start in [Start::Zygote, Start::Spawn] {
        let (ours, theirs) = pipe().unwrap();
        // Both have the other end.
        let copy = Connection::from(theirs.as_fd().try_clone_to_owned().unwrap());
        let children = [theirs, copy].map(|end| Builder::new().start(start).spawn(stays, (end,)).unwrap());
        for _ in &children {
            assert_eq!(ours.recv::<String>().unwrap(), "here");
        }
        let [one, other] = children;
        one.kill().unwrap();
        one.wait_ended().unwrap();
        assert!(ours.recv_bytes_timeout(SHORT).unwrap_err().is_timeout(), "somebody has it still");
        thread::scope(|scope| {
            // More than fits: it waits until somebody reads, and nobody does.
            let sender = scope.spawn(|| ours.send_bytes(&vec![0; 8 << 20]).unwrap_err());
            let receiver = scope.spawn(|| ours.recv_bytes().unwrap_err());
            let ready = wait(&[other.as_fd()], Some(SHORT)).unwrap();
            assert!(ready.is_empty(), "it lives");
            other.kill().unwrap();
            assert!(sender.join().unwrap().is_disconnected());
            assert!(receiver.join().unwrap().is_disconnected());
        });
        assert_eq!(wait(&[ours.as_fd(), other.as_fd()], Some(DEADLINE)).unwrap()[0], 0);
        other.wait_ended().unwrap();
        assert_eq!(wait(&[ours.as_fd(), other.as_fd()], Some(DEADLINE)).unwrap(), [0, 1]);
    }
}

#[test]
fn the_end_is_told_when_the_last_other_end_is_killed() {
    isolated(the_last_holder_is_killed);
}

#[forkyard::task]
fn answers(connection: Connection) {
    while let Ok(number) = connection.recv::<u32>() {
        connection.send(&(number + 1)).unwrap();
    }
}

#[forkyard::task]
fn many_are_waited_for() {
    let pipes: Vec<_> = (0..20).map(|_| pipe().unwrap()).collect();
    let (ours, theirs): (Vec<_>, Vec<_>) = pipes.into_iter().unzip();
    let children: Vec<_> = theirs.into_iter().map(|end| process::spawn(answers, (end,)).unwrap()).collect();
    let both: Vec<_> =
        ours.iter().map(AsFd::as_fd).chain(children.iter().map(|child| child.as_fd())).collect();
    for number in [7, 0, 19] {
        ours[number].send(&41u32).unwrap();
        assert_eq!(process::wait_any_timeout(&both, DEADLINE).unwrap(), [number]);
        assert_eq!(ours[number].recv::<u32>().unwrap(), 42);
    }
    children[3].kill().unwrap();
    // Its end of the pipe and its own are two events.
    eventually("both are told", || wait(&both, Some(DEADLINE)).unwrap() == [3, 23]);
    drop(ours);
    for (number, child) in children.into_iter().enumerate() {
        assert_eq!(child.join().is_ok(), number != 3);
    }
}

#[test]
fn connections_and_processes_are_waited_for_together() {
    isolated(many_are_waited_for);
}

#[test]
fn a_deadline_is_kept_while_another_thread_has_its_turn() {
    let (one, other) = pipe().unwrap();
    let listener = Listener::bind(path("turns")).unwrap().authkey(key());
    thread::scope(|scope| {
        let receiver = scope.spawn(|| one.recv_bytes().unwrap());
        let acceptor = scope.spawn(|| listener.accept().unwrap());
        // Whoever comes first, the other's time is kept.
        for _ in 0..5 {
            assert!(one.recv_bytes_timeout(SHORT).unwrap_err().is_timeout());
            assert!(one.try_recv_bytes().unwrap_err().is_timeout());
            assert!(listener.accept_timeout(SHORT).unwrap_err().is_timeout());
            assert!(listener.try_accept().unwrap_err().is_timeout());
        }
        other.send_bytes(b"now").unwrap();
        assert_eq!(receiver.join().unwrap(), b"now");
        let client = connect(path("turns"), key()).unwrap();
        client.send(&1u8).unwrap();
        assert_eq!(acceptor.join().unwrap().recv::<u8>().unwrap(), 1);
    });
}

#[test]
fn who_could_not_send_in_time_knows_whether_it_was_begun() {
    let (one, other) = pipe().unwrap();
    let large = vec![7; 8 << 20];
    assert!(one.send_bytes_timeout(&large, SHORT).unwrap_err().is_timeout());
    assert!(one.is_unfinished());
    thread::scope(|scope| {
        let receiver = scope.spawn(|| other.recv_bytes().unwrap());
        one.flush_timeout(DEADLINE).unwrap();
        assert!(receiver.join().unwrap() == large);
    });
    assert!(!one.is_unfinished());
    // Small ones go whole or not at all, as long as there is nothing in the way.
    let mut sent = 0;
    while one.send_bytes_timeout(&[1; 100], Duration::ZERO).is_ok() {
        sent += 1;
    }
    let begun = usize::from(one.is_unfinished());
    thread::scope(|scope| {
        scope.spawn(|| one.flush_timeout(DEADLINE).unwrap());
        for _ in 0..sent + begun {
            assert_eq!(other.recv_bytes().unwrap(), [1; 100]);
        }
    });
    assert!(other.try_recv_bytes().unwrap_err().is_timeout());
}

#[test]
fn a_client_gives_up_in_time() {
    // It never says anything.
    let silent = UnixListener::bind(path("silent")).unwrap();
    let client = Client::new(path("silent")).authkey(key()).timeout(SHORT);
    assert!(client.connect().unwrap_err().is_timeout());
    let tcp = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let client = Client::new(tcp.local_addr().unwrap()).authkey(key()).timeout(SHORT);
    assert!(client.connect().unwrap_err().is_timeout());
    drop(silent);
    std::fs::remove_file(path("silent")).unwrap();
    // It lets nobody in, and then nobody fits any more.
    let full = Listener::bind(path("full")).unwrap().authkey(key());
    let mut inside = Vec::new();
    let error = loop {
        match Client::new(path("full")).timeout(SHORT).connect() {
            Ok(connection) => inside.push(connection),
            Err(error) => break error,
        }
    };
    assert!(error.is_timeout() && !inside.is_empty(), "{error}");
    drop(full);
    let gone = Client::new(path("full")).timeout(SHORT).connect().unwrap_err();
    assert_eq!(gone.errno().unwrap().raw_os_error(), 2, "{gone}");
}

/// Peers that do everything but what they should.
fn nuisances(path: &PathBuf, kind: usize) -> Option<UnixStream> {
    let mut stream = UnixStream::connect(path).ok()?;
    let _ = match kind % 5 {
        0 => Ok(()),
        1 => stream.write_all(b"GET / HTTP/1.0\r\n\r\n"),
        2 => stream.write_all(&[0, 0, 0, 40, b'{']),
        3 => stream.write_all(&[0; 4]),
        _ => stream.write_all(&[255; 5000]),
    };
    Some(stream)
}

#[test]
fn hundreds_of_nuisances_keep_nobody_out_and_are_all_counted() {
    const NUISANCES: usize = 300;
    let path = path("nuisances");
    let listener = Listener::bind(path.clone()).unwrap().authkey(key()).handshake_timeout(DEADLINE);
    let mut refused = 0;
    let all: Vec<_> = thread::scope(|scope| {
        let peers = scope.spawn(|| (0..NUISANCES).filter_map(|kind| nuisances(&path, kind)).collect());
        // One that is slow is dropped for those who come after it, and comes again.
        let client = scope.spawn(|| {
            let mut refused = 0;
            loop {
                match connect(path.clone(), key()) {
                    Ok(connection) => return (connection, refused),
                    Err(_) => refused += 1,
                }
            }
        });
        let connection = listener.accept_timeout(DEADLINE).unwrap();
        let (client, more) = client.join().unwrap();
        refused = more;
        client.send(&5u8).unwrap();
        assert_eq!(connection.recv::<u8>().unwrap(), 5);
        eventually("room for all", || listener.try_accept().is_err() && peers.is_finished());
        peers.join().unwrap()
    });
    assert_eq!(all.len(), NUISANCES);
    // The rest hang up: nobody waits for anything any more.
    drop(all);
    eventually("all are counted", || {
        assert!(listener.try_accept().unwrap_err().is_timeout());
        listener.dropped() == NUISANCES as u64 + refused
    });
}

#[test]
fn accepting_ends_in_time_while_more_nuisances_come() {
    let path = path("flood");
    let listener = Listener::bind(path.clone()).unwrap().authkey(key());
    let over = AtomicBool::new(false);
    thread::scope(|scope| {
        let flood = scope.spawn(|| {
            while !over.load(Ordering::SeqCst) {
                nuisances(&path, 1);
            }
        });
        eventually("they come", || listener.try_accept().is_err() && listener.dropped() > 0);
        for _ in 0..10 {
            assert!(listener.accept_timeout(SHORT).unwrap_err().is_timeout());
        }
        over.store(true, Ordering::SeqCst);
        // The last one may wait for room.
        eventually("the flood has ended", || listener.try_accept().is_err() && flood.is_finished());
    });
}

#[test]
fn who_answers_while_nobody_accepts_is_not_late() {
    let listener = Listener::bind(path("late")).unwrap().authkey(key()).handshake_timeout(SHORT);
    let mut client = UnixStream::connect(path("late")).unwrap();
    let mut first = [0; 4];
    eventually("it is taken in", || {
        let _ = listener.try_accept();
        client.set_nonblocking(true).unwrap();
        client.read(&mut first).is_ok()
    });
    // Not an answer, but in time; the time is up when somebody looks at it.
    client.write_all(&[0, 0, 0, 1, b'x']).unwrap();
    thread::sleep(SHORT * 2);
    assert_eq!(listener.dropped(), 0);
    assert!(listener.try_accept().unwrap_err().is_timeout());
    assert_eq!(listener.dropped(), 1);
    client.set_nonblocking(false).unwrap();
    let mut rest = Vec::new();
    client.read_to_end(&mut rest).unwrap();
    // It was looked at, and refused by name.
    assert!(rest.ends_with(b"#FAILURE#"), "{rest:?}");
}

#[test]
fn a_length_of_eight_bytes_is_one() {
    let (one, other) = UnixStream::pair().unwrap();
    let connection = Connection::from(OwnedFd::from(other));
    let long = [&[255; 4][..], &5u64.to_be_bytes(), b"hello"].concat();
    for byte in long {
        // Byte by byte.
        (&one).write_all(&[byte]).unwrap();
        if byte != b'o' {
            assert!(connection.try_recv_bytes().unwrap_err().is_timeout());
        }
    }
    assert_eq!(connection.recv_bytes().unwrap(), b"hello");
    // More than the short form can say: all that memory only where it is asked for.
    if std::env::var_os("FORKYARD_LONG").is_some() {
        let (one, other) = pipe().unwrap();
        let message = vec![3; (2 << 30) + 5];
        thread::scope(|scope| {
            scope.spawn(|| one.send_bytes(&message).unwrap());
            assert!(other.recv_bytes().unwrap() == message);
        });
    }
}

#[test]
fn an_address_in_use_is_said_to_be() {
    let first = Listener::bind(path("twice")).unwrap();
    let error = Listener::bind(path("twice")).unwrap_err();
    assert_eq!(error.errno().unwrap().raw_os_error(), 98, "{error}");
    drop(first);
    Listener::bind(Address::Unix(path("twice"))).unwrap();
}
