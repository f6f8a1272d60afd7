//! kill -9 of anybody: the others notice nothing, and nothing is left.

use std::net::TcpStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use crate::support::{Running, Spec, ask, children_of, connect, eventually, exchange, exists, kill, pids};

fn both_modes() -> [Spec; 3] {
    let blocking = Spec { prefork: true, handler: "lines".to_owned(), ..Spec::default() };
    [Spec::default(), Spec { prefork: true, ..Spec::default() }, blocking]
}

/// A connection, and the pid that serves it.
pub(crate) fn busy(server: &mut Running) -> (TcpStream, u32) {
    let mut stream = connect(server.address());
    assert_eq!(ask(&mut stream, "a").unwrap(), "A");
    let pid = server_of(server, &stream);
    (stream, pid)
}

/// The pid that serves a connection.
pub(crate) fn server_of(server: &mut Running, stream: &TcpStream) -> u32 {
    let from = stream.local_addr().unwrap().to_string();
    let connected = |stats: &serde_json::Value| {
        let mut connections = stats["connections"].as_array().unwrap().iter();
        let found = connections.find(|one| one["peer"] == from.as_str());
        found.and_then(|one| one["pid"].as_u64()).filter(|pid| *pid != 0)
    };
    let stats = server.wait_for("the connection", |stats| connected(stats).is_some());
    connected(&stats).unwrap() as u32
}

#[test]
fn killing_a_spare_goes_unnoticed() {
    for spec in both_modes() {
        let mut server = Running::start(&spec);
        let (mut stream, serving) = busy(&mut server);
        for _ in 0..3 {
            let spares = server.workers();
            for spare in spares.into_iter().filter(|pid| *pid != serving) {
                kill(spare, "-9");
            }
            assert_eq!(ask(&mut stream, "b").unwrap(), "B");
            assert!(exchange(server.address(), "c\n").starts_with("C\n"));
            // Whoever served that is a spare only when it has said so.
            server.wait_for("its end", |stats| stats["active"] == 1);
        }
        drop(stream);
        let stats = server.stop();
        assert_eq!(stats["lost"], 0, "{stats:#}");
        assert!(stats["died"].as_array().unwrap()[0][0] == 9);
    }
}

#[test]
fn killing_a_busy_child_takes_down_its_connections_only() {
    for spec in both_modes() {
        let mut server = Running::start(&spec);
        let (mut first, killed) = busy(&mut server);
        let mut others: Vec<_> = (0..2).map(|_| busy(&mut server)).collect();
        kill(killed, "-9");
        assert!(ask(&mut first, "b").is_err());
        let before = others.len();
        others.retain(|(_, pid)| *pid != killed);
        let lost = 1 + before - others.len();
        for (stream, _) in &mut others {
            assert_eq!(ask(stream, "b").unwrap(), "B");
        }
        server.wait_for("the loss", |stats| stats["lost"] == lost);
        assert!(exchange(server.address(), "c\n").starts_with("C\n"));
        drop(others);
        server.stop();
    }
}

#[test]
fn killing_children_that_were_started_with_their_connections_takes_down_those_only() {
    // One spare: all but the first few have nobody waiting for them.
    let mut server = Running::start(&Spec { workers: Some(1), ..Spec::default() });
    let streams: Vec<TcpStream> = (0..8).map(|_| connect(server.address())).collect();
    let mut all: Vec<(TcpStream, u32)> = Vec::new();
    for mut stream in streams {
        assert_eq!(ask(&mut stream, "a").unwrap(), "A");
        let pid = server_of(&mut server, &stream);
        all.push((stream, pid));
    }
    for (at, (stream, pid)) in all.iter_mut().enumerate() {
        if at % 2 == 0 {
            kill(*pid, "-9");
            assert!(ask(stream, "b").is_err());
        }
    }
    for (stream, _) in all.iter_mut().skip(1).step_by(2) {
        assert_eq!(ask(stream, "c").unwrap(), "C");
    }
    server.wait_for("the killed", |stats| stats["active"] == 4);
    drop(all);
    let stats = server.stop();
    assert_eq!(stats["lost"], 4, "{stats:#}");
    assert_eq!(stats["served"], 4, "{stats:#}");
}

#[test]
fn killing_the_zygote_goes_unnoticed() {
    for spec in both_modes() {
        let mut server = Running::start(&spec);
        let (mut stream, _) = busy(&mut server);
        for round in 1..=3 {
            let zygote =
                server.wait_for("a zygote", |stats| stats["zygote"] != 0)["zygote"].as_u64().unwrap() as u32;
            kill(zygote, "-9");
            assert_eq!(ask(&mut stream, "b").unwrap(), "B");
            for _ in 0..5 {
                assert!(exchange(server.address(), "c\n").starts_with("C\n"));
            }
            server.wait_for("the revival", |stats| stats["restarted"].as_u64().unwrap() >= round);
            eventually("its end", || !exists(zygote));
        }
        drop(stream);
        assert_eq!(server.stop()["lost"], 0);
    }
}

#[test]
fn when_the_master_is_killed_nothing_is_left_within_a_second() {
    for spec in both_modes() {
        let mut server = Running::start(&spec);
        let (stream, _) = busy(&mut server);
        let children = children_of(server.pid());
        assert!(children.len() >= 4, "{children:?}");
        server.kill_9();
        let killed = std::time::Instant::now();
        eventually("the end of all", || !children.iter().any(|pid| exists(*pid)));
        // Generous against a loaded machine: what is claimed is one second.
        assert!(killed.elapsed() < std::time::Duration::from_secs(5));
        drop(stream);
    }
}

#[test]
fn workers_that_die_at_once_are_started_again_later_and_later() {
    // A worker with so little address space cannot even begin.
    let spec = Spec { prefork: true, handler: "lines".to_owned(), ..Spec::default() };
    let mut server = Running::start(&spec);
    for _ in 0..4 {
        let killed = server.workers();
        for &pid in &killed {
            kill(pid, "-9");
        }
        server.wait_for("the workers' return", |stats| {
            let idle = pids(stats, |state| state == "idle");
            idle.len() == 3 && idle.iter().all(|pid| !killed.contains(pid))
        });
    }
    // Twelve deaths in a row double the delay to more than a second: fewer restarts than deaths could be had.
    let stats = server.wait_for("the count", |stats| stats["restarted"] == 12);
    assert_eq!(stats["died"][0][1], 12);
    assert!(exchange(server.address(), "c\n").starts_with("C\n"));
    server.stop();
}

/// Most children that are killed between two answers.
const IN_A_ROW: usize = 3;

#[test]
fn a_storm_of_kills_loses_only_connections_of_killed_children() {
    // Without a zygote every connection costs an exec.
    let each: u64 = if std::env::var_os("FORKYARD_TEST_FALLBACK").is_some() { 40 } else { 200 };
    for spec in both_modes() {
        let spec = Spec { workers: Some(4), ..spec };
        let mut server = Running::start(&spec);
        let (address, pid) = (server.address(), server.pid());
        // Counted up by each answer, and each failure; the killer goes by it, so that it leaves a slow machine time to make progress.
        let progress = Arc::new(AtomicUsize::new(0));
        let stop = Arc::new(AtomicBool::new(false));
        let clients: Vec<_> = (0..4)
            .map(|_| {
                let progress = Arc::clone(&progress);
                std::thread::spawn(move || {
                    let mut failed = 0;
                    for i in 0..each {
                        let mut stream = connect(address);
                        match ask(&mut stream, &format!("x{i}")) {
                            Ok(answer) => assert_eq!(answer, format!("X{i}")),
                            Err(_) => failed += 1,
                        }
                        progress.fetch_add(1, Ordering::Relaxed);
                    }
                    failed
                })
            })
            .collect();
        let killer = {
            let (progress, stop) = (Arc::clone(&progress), Arc::clone(&stop));
            std::thread::spawn(move || {
                let (mut killed, mut n, mut last, mut in_a_row) = (0, 0usize, 0, 0);
                while !stop.load(Ordering::Relaxed) {
                    let now = progress.load(Ordering::Relaxed);
                    if now != last {
                        (last, in_a_row) = (now, 0);
                    }
                    if in_a_row < IN_A_ROW {
                        let children = children_of(pid);
                        n = n.wrapping_mul(31).wrapping_add(7);
                        if let Some(child) = children.get(n % children.len().max(1)) {
                            in_a_row += 1;
                            killed += usize::from(kill(*child, "-9"));
                        }
                    }
                    std::thread::sleep(std::time::Duration::from_millis(5)); // the rhythm of the kills
                }
                killed
            })
        };
        let failed: usize = clients.into_iter().map(|client| client.join().unwrap()).sum();
        stop.store(true, Ordering::Relaxed);
        let killed = killer.join().unwrap();
        let stats = server.wait_for("the end", |stats| stats["active"] == 0 && stats["pending"] == 0);
        assert_eq!(stats["accepted"], 4 * each);
        // A client sees its connection fail only because its child was killed.
        assert!(
            stats["lost"].as_u64().unwrap() as usize >= failed,
            "{failed} failed, {killed} killed: {stats:#}"
        );
        assert!(failed <= killed * 8, "{failed} failed, {killed} killed");
        let after = server.stop();
        assert_eq!(
            after["served"].as_u64().unwrap() + after["lost"].as_u64().unwrap(),
            4 * each,
            "{after:#}"
        );
        assert!(children_of(pid).is_empty());
    }
}
