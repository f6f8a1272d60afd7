//! Both modes serve, count right, and leave nothing behind.

use crate::support::{Running, Spec, ask, children_of, connect, eventually, exchange};

fn both_modes() -> [Spec; 2] {
    [Spec::default(), Spec { prefork: true, ..Spec::default() }]
}

#[test]
fn a_line_comes_back_in_capitals() {
    for spec in both_modes() {
        let mut server = Running::start(&spec);
        assert_eq!(exchange(server.address(), "hello\n"), "HELLO\n");
        server.wait_for("the end of the connection", |stats| stats["served"] == 1 && stats["active"] == 0);
        let stats = server.stop();
        assert_eq!((&stats["accepted"], &stats["served"], &stats["lost"]), (&1.into(), &1.into(), &0.into()));
    }
}

#[test]
fn many_connections_at_once_are_served_side_by_side() {
    for spec in both_modes() {
        let server = Running::start(&spec);
        let mut streams: Vec<_> = (0..40).map(|_| connect(server.address())).collect();
        for round in 0..3 {
            for (i, stream) in streams.iter_mut().enumerate() {
                assert_eq!(ask(stream, &format!("a{i}.{round}")).unwrap(), format!("A{i}.{round}"));
            }
        }
        drop(streams);
        let stats = server.stop();
        assert_eq!(stats["served"], 40);
    }
}

#[test]
fn a_large_message_comes_back_whole_though_the_client_reads_late() {
    use std::io::{Read, Write};
    for spec in both_modes() {
        let server = Running::start(&spec);
        let stream = connect(server.address());
        let text = vec![b'x'; 8 << 20];
        let writer = {
            let mut stream = stream.try_clone().unwrap();
            std::thread::spawn(move || {
                stream.write_all(&text).unwrap();
                stream.shutdown(std::net::Shutdown::Write).unwrap();
            })
        };
        let mut answer = Vec::new();
        (&stream).read_to_end(&mut answer).unwrap();
        writer.join().unwrap();
        assert!(answer.len() == 8 << 20 && answer.iter().all(|byte| *byte == b'X'));
        server.stop();
    }
}

#[test]
fn a_handler_function_serves_and_knows_its_connection() {
    for spec in both_modes() {
        let server = Running::start(&Spec { handler: "lines".to_owned(), ..spec });
        let mut stream = connect(server.address());
        let who = ask(&mut stream, "who").unwrap();
        let words: Vec<&str> = who.split(' ').collect();
        assert_ne!(words[0], server.pid().to_string());
        assert_eq!(words[1], "1");
        assert_eq!(words[2], stream.local_addr().unwrap().to_string());
        assert_eq!(exchange(server.address(), "a\nb\n"), "A\nB\n2 lines\n");
        drop(stream);
        server.stop();
    }
}

#[test]
fn a_handler_that_fails_panics_or_exits_takes_down_its_own_connection_only() {
    for spec in both_modes() {
        let mut server = Running::start(&Spec { handler: "lines".to_owned(), ..spec });
        let mut other = connect(server.address());
        assert_eq!(ask(&mut other, "a").unwrap(), "A");
        for word in ["fail", "panic", "exit"] {
            assert_eq!(exchange(server.address(), &format!("{word}\n")), "", "{word}");
        }
        assert_eq!(ask(&mut other, "b").unwrap(), "B");
        assert_eq!(exchange(server.address(), "c\n"), "C\n1 lines\n");
        drop(other);
        server.wait_for("the failures' count", |stats| stats["failed"] == 2);
        server.stop();
    }
}

#[test]
fn a_stopped_server_has_no_child_left() {
    for spec in both_modes() {
        let server = Running::start(&spec);
        let pid = server.pid();
        exchange(server.address(), "a\n");
        eventually("workers and zygote", || children_of(pid).len() >= 4);
        server.stop();
        assert!(children_of(pid).is_empty());
    }
}
