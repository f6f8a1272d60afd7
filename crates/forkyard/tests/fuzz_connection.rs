//! Peers that send anything: a listener lets none of them in and counts each, a client believes none of them, and a connection gets messages
//! or errors from them; all of it in time.
//!
//! About 2 s each; 60 s with `FORKYARD_LONG=1`.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by a panic")]

mod common;

use std::io::{Read, Write};
use std::net::Shutdown;
use std::os::fd::OwnedFd;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use common::random::Random;
use common::{DEADLINE, eventually, own_pid};
use forkyard::channel::{AuthKey, Client, Connection, Listener};

fn path(name: &str) -> PathBuf {
    std::env::temp_dir().join(format!("forkyard-fuzz-{}-{name}", own_pid()))
}

fn key() -> AuthKey {
    AuthKey::new("key")
}

/// Fresh randomness until the time is up.
fn seeds() -> impl Iterator<Item = Random> {
    let long = std::env::var_os("FORKYARD_LONG").is_some();
    let end = Instant::now() + Duration::from_secs(if long { 60 } else { 2 });
    (0..).map(Random::new).take_while(move |_| Instant::now() < end)
}

fn bytes(random: &mut Random, most: u64) -> Vec<u8> {
    (0..random.below(most)).map(|_| random.next() as u8).collect()
}

/// Something like a frame of a handshake.
fn frame(random: &mut Random) -> Vec<u8> {
    let words: [&[u8]; 8] = [
        b"#CHALLENGE#",
        b"#WELCOME#",
        b"#FAILURE#",
        b"{sha256}",
        b"{md5}",
        b"{sha384}",
        b"",
        b"#CHALLENGE#{sha256}",
    ];
    let mut body = words[random.below(8) as usize].to_vec();
    body.extend(match random.below(4) {
        0 => vec![7; 16],
        1 => vec![7; 32],
        2 => Vec::new(),
        _ => bytes(random, 300),
    });
    let said = match random.below(8) {
        0 => random.next() as u32,
        1 => 0,
        2 => u32::MAX,
        _ => body.len() as u32,
    };
    [&said.to_be_bytes()[..], &body].concat()
}

/// Says all sorts of things, and leaves or not. It may be thrown out at any time.
fn rave(random: &mut Random, stream: &mut UnixStream) {
    for _ in 0..random.below(5) {
        let said = if random.below(4) == 0 { bytes(random, 1000) } else { frame(random) };
        let _ = stream.write_all(&said);
        if random.below(3) == 0 {
            let _ = stream.set_nonblocking(true);
            let _ = stream.read(&mut [0; 100]);
            let _ = stream.set_nonblocking(false);
        }
    }
    let _ = stream.shutdown([Shutdown::Read, Shutdown::Write, Shutdown::Both][random.below(3) as usize]);
}

#[test]
fn a_listener_counts_whoever_sends_anything_else() {
    let listener = Listener::bind(path("listener")).unwrap().authkey(key()).handshake_timeout(DEADLINE);
    let over = AtomicBool::new(false);
    thread::scope(|scope| {
        let raving = scope.spawn(|| {
            let mut count = 0;
            for mut random in seeds() {
                let mut stream = UnixStream::connect(path("listener")).unwrap();
                rave(&mut random, &mut stream);
                count += 1;
            }
            // Among all of these somebody who knows the key.
            let client = Client::new(path("listener")).authkey(key()).timeout(DEADLINE).connect().unwrap();
            client.send(&1u8).unwrap();
            over.store(true, Ordering::SeqCst);
            count
        });
        let mut let_in = Vec::new();
        eventually("all have raved", || {
            let_in.extend(listener.accept_timeout(Duration::from_millis(1)));
            over.load(Ordering::SeqCst) && !let_in.is_empty()
        });
        assert_eq!(let_in.len(), 1);
        assert_eq!(let_in[0].recv::<u8>().unwrap(), 1);
        let count = raving.join().unwrap();
        eventually("all are counted", || {
            assert!(listener.try_accept().unwrap_err().is_timeout());
            listener.dropped() == count
        });
        println!("{count} peers");
    });
}

#[test]
fn a_client_believes_nobody_who_says_anything_else() {
    let socket = UnixListener::bind(path("server")).unwrap();
    let over = AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| {
            let mut random = Random::new(7);
            while let Ok((mut stream, _)) = socket.accept() {
                if over.load(Ordering::SeqCst) {
                    return;
                }
                rave(&mut random, &mut stream);
            }
        });
        let mut count = 0;
        for _ in seeds() {
            let client = Client::new(path("server")).authkey(key()).timeout(Duration::from_millis(20));
            let error = client.connect().unwrap_err();
            assert!(!error.to_string().is_empty());
            count += 1;
        }
        println!("{count} servers");
        over.store(true, Ordering::SeqCst);
        UnixStream::connect(path("server")).unwrap();
    });
    std::fs::remove_file(path("server")).unwrap();
}

#[test]
fn a_connection_gets_messages_or_errors() {
    let mut messages = 0;
    for mut random in seeds() {
        let (mut one, other) = UnixStream::pair().unwrap();
        let connection = Connection::from(OwnedFd::from(other));
        rave(&mut random, &mut one);
        drop(one);
        loop {
            match random.below(3) {
                0 => match connection.recv_timeout::<(u8, String)>(DEADLINE) {
                    Ok(_) => messages += 1,
                    Err(error) if error.is_disconnected() => break,
                    Err(error) => assert!(!error.is_timeout(), "{error}"),
                },
                1 if connection.recv_fd_timeout(Duration::ZERO).is_ok() => panic!("nobody sent a descriptor"),
                _ => match connection.recv_bytes_timeout(DEADLINE) {
                    Ok(_) => messages += 1,
                    Err(error) if error.is_disconnected() => break,
                    Err(error) => assert!(!error.is_timeout(), "{error}"),
                },
            }
        }
    }
    println!("{messages} messages");
}
