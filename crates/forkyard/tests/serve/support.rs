//! A server in a process of its own, told what to do through a pipe, and clients for it.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::time::{Duration, Instant};

use forkyard::process::{self, Fd, Process};
use forkyard::serve::{Config, Connection, Control, Handler, Mode, Rights, Server};
use serde::{Deserialize, Serialize};

/// No condition that is waited for takes longer than this, or the test fails by its name.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Spec {
    pub(crate) bind: Vec<String>,
    pub(crate) prefork: bool,
    pub(crate) workers: Option<usize>,
    pub(crate) handler: String,
    pub(crate) program: Vec<String>,
    pub(crate) max_connections: usize,
    pub(crate) max_per_address: Option<usize>,
    pub(crate) max_requests: Option<u64>,
    pub(crate) idle_ms: Option<u64>,
    pub(crate) total_ms: Option<u64>,
    pub(crate) grace_ms: u64,
    pub(crate) rlimits: Vec<String>,
    pub(crate) user: Option<String>,
    pub(crate) no_new_privs: bool,
    pub(crate) status: bool,
    /// Serve on the listener that comes with the order, by its number, instead of `bind`.
    pub(crate) inherit: bool,
    /// A limit of the master itself, after it has begun.
    pub(crate) spare_files: Option<u64>,
}

impl Default for Spec {
    fn default() -> Spec {
        Spec {
            bind: vec!["127.0.0.1:0".to_owned()],
            prefork: false,
            workers: Some(3),
            handler: "upper".to_owned(),
            program: Vec::new(),
            max_connections: 64,
            max_per_address: None,
            max_requests: None,
            idle_ms: None,
            total_ms: None,
            grace_ms: 5000,
            rlimits: Vec::new(),
            user: None,
            no_new_privs: false,
            status: false,
            inherit: false,
            spare_files: None,
        }
    }
}

/// Sends back what it gets in capitals, one line at a time, and says how many it had.
#[forkyard::handler]
fn lines(connection: Connection) -> std::io::Result<()> {
    let mut count = 0;
    for line in BufReader::new(&connection).lines() {
        let line = line?;
        match line.as_str() {
            "panic" => panic!("as asked"),
            "exit" => std::process::exit(3),
            "fail" => return Err(std::io::Error::other("as asked")),
            "who" => {
                let peer = connection.peer_addr().map_or("none".to_owned(), |peer| peer.to_string());
                writeln!(&connection, "{} {} {}", std::process::id(), connection.number(), peer)?;
            }
            line => writeln!(&connection, "{}", line.to_uppercase())?,
        }
        count += 1;
    }
    // The client may have gone away without waiting for this.
    let _ = writeln!(&connection, "{count} lines");
    Ok(())
}

/// The server's process: serves as the spec says, and does what the lines of `orders` say.
#[forkyard::task]
pub(crate) fn server_process(
    spec: Spec,
    orders: Fd,
    answers: Fd,
    listener: Option<Fd>,
) -> Result<String, String> {
    let mut spec = spec;
    if let Some(listener) = &listener {
        spec.bind = vec![format!("fd://{}", listener.as_fd().as_raw_fd())];
    }
    serve(&spec, orders, answers).map_err(|error| error.to_string())
}

fn serve(spec: &Spec, orders: Fd, answers: Fd) -> forkyard::Result<String> {
    let millis = |ms: Option<u64>| ms.map(Duration::from_millis);
    let mut rights = Rights::new();
    for limit in &spec.rlimits {
        rights = rights.rlimit(limit)?;
    }
    if let Some(user) = &spec.user {
        rights = rights.user(user)?;
    }
    if spec.no_new_privs {
        rights = rights.no_new_privs();
    }
    let mut config = Config::default();
    config.mode = if spec.prefork { Mode::Prefork } else { Mode::Process };
    config.workers = spec.workers;
    config.max_connections = spec.max_connections;
    config.max_per_address = spec.max_per_address;
    config.max_requests = spec.max_requests;
    config.idle_timeout = millis(spec.idle_ms);
    config.total_timeout = millis(spec.total_ms);
    config.grace = Duration::from_millis(spec.grace_ms);
    config.rights = rights;
    config.status = spec.status.then(|| "127.0.0.1:0".parse().unwrap());
    let mut builder = Server::builder().config(config);
    for address in &spec.bind {
        builder = builder.bind(address)?;
    }
    let server = builder.build()?;
    let control = server.control();
    let mut answers = std::fs::File::from(answers.into_owned());
    let mut hello = server.addresses().map(ToString::to_string).collect::<Vec<_>>().join(" ");
    hello.extend(server.status_addr().map(|address| format!(" status={address}")));
    hello.push('\n');
    let mut log = answers.try_clone().unwrap();
    let log_to = spec.spare_files;
    let server = server
        .on_event(move |event| {
            // In one piece: another thread writes to the same pipe.
            let _ = log.write_all(format!("event {event}\n").as_bytes());
        })
        .on_ready(move || {
            answers.write_all(hello.as_bytes()).unwrap();
            std::thread::spawn(move || obey(&control, std::fs::File::from(orders.into_owned()), answers));
            if let Some(spare) = log_to {
                let open = std::fs::read_dir("/proc/self/fd").unwrap().count() as u64;
                let (_, hard) = forkyard_sys::limits::Resource::NOFILE.get().unwrap();
                forkyard_sys::limits::Resource::NOFILE.set(Some(open + spare), hard).unwrap();
            }
        });
    let handler = match spec.handler.as_str() {
        "upper" => Handler::Upper,
        "echo" => Handler::Echo,
        "lines" => lines.into(),
        "program" => Handler::program(&spec.program),
        other => panic!("no handler {other}"),
    };
    let stats = server.run(handler)?;
    Ok(serde_json::to_string(&stats).unwrap())
}

fn obey(control: &Control, orders: std::fs::File, mut answers: std::fs::File) {
    for order in BufReader::new(orders).lines() {
        match order.unwrap().as_str() {
            "stop" => control.stop(),
            "stop now" => control.stop_now(),
            "reload" => control.reload(),
            "more" => control.add_worker(),
            "less" => control.remove_worker(),
            "upgrade" => control.upgrade(),
            "stats" => {
                let stats = control.stats().map(|stats| serde_json::to_string(&stats).unwrap());
                answers.write_all(format!("stats {}\n", stats.unwrap_or_default()).as_bytes()).unwrap();
            }
            other => panic!("no order {other}"),
        }
    }
}

/// A running server, as the test sees it. It is killed if the test forgets it.
pub(crate) struct Running {
    pub(crate) process: Process<Result<String, String>>,
    pub(crate) addresses: Vec<String>,
    pub(crate) status: Option<SocketAddr>,
    orders: std::io::PipeWriter,
    answers: BufReader<std::io::PipeReader>,
    pub(crate) events: Vec<String>,
    ended: bool,
}

impl Running {
    pub(crate) fn start(spec: &Spec) -> Running {
        Running::try_start(spec).unwrap_or_else(|error| panic!("{error}"))
    }

    pub(crate) fn try_start(spec: &Spec) -> Result<Running, String> {
        Running::start_with(spec, None)
    }

    pub(crate) fn start_with(spec: &Spec, listener: Option<OwnedFd>) -> Result<Running, String> {
        let (orders_from, orders) = std::io::pipe().unwrap();
        let (answers, answers_to) = std::io::pipe().unwrap();
        let process = process::Builder::new().name("server").spawn(
            server_process,
            (spec.clone(), Fd::from(orders_from), Fd::from(answers_to), listener.map(Fd::from)),
        );
        let process = process.unwrap();
        let mut running = Running {
            process,
            addresses: Vec::new(),
            status: None,
            orders,
            answers: BufReader::new(answers),
            events: Vec::new(),
            ended: false,
        };
        loop {
            let mut line = String::new();
            if running.answers.read_line(&mut line).unwrap() == 0 {
                running.ended = true;
                let result = running.process.join_timeout(PATIENCE);
                return Err(format!("the server ended at once: {result:?}"));
            }
            if line.starts_with("event ") {
                running.events.push(line);
                continue;
            }
            for word in line.split_whitespace() {
                match word.strip_prefix("status=") {
                    Some(status) => running.status = Some(status.parse().unwrap()),
                    None => running.addresses.push(word.to_owned()),
                }
            }
            return Ok(running);
        }
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.addresses[0].parse().unwrap()
    }

    pub(crate) fn pid(&self) -> u32 {
        self.process.pid().as_raw_nonzero().get().unsigned_abs()
    }

    pub(crate) fn order(&mut self, order: &str) {
        writeln!(self.orders, "{order}").unwrap();
    }

    pub(crate) fn stats(&mut self) -> serde_json::Value {
        self.order("stats");
        loop {
            let mut line = String::new();
            assert!(self.answers.read_line(&mut line).unwrap() > 0, "the server ended");
            match line.strip_prefix("stats ") {
                Some(json) => {
                    return serde_json::from_str(json).unwrap_or_else(|e| panic!("{e}: {:?}", self.events));
                }
                None => self.events.push(line),
            }
        }
    }

    /// Waits until the statistics are as the test wants them.
    pub(crate) fn wait_for(
        &mut self,
        what: &str,
        wanted: impl Fn(&serde_json::Value) -> bool,
    ) -> serde_json::Value {
        let end = Instant::now() + PATIENCE;
        loop {
            let stats = self.stats();
            if wanted(&stats) {
                return stats;
            }
            assert!(Instant::now() < end, "{what} did not come about: {stats:#} {:?}", self.events);
            std::thread::sleep(Duration::from_millis(2));
        }
    }

    /// Waits until it ends, and gives what it said of itself.
    pub(crate) fn join(mut self) -> serde_json::Value {
        self.ended = true;
        let result = self.process.join_timeout(PATIENCE);
        match result {
            Ok(Ok(stats)) => serde_json::from_str(&stats).unwrap(),
            other => panic!("the server did not end well: {other:?}"),
        }
    }

    pub(crate) fn stop(mut self) -> serde_json::Value {
        self.order("stop");
        self.join()
    }

    pub(crate) fn kill_9(&mut self) {
        self.ended = true;
        self.process.kill().unwrap();
    }

    pub(crate) fn workers(&mut self) -> Vec<u32> {
        pids(&self.stats(), |_| true)
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if !self.ended {
            // The test has failed already, or does not care how it ends.
            let _ = self.process.kill();
        }
    }
}

pub(crate) fn pids(stats: &serde_json::Value, wanted: impl Fn(&str) -> bool) -> Vec<u32> {
    let workers = stats["workers"].as_array().unwrap().iter();
    let workers = workers.filter(|worker| wanted(worker["state"].as_str().unwrap()));
    workers.map(|worker| worker["pid"].as_u64().unwrap() as u32).collect()
}

/// Sends a signal; false if the process is gone.
pub(crate) fn kill(pid: u32, signal: &str) -> bool {
    std::process::Command::new("kill").args([signal, &pid.to_string()]).output().unwrap().status.success()
}

/// True while a process of this number exists, as a zombie too; but not as an orphaned one of this process where
/// the tests themselves run as process 1, which would have to reap it.
pub(crate) fn exists(pid: u32) -> bool {
    match std::fs::read_to_string(format!("/proc/{pid}/stat")) {
        Ok(stat) => !(std::process::id() == 1 && stat.contains(") Z 1 ")),
        Err(_) => false,
    }
}

pub(crate) fn eventually(what: &str, mut condition: impl FnMut() -> bool) {
    let end = Instant::now() + PATIENCE;
    while !condition() {
        assert!(Instant::now() < end, "{what} did not come about");
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// Children of a process, as /proc tells them.
pub(crate) fn children_of(pid: u32) -> Vec<u32> {
    let mut found = Vec::new();
    let Ok(tasks) = std::fs::read_dir(format!("/proc/{pid}/task")) else { return found };
    for task in tasks.flatten() {
        let list = std::fs::read_to_string(task.path().join("children")).unwrap_or_default();
        found.extend(list.split_whitespace().map(|pid| pid.parse::<u32>().unwrap()));
    }
    found
}

pub(crate) fn connect(address: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.set_write_timeout(Some(PATIENCE)).unwrap();
    stream
}

/// Sends a line and reads the answer.
pub(crate) fn ask(stream: &mut TcpStream, line: &str) -> std::io::Result<String> {
    stream.write_all(format!("{line}\n").as_bytes())?;
    read_line(stream)
}

/// Reads up to the end of a line.
pub(crate) fn read_line(stream: &mut TcpStream) -> std::io::Result<String> {
    let mut answer = Vec::new();
    let mut byte = [0];
    loop {
        match stream.read(&mut byte) {
            Ok(0) => return Err(std::io::ErrorKind::UnexpectedEof.into()),
            Ok(_) if byte[0] == b'\n' => return Ok(String::from_utf8(answer).unwrap()),
            Ok(_) => answer.push(byte[0]),
            // A socket with a time-out is interrupted by signals that others restart after.
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}

/// One connection: everything is sent, the end is said, everything is read.
pub(crate) fn exchange(address: SocketAddr, text: &str) -> String {
    let mut stream = connect(address);
    stream.write_all(text.as_bytes()).unwrap();
    stream.shutdown(std::net::Shutdown::Write).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer
}
