//! What a running server is told: stop, reload, one worker more or less.

use std::time::{Duration, Instant};

use crate::support::{Running, Spec, ask, children_of, connect, eventually, exchange, exists, kill, pids};

fn all_modes() -> [Spec; 3] {
    let blocking = Spec { prefork: true, handler: "lines".to_owned(), ..Spec::default() };
    [Spec::default(), Spec { prefork: true, ..Spec::default() }, blocking]
}

#[test]
fn a_graceful_stop_lets_connections_finish_and_takes_in_no_more() {
    for spec in all_modes() {
        let mut server = Running::start(&spec);
        let (address, pid) = (server.address(), server.pid());
        let mut stream = connect(address);
        assert_eq!(ask(&mut stream, "a").unwrap(), "A");
        server.order("stop");
        eventually("the listener's end", || std::net::TcpStream::connect(address).is_err());
        assert_eq!(ask(&mut stream, "b").unwrap(), "B");
        assert!(exists(pid));
        drop(stream);
        let stats = server.join();
        // Asking whether the listener is gone may have connected once more.
        assert_eq!((&stats["served"], &stats["lost"]), (&stats["accepted"], &0.into()));
    }
}

#[test]
fn who_has_connected_before_the_stop_is_served() {
    for spec in all_modes() {
        let mut server = Running::start(&Spec { max_connections: 200, ..spec });
        let mut streams: Vec<_> = (0..50).map(|_| connect(server.address())).collect();
        server.order("stop");
        for stream in &mut streams {
            assert_eq!(ask(stream, "a").unwrap(), "A");
            stream.shutdown(std::net::Shutdown::Both).unwrap();
        }
        assert_eq!(server.join()["lost"], 0);
    }
}

#[test]
fn after_the_grace_period_children_get_term() {
    for spec in all_modes() {
        let mut server = Running::start(&Spec { grace_ms: 100, ..spec });
        let mut stream = connect(server.address());
        assert_eq!(ask(&mut stream, "a").unwrap(), "A");
        server.order("stop");
        let stats = server.join();
        assert_eq!(stats["died"][0][0], 15, "{stats:#}");
        assert!(ask(&mut stream, "b").is_err());
    }
}

#[test]
fn who_ignores_term_gets_kill() {
    let spec = Spec {
        handler: "program".to_owned(),
        program: ["sh", "-c", "trap '' TERM; echo deaf; while :; do sleep 1; done"].map(str::to_owned).into(),
        grace_ms: 50,
        ..Spec::default()
    };
    let mut server = Running::start(&spec);
    let mut stream = connect(server.address());
    assert_eq!(crate::support::read_line(&mut stream).unwrap(), "deaf");
    let began = Instant::now();
    server.order("stop");
    let stats = server.join();
    assert_eq!(stats["died"][0][0], 9, "{stats:#}");
    assert!(began.elapsed() >= Duration::from_secs(2), "TERM had its time");
}

#[test]
fn stop_now_waits_for_nobody() {
    for spec in all_modes() {
        let mut server = Running::start(&spec);
        let pid = server.pid();
        let mut stream = connect(server.address());
        assert_eq!(ask(&mut stream, "a").unwrap(), "A");
        server.order("stop now");
        let stats = server.join();
        assert_eq!(stats["lost"], 1, "{stats:#}");
        assert!(children_of(pid).is_empty());
    }
}

#[test]
fn a_reload_brings_fresh_children_and_disturbs_nobody() {
    for spec in all_modes() {
        let mut server = Running::start(&spec);
        let mut stream = connect(server.address());
        assert_eq!(ask(&mut stream, "a").unwrap(), "A");
        let old = server.wait_for("the connection", |stats| stats["active"] == 1);
        let (old, zygote) = (pids(&old, |_| true), old["zygote"].clone());
        server.order("reload");
        let stats = server.wait_for("the reload", |stats| stats["generation"] == 1);
        assert_ne!(stats["zygote"], zygote);
        // Old ones that have nothing to do may take a moment to leave.
        server.wait_for("three fresh children and no other idle ones", |stats: &serde_json::Value| {
            let idle = pids(stats, |state| state == "idle");
            idle.len() == 3 && idle.iter().all(|pid| !old.contains(pid))
        });
        assert_eq!(ask(&mut stream, "b").unwrap(), "B");
        assert!(exchange(server.address(), "c\n").starts_with("C\n"));
        drop(stream);
        eventually("the old ones' end", || !old.iter().any(|pid| exists(*pid)));
        assert_eq!(server.stop()["lost"], 0);
    }
}

#[test]
fn workers_come_and_go_one_at_a_time() {
    for spec in all_modes() {
        let mut server = Running::start(&spec);
        let idle = |n: usize| move |stats: &serde_json::Value| pids(stats, |_| true).len() == n;
        server.wait_for("three", idle(3));
        server.order("more");
        server.wait_for("four", idle(4));
        for left in [3, 2, 1] {
            server.order("less");
            server.wait_for("one less", idle(left));
        }
        server.order("less");
        assert!(exchange(server.address(), "c\n").starts_with("C\n"), "never fewer than one");
        server.stop();
    }
}

#[test]
fn a_stopped_spare_keeps_nobody_waiting() {
    for spec in [Spec::default(), Spec { prefork: true, handler: "lines".to_owned(), ..Spec::default() }] {
        let mut server = Running::start(&Spec { workers: Some(1), ..spec });
        let spare = server.workers()[0];
        assert!(kill(spare, "-STOP"));
        assert!(exchange(server.address(), "a\n").starts_with("A\n"));
        assert!(kill(spare, "-CONT"));
        assert!(exchange(server.address(), "b\n").starts_with("B\n"));
        let stats = server.stop();
        assert_eq!((&stats["accepted"], &stats["lost"]), (&2.into(), &0.into()), "{stats:#}");
    }
}
