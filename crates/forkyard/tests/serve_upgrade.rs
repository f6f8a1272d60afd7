//! Upgrade in place: the program is replaced on disk and then in its process, and no client notices.
//!
//! This file is the server too: run with `server` as its first argument, it serves, and obeys its standard input.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by a panic")]

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use forkyard::serve::{Config, Event, Handler, Mode, Server};

const PATIENCE: Duration = Duration::from_secs(30);

fn main() {
    let arguments: Vec<String> = std::env::args().collect();
    if arguments.get(1).is_some_and(|word| word == "server") {
        return serve(&arguments[2], &arguments[3]);
    }
    let tests: [(&str, fn()); 6] = [
        (
            "a_client_loop_sees_no_refused_or_reset_connection",
            a_client_loop_sees_no_refused_or_reset_connection,
        ),
        ("connections_in_service_are_served_on", connections_in_service_are_served_on),
        ("the_pid_stays_and_the_program_is_the_new_one", the_pid_stays_and_the_program_is_the_new_one),
        ("a_broken_program_is_found_out_before", a_broken_program_is_found_out_before),
        ("counters_limits_and_unix_sockets_go_along", counters_limits_and_unix_sockets_go_along),
        ("nothing_is_left_behind", nothing_is_left_behind),
    ];
    if arguments.iter().any(|word| word == "--list") {
        for (name, _) in tests {
            println!("{name}: test");
        }
        return;
    }
    let wanted: Vec<&String> = arguments.iter().skip(1).filter(|word| !word.starts_with('-')).collect();
    let exact = arguments.iter().any(|word| word == "--exact");
    for (name, test) in tests {
        let asked = |word: &&String| if exact { *word == name } else { name.contains(word.as_str()) };
        if wanted.is_empty() || wanted.iter().any(asked) {
            test();
            println!("test {name} ... ok");
        }
    }
}

/// The program under test.
fn serve(mode: &str, addresses: &str) {
    let mut config = Config::default();
    config.mode = if mode == "prefork" { Mode::Prefork } else { Mode::Process };
    config.workers = Some(3);
    config.max_per_address = Some(40);
    config.status = Some("127.0.0.1:0".parse().unwrap());
    let mut builder = Server::builder().config(config);
    for address in addresses.split(',') {
        builder = builder.bind(address).unwrap();
    }
    let server = builder.build().unwrap();
    let control = server.control();
    let names: Vec<String> = server.addresses().map(ToString::to_string).collect();
    println!("ready {} {}", std::env::args().next().unwrap(), names.join(" "));
    let orders = server.control();
    std::thread::spawn(move || {
        for order in std::io::stdin().lines() {
            match order.unwrap().as_str() {
                "upgrade" => orders.upgrade(),
                "stop" => orders.stop(),
                "stats" => {
                    let stats = control.stats().map(|stats| serde_json::to_string(&stats).unwrap());
                    println!("stats {}", stats.unwrap_or_default());
                }
                other => panic!("no order {other}"),
            }
        }
    });
    let server = server.on_event(|event| {
        if let Event::UpgradeFailed(error) = event {
            println!("failed {error}");
        }
    });
    server.run(Handler::Upper).unwrap();
}

/// A running server program, in a file of its own.
struct Program {
    process: Child,
    orders: ChildStdin,
    lines: Receiver<String>,
    file: PathBuf,
    addresses: Vec<String>,
}

impl Program {
    fn start(name: &str, mode: &str, addresses: &str) -> Program {
        let file =
            std::env::temp_dir().join(format!("forkyard-upgrade-{name}-{mode}-{}", std::process::id()));
        install(&file);
        let mut process = Command::new(&file)
            .args(["server", mode, addresses])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let (to, lines) = channel();
        let stdout = BufReader::new(process.stdout.take().unwrap());
        std::thread::spawn(move || stdout.lines().map_while(Result::ok).try_for_each(|line| to.send(line)));
        let orders = process.stdin.take().unwrap();
        let mut program = Program { process, orders, lines, file, addresses: Vec::new() };
        let ready = program.line("ready ");
        program.addresses = ready.split(' ').skip(1).map(str::to_owned).collect();
        program
    }

    fn line(&self, start: &str) -> String {
        let end = Instant::now() + PATIENCE;
        loop {
            let line = self.lines.recv_timeout(end.saturating_duration_since(Instant::now()));
            let line = line.unwrap_or_else(|error| panic!("no line \"{start}\": {error}"));
            if let Some(rest) = line.strip_prefix(start) {
                return rest.to_owned();
            }
        }
    }

    fn order(&mut self, order: &str) {
        writeln!(self.orders, "{order}").unwrap();
    }

    fn upgrade(&mut self) {
        self.order("upgrade");
        let ready = self.line("ready ");
        let addresses: Vec<&str> = ready.split(' ').skip(1).collect();
        assert_eq!(addresses, self.addresses, "the same listeners");
    }

    fn stats(&mut self) -> serde_json::Value {
        loop {
            self.order("stats");
            // Just before `run` there is nothing to tell.
            if let Ok(stats) = serde_json::from_str(&self.line("stats ")) {
                return stats;
            }
        }
    }

    fn address(&self) -> SocketAddr {
        self.addresses[0].parse().unwrap()
    }

    fn stop(mut self) {
        self.order("stop");
        let end = Instant::now() + PATIENCE;
        while self.process.try_wait().unwrap().is_none() {
            assert!(Instant::now() < end, "the server did not stop");
            std::thread::sleep(Duration::from_millis(5));
        }
        assert!(self.process.wait().unwrap().success());
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        // It has ended, unless the test failed.
        let _ = self.process.kill();
        let _ = self.process.wait();
        let _ = std::fs::remove_file(&self.file);
    }
}

/// Puts a fresh copy of this program there, by renaming, as installers do.
fn install(file: &Path) {
    let fresh = file.with_extension("new");
    std::fs::copy("/proc/self/exe", &fresh).unwrap();
    std::fs::rename(&fresh, file).unwrap();
}

fn connect(address: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream
}

fn ask(stream: &mut (impl Read + Write), text: &str) -> std::io::Result<()> {
    stream.write_all(text.as_bytes())?;
    let mut answer = vec![0; text.len()];
    stream.read_exact(&mut answer)?;
    assert_eq!(answer, text.to_uppercase().as_bytes());
    Ok(())
}

fn eventually(what: &str, mut condition: impl FnMut() -> bool) {
    let end = Instant::now() + PATIENCE;
    while !condition() {
        assert!(Instant::now() < end, "{what} did not come about");
        std::thread::sleep(Duration::from_millis(5));
    }
}

fn children_of(pid: u32) -> usize {
    let list = std::fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap();
    list.split_whitespace().count()
}

fn a_client_loop_sees_no_refused_or_reset_connection() {
    for mode in ["process", "prefork"] {
        let mut program = Program::start("loop", mode, "127.0.0.1:0");
        let address = program.address();
        let stop = Arc::new(AtomicBool::new(false));
        let served = Arc::new(AtomicUsize::new(0));
        let clients: Vec<_> = (0..4)
            .map(|_| {
                let (stop, served) = (stop.clone(), served.clone());
                std::thread::spawn(move || {
                    while !stop.load(Ordering::Relaxed) {
                        let mut stream = TcpStream::connect(address)?;
                        stream.set_read_timeout(Some(PATIENCE))?;
                        ask(&mut stream, "hello")?;
                        served.fetch_add(1, Ordering::Relaxed);
                    }
                    std::io::Result::Ok(())
                })
            })
            .collect();
        for round in 1..=5 {
            let before = served.load(Ordering::Relaxed);
            eventually("service before", || served.load(Ordering::Relaxed) > before + 50);
            install(&program.file);
            program.upgrade();
            let after = served.load(Ordering::Relaxed);
            eventually("service after", || served.load(Ordering::Relaxed) > after + 50);
            assert_eq!(program.stats()["generation"], round);
        }
        stop.store(true, Ordering::Relaxed);
        for client in clients {
            client.join().unwrap().unwrap_or_else(|error| panic!("{mode}: {error}"));
        }
        assert_eq!(program.stats()["lost"], 0);
        program.stop();
    }
}

fn connections_in_service_are_served_on() {
    for mode in ["process", "prefork"] {
        let mut program = Program::start("on", mode, "127.0.0.1:0");
        let mut streams: Vec<_> = (0..8).map(|_| connect(program.address())).collect();
        for stream in &mut streams {
            ask(stream, "before").unwrap();
        }
        for _ in 0..2 {
            program.upgrade();
            for stream in &mut streams {
                ask(stream, "after").unwrap();
            }
        }
        let stats = program.stats();
        assert_eq!((&stats["accepted"], &stats["active"]), (&8.into(), &8.into()), "{stats:#}");
        drop(streams);
        eventually("their end", || {
            let stats = program.stats();
            (&stats["served"], &stats["active"], &stats["lost"]) == (&8.into(), &0.into(), &0.into())
        });
        program.stop();
    }
}

fn the_pid_stays_and_the_program_is_the_new_one() {
    let mut program = Program::start("pid", "process", "127.0.0.1:0");
    let pid = program.process.id();
    let image = || std::fs::metadata(format!("/proc/{pid}/exe")).unwrap();
    use std::os::unix::fs::MetadataExt;
    let before = image().ino();
    install(&program.file);
    program.upgrade();
    assert_eq!(program.stats()["pid"], pid);
    assert_ne!(image().ino(), before);
    assert_eq!(image().ino(), std::fs::metadata(&program.file).unwrap().ino());
    program.stop();
}

fn a_broken_program_is_found_out_before() {
    let mut program = Program::start("broken", "process", "127.0.0.1:0");
    let mut stream = connect(program.address());
    ask(&mut stream, "before").unwrap();
    for content in ["#!/bin/sh\nexit 3\n", "no program at all"] {
        let fresh = program.file.with_extension("new");
        std::fs::write(&fresh, content).unwrap();
        use std::os::unix::fs::PermissionsExt;
        std::fs::set_permissions(&fresh, std::fs::Permissions::from_mode(0o755)).unwrap();
        std::fs::rename(&fresh, &program.file).unwrap();
        program.order("upgrade");
        let why = program.line("failed ");
        assert!(why.contains("try the program's file"), "{why}");
        ask(&mut stream, "still").unwrap();
        ask(&mut connect(program.address()), "new").unwrap();
    }
    install(&program.file);
    program.upgrade();
    ask(&mut stream, "after").unwrap();
    drop(stream);
    program.stop();
}

fn counters_limits_and_unix_sockets_go_along() {
    let path = std::env::temp_dir().join(format!("forkyard-upgrade-{}.socket", std::process::id()));
    let addresses = format!("127.0.0.1:0,unix:{},[::1]:0", path.display());
    let mut program = Program::start("along", "process", &addresses);
    for _ in 0..5 {
        ask(&mut connect(program.address()), "count").unwrap();
    }
    let mut kept: Vec<_> = (0..40).map(|_| connect(program.address())).collect();
    for stream in &mut kept {
        ask(stream, "kept").unwrap();
    }
    // One more than its address may have: it waits, through the upgrade.
    let mut parked = connect(program.address());
    eventually("its parking", || program.stats()["parked"] == 1);
    program.upgrade();
    let stats = program.stats();
    assert_eq!((&stats["accepted"], &stats["served"]), (&46.into(), &5.into()), "{stats:#}");
    ask(&mut UnixStream::connect(&path).unwrap(), "unix").unwrap();
    ask(&mut connect(program.addresses[2].parse().unwrap()), "six").unwrap();
    drop(kept);
    ask(&mut parked, "at last").unwrap();
    drop(parked);
    program.stop();
    assert!(!path.exists(), "the socket's file goes with the last image");
}

fn nothing_is_left_behind() {
    for mode in ["process", "prefork"] {
        let mut program = Program::start("left", mode, "127.0.0.1:0");
        let pid = program.process.id();
        let fds = || std::fs::read_dir(format!("/proc/{pid}/fd")).unwrap().count();
        ask(&mut connect(program.address()), "first").unwrap();
        program.upgrade();
        // A connection makes the server fill its reserve of descriptors.
        ask(&mut connect(program.address()), "second").unwrap();
        // Zygote, three children, the page; the old children have ended.
        eventually("rest", || children_of(pid) == 5);
        let before = fds();
        for _ in 0..4 {
            program.upgrade();
            ask(&mut connect(program.address()), "again").unwrap();
        }
        // The server keeps a descriptor or two in reserve; what leaks, leaks with every upgrade.
        eventually("rest again", || children_of(pid) == 5 && fds() < before + 4);
        program.stop();
    }
}
