//! Prefork workers with many connections each: gathered on one while it does, spread where it does not.

use std::collections::BTreeSet;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use forkyard_sys::fallback::{Feature, VARIABLE, forced};

use crate::kills::{busy, server_of};
use crate::support::{Running, Spec, ask, connect, exchange, kill, pids};

fn prefork(workers: usize) -> Spec {
    Spec { prefork: true, workers: Some(workers), max_connections: 1000, ..Spec::default() }
}

#[test]
fn connections_are_gathered_on_one_worker_and_a_stopped_one_gets_no_more() {
    let mut server = Running::start(&prefork(3));
    let mut first: Vec<_> = (0..8).map(|_| busy(&mut server)).collect();
    let count = |pid: u32| first.iter().filter(|(_, other)| *other == pid).count();
    let stopped = first.iter().map(|(_, pid)| *pid).max_by_key(|pid| count(*pid)).unwrap();
    // On a loaded machine one or the other goes to the next, because the first worker does not get to take it in time.
    let gathered = count(stopped);
    assert!(gathered > 4, "{first:?}");
    assert!(kill(stopped, "-STOP"));
    let mut others: Vec<_> = (0..8).map(|_| busy(&mut server)).collect();
    assert!(others.iter().all(|(_, pid)| *pid != stopped), "{stopped}: {others:?}");
    // Killed, it takes its own along and no other.
    assert!(kill(stopped, "-KILL"));
    others.append(&mut first);
    for (stream, pid) in &mut others {
        assert_eq!(ask(stream, "b").ok().as_deref(), (*pid != stopped).then_some("B"));
    }
    let left = 16 - gathered;
    server.wait_for("the loss", |stats| stats["lost"] == gathered && stats["active"] == left);
    drop(others);
    assert_eq!(server.stop()["served"], left);
}

#[test]
fn a_worker_that_goes_on_takes_connections_again() {
    let mut server = Running::start(&prefork(2));
    let (mut stream, first) = busy(&mut server);
    assert!(kill(first, "-STOP"));
    let (mut other, second) = busy(&mut server);
    assert_ne!(first, second);
    assert!(kill(first, "-CONT"));
    assert_eq!(ask(&mut stream, "b").unwrap(), "B");
    assert!(kill(second, "-STOP"));
    for _ in 0..3 {
        assert_eq!(exchange(server.address(), "c\n"), "C\n");
    }
    assert!(kill(second, "-CONT"));
    assert_eq!(ask(&mut other, "d").unwrap(), "D");
    drop((stream, other));
    server.wait_for("the end of all", |stats| stats["active"] == 0);
    let stats = server.stop();
    assert_eq!((&stats["served"], &stats["lost"]), (&5.into(), &0.into()), "{stats:#}");
}

#[test]
fn workers_without_descriptors_leave_connections_to_others() {
    let spec = Spec { rlimits: vec!["nofile=24".to_owned()], ..prefork(3) };
    let mut server = Running::start(&spec);
    let mut streams: Vec<_> = (0..30).map(|_| connect(server.address())).collect();
    for stream in &mut streams {
        assert_eq!(ask(stream, "a").unwrap(), "A");
    }
    let stats = server.wait_for("all of them", |stats| stats["active"] == 30);
    assert_eq!(pids(&stats, |_| true).len(), 3, "nobody died of it: {stats:#}");
    drop(streams);
    assert_eq!(server.stop()["served"], 30);
}

/// A client that always has something on its way in both directions, until it is told to stop; then it has got all of it back.
fn flood(mut stream: TcpStream, stop: Arc<AtomicBool>) -> std::thread::JoinHandle<TcpStream> {
    let chunk: Vec<u8> = (b'a'..=b'z').cycle().take(26 * 2500).collect();
    std::thread::spawn(move || {
        let mut to = stream.try_clone().unwrap();
        let (lower, upper) = (chunk.clone(), chunk.to_ascii_uppercase());
        let writer = std::thread::spawn(move || {
            let mut chunks = 0;
            while !stop.load(Ordering::Relaxed) {
                to.write_all(&lower).unwrap();
                chunks += 1;
            }
            to.write_all(b".").unwrap();
            chunks
        });
        let (mut chunks, mut answer) = (0, vec![0; upper.len()]);
        loop {
            stream.read_exact(&mut answer[..1]).unwrap();
            if answer[0] == b'.' {
                break;
            }
            stream.read_exact(&mut answer[1..]).unwrap();
            assert!(answer == upper, "what was sent came back in capitals and in order");
            chunks += 1;
        }
        assert_eq!(chunks, writer.join().unwrap());
        stream
    })
}

#[test]
fn a_worker_that_is_busy_all_the_time_gives_connections_to_the_others() {
    if !forced(Feature::CpuTimes) {
        // Whether a processor is idle, nobody can promise: this asks for one for which all count as idle.
        let name = "spread::a_worker_that_is_busy_all_the_time_gives_connections_to_the_others";
        let again = std::process::Command::new(std::env::current_exe().unwrap())
            .args([name, "--exact", "--nocapture"])
            .env(VARIABLE, "cpu-times")
            .output();
        let again = again.unwrap();
        assert!(again.status.success(), "{}", String::from_utf8_lossy(&again.stderr));
        return;
    }
    let mut server = Running::start(&prefork(3));
    // Behind the clients in everything: so there is always more for them to do, however loaded the machine is.
    for pid in server.workers() {
        let reniced =
            std::process::Command::new("renice").args(["-n", "10", "-p", &pid.to_string()]).output();
        assert!(reniced.unwrap().status.success());
    }
    let stop = Arc::new(AtomicBool::new(false));
    let clients: Vec<_> = (0..4).map(|_| busy(&mut server).0).collect();
    let peers: Vec<_> = clients.iter().map(|stream| stream.local_addr().unwrap().to_string()).collect();
    let clients: Vec<_> = clients.into_iter().map(|stream| flood(stream, Arc::clone(&stop))).collect();
    server.wait_for("the spreading", |stats| {
        let connections = stats["connections"].as_array().unwrap();
        let served: BTreeSet<_> = connections.iter().map(|one| one["pid"].as_u64().unwrap()).collect();
        let all = peers.iter().all(|peer| connections.iter().any(|one| one["peer"] == peer.as_str()));
        assert!(all, "no connection is lost on its way: {stats:#}");
        served.iter().filter(|pid| **pid != 0).count() > 1
    });
    stop.store(true, Ordering::Relaxed);
    let mut clients: Vec<_> = clients.into_iter().map(|client| client.join().unwrap()).collect();
    // Killed, a worker takes along what it serves now and nothing that it served before.
    let mut served: Vec<_> = clients.iter().map(|stream| server_of(&mut server, stream)).collect();
    let killed = served[0];
    assert!(kill(killed, "-KILL"));
    for (stream, pid) in clients.iter_mut().zip(&served) {
        assert_eq!(ask(stream, "b").ok().as_deref(), (*pid != killed).then_some("B"));
    }
    served.retain(|pid| *pid != killed);
    let lost = clients.len() - served.len();
    server.wait_for("the loss", |stats| stats["lost"] == lost && stats["active"] == served.len());
    drop(clients);
    let stats = server.stop();
    assert_eq!(stats["served"], served.len(), "{stats:#}");
}
