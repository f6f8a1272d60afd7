//! Limits defer and never refuse; what the system runs out of is waited for.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use crate::support::{Running, Spec, ask, connect, exchange, read_line};

fn both_modes() -> [Spec; 3] {
    let blocking = Spec { prefork: true, handler: "lines".to_owned(), ..Spec::default() };
    [Spec::default(), Spec { prefork: true, ..Spec::default() }, blocking]
}

/// Sends a line at once; the answer may come much later.
fn send(stream: &mut TcpStream, line: &str) {
    stream.write_all(format!("{line}\n").as_bytes()).unwrap();
}

/// True if nothing comes for a while.
fn is_silent(stream: &mut TcpStream) -> bool {
    stream.set_read_timeout(Some(Duration::from_millis(100))).unwrap();
    let quiet = [std::io::ErrorKind::WouldBlock, std::io::ErrorKind::Interrupted];
    let silent = stream.read(&mut [0]).is_err_and(|error| quiet.contains(&error.kind()));
    stream.set_read_timeout(Some(crate::support::PATIENCE)).unwrap();
    silent
}

#[test]
fn beyond_the_limit_in_all_connections_wait_in_the_backlog() {
    for spec in both_modes() {
        let mut server = Running::start(&Spec { max_connections: 2, ..spec });
        let mut first = connect(server.address());
        let mut second = connect(server.address());
        assert_eq!(ask(&mut first, "a").unwrap(), "A");
        assert_eq!(ask(&mut second, "b").unwrap(), "B");
        let mut third = connect(server.address());
        send(&mut third, "c");
        assert!(is_silent(&mut third));
        assert_eq!(server.stats()["accepted"], 2);
        drop(first);
        assert_eq!(read_line(&mut third).unwrap(), "C");
        drop((second, third));
        let stats = server.stop();
        assert!(stats["deferred"].as_u64().unwrap() >= 1);
    }
}

#[test]
fn beyond_the_limit_per_address_others_go_first() {
    for spec in both_modes() {
        let mut server =
            Running::start(&Spec { max_per_address: Some(1), bind: vec!["0.0.0.0:0".into()], ..spec });
        let port = server.address().port();
        let here = format!("127.0.0.1:{port}").parse().unwrap();
        let mut first = connect(here);
        assert_eq!(ask(&mut first, "a").unwrap(), "A");
        let mut second = connect(here);
        send(&mut second, "b");
        assert!(is_silent(&mut second));
        // From another address of the loopback network.
        let other = std::process::Command::new("python3")
            .args([
                "-c",
                &format!(
                    "import socket; s = socket.create_connection(('127.0.0.1', {port}), 10, ('127.0.0.2', 0)); \
                     s.sendall(b'c\\n'); print(s.makefile().readline(), end='')"
                ),
            ])
            .output()
            .unwrap();
        assert_eq!(String::from_utf8_lossy(&other.stdout), "C\n");
        let stats = server.stats();
        assert_eq!((&stats["parked"], &stats["deferred"]), (&1.into(), &1.into()));
        drop(first);
        assert_eq!(read_line(&mut second).unwrap(), "B");
        drop(second);
        server.stop();
    }
}

#[test]
fn a_pending_connection_is_served_when_a_busy_worker_has_finished() {
    let spec = Spec { prefork: true, workers: Some(1), handler: "lines".into(), ..Spec::default() };
    let server = Running::start(&spec);
    let mut first = connect(server.address());
    assert_eq!(ask(&mut first, "a").unwrap(), "A");
    let mut waiting: Vec<_> = (0..5).map(|_| connect(server.address())).collect();
    for stream in &mut waiting {
        send(stream, "b");
        stream.shutdown(std::net::Shutdown::Write).unwrap();
    }
    drop(first);
    for stream in &mut waiting {
        assert_eq!(read_line(stream).unwrap(), "B");
    }
    server.stop();
}

#[test]
fn a_worker_is_replaced_after_its_requests() {
    for spec in &both_modes()[1..] {
        let mut server = Running::start(&Spec { max_requests: Some(3), workers: Some(2), ..spec.clone() });
        for _ in 0..20 {
            assert!(exchange(server.address(), "a\n").starts_with("A\n"));
        }
        let stats = server.wait_for("the last replacement", |stats| stats["started"].as_u64().unwrap() >= 8);
        assert_eq!((&stats["restarted"], &stats["lost"]), (&0.into(), &0.into()), "replaced, not died");
        server.stop();
    }
}

#[test]
fn an_idle_connection_is_closed_and_a_busy_one_is_not() {
    for spec in both_modes() {
        let mut server = Running::start(&Spec { idle_ms: Some(300), ..spec });
        let mut idle = connect(server.address());
        let mut busy = connect(server.address());
        for _ in 0..6 {
            assert_eq!(ask(&mut busy, "a").unwrap(), "A");
            std::thread::sleep(Duration::from_millis(80));
        }
        assert_eq!(idle.read(&mut [0]).unwrap_or(0), 0);
        server.stats();
        drop(busy);
        server.stop();
    }
}

#[test]
fn a_connection_that_lasts_too_long_is_ended() {
    for spec in both_modes() {
        let mut server = Running::start(&Spec { total_ms: Some(300), ..spec });
        let mut stream = connect(server.address());
        let mut answers = 0;
        while ask(&mut stream, "a").is_ok() {
            answers += 1;
            std::thread::sleep(Duration::from_millis(10));
        }
        assert!(answers > 0);
        server.wait_for("the count", |stats| stats["timeouts"] == 1);
        assert!(exchange(server.address(), "c\n").starts_with("C\n"));
        server.stop();
    }
}

#[test]
fn running_out_of_files_is_survived() {
    let program = Spec {
        handler: "program".to_owned(),
        program: ["sh", "-c", "read line; echo A"].map(str::to_owned).to_vec(),
        ..Spec::default()
    };
    let lines = both_modes().map(|spec| Spec { handler: "lines".to_owned(), ..spec });
    for spec in lines.into_iter().chain([Spec::default(), program]) {
        // Where a start is a fresh exec, it needs a few at once.
        let spare = if std::env::var_os("FORKYARD_TEST_FALLBACK").is_some() { 12 } else { 6 };
        let mut server = Running::start(&Spec { spare_files: Some(spare), ..spec });
        let mut streams: Vec<_> = (0..20).map(|_| connect(server.address())).collect();
        for stream in &mut streams {
            send(stream, "a");
            stream.shutdown(std::net::Shutdown::Write).unwrap();
        }
        for stream in &mut streams {
            assert_eq!(read_line(stream).unwrap(), "A");
        }
        server.stats();
        server.stop();
    }
}

#[test]
fn children_get_the_limits_and_rights_they_were_given() {
    let spec = Spec {
        handler: "program".into(),
        program: vec![
            "sh".into(),
            "-c".into(),
            "ulimit -n; ulimit -t; id -u; grep NoNewPrivs /proc/self/status".into(),
        ],
        rlimits: vec!["nofile=99".into(), "cpu=7:8".into()],
        user: Some("65534".into()),
        no_new_privs: true,
        ..Spec::default()
    };
    let server = Running::start(&spec);
    assert_eq!(exchange(server.address(), ""), "99\n7\n65534\nNoNewPrivs:\t1\n");
    server.stop();
}

#[test]
fn a_right_that_cannot_be_dropped_keeps_the_server_from_starting() {
    let spec = Spec { rlimits: vec!["nofile=100:50".into()], ..Spec::default() };
    let error = Running::try_start(&spec).err().unwrap();
    assert!(error.contains("nofile"), "{error}");
}

#[test]
fn too_few_descriptors_keep_the_server_from_starting() {
    let spec = Spec { rlimits: vec!["nofile=15".to_owned()], ..Spec::default() };
    for prefork in [false, true] {
        let error = Running::try_start(&Spec { prefork, ..spec.clone() }).err().unwrap();
        assert!(error.contains("they need 16"), "{error}");
    }
}
