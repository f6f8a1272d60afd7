//! Connections to a running server while its processes are killed at random, with exact accounting.
//!
//! usage: storm --server PID --addr HOST:PORT [--connections N] [--concurrency N] [--kill-every 50ms]
//!              [--zygote] [--seed N]
//!
//! Every so often one living process below the server, picked at random, gets SIGKILL: one with a connection or
//! a spare one, and with `--zygote` also a template process (whose command name tells). It must hold that
//!
//! - every connection is served, except that each kill may cost one: a connection that was open when its
//!   process was killed. A kill explains one failed connection at most;
//! - no connection is refused, answered wrongly, or hangs;
//! - at the end the server has the descriptors and the number of processes it had at the start, no zombie
//!   among them, and no process that was ever seen below it lives on elsewhere.
//!
//! Exit code 0 if all of it holds, 1 if not, 2 for a wrong command line. The server is not ended.

use std::collections::{BTreeMap, HashMap};
use std::io;
use std::net::SocketAddrV4;
use std::process::ExitCode;
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::thread::{scope, sleep};
use std::time::{Duration, Instant};

use forkyard_peers::flood::{CAPITALS, Ended, Failure, Flood, Kill, unexplained};
use forkyard_peers::procfs::{descendants, fds, stat};
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};

/// How long the server may take to come to rest.
const SETTLE: Duration = Duration::from_secs(10);
/// How long nothing may change for it to count as rest.
const STILL: Duration = Duration::from_millis(500);

#[derive(Clone)]
struct Options {
    server: i32,
    addr: SocketAddrV4,
    connections: usize,
    concurrency: usize,
    kill_every: Duration,
    zygote: bool,
    seed: u64,
}

/// What there is of a server at rest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Rest {
    processes: usize,
    zombies: usize,
    fds: usize,
}

fn main() -> ExitCode {
    let Some(options) = from_args(std::env::args().skip(1)) else {
        eprintln!(
            "usage: storm --server PID --addr HOST:PORT [--connections N] [--concurrency N] \
             [--kill-every 50ms] [--zygote] [--seed N]"
        );
        return ExitCode::from(2);
    };
    match run(&options) {
        Ok(()) => ExitCode::SUCCESS,
        Err(what) => {
            println!("storm: FAILED: {what}");
            ExitCode::FAILURE
        }
    }
}

fn from_args(mut args: impl Iterator<Item = String>) -> Option<Options> {
    let mut options = Options {
        server: 0,
        addr: SocketAddrV4::new([127, 0, 0, 1].into(), 0),
        connections: 100_000,
        concurrency: 16,
        kill_every: Duration::from_millis(50),
        zygote: false,
        seed: u64::from(std::process::id()),
    };
    while let Some(flag) = args.next() {
        if flag == "--zygote" {
            options.zygote = true;
            continue;
        }
        let value = args.next()?;
        match flag.as_str() {
            "--server" => options.server = value.parse().ok()?,
            "--addr" => options.addr = value.parse().ok()?,
            "--connections" => options.connections = value.parse().ok()?,
            "--concurrency" => options.concurrency = value.parse().ok()?,
            "--kill-every" => {
                options.kill_every = Duration::from_millis(value.strip_suffix("ms")?.parse().ok()?);
            }
            "--seed" => options.seed = value.parse().ok()?,
            _ => return None,
        }
    }
    (options.server > 0 && options.addr.port() > 0).then_some(options)
}

fn run(options: &Options) -> Result<(), String> {
    // What the server makes at its first use belongs to its rest.
    all_served(options, "before any kill")?;
    let before = rest(options.server, None)?;
    println!("storm: server {} at rest: {before:?}; seed {}", options.server, options.seed);

    let begin = Instant::now();
    let mut killer = Killer::new(options);
    let ended = scope(|scope| {
        let (stop, stopped) = channel();
        let killer = &mut killer;
        scope.spawn(move || killer.run(&stopped));
        let ended = load(options, options.connections);
        drop(stop);
        ended
    });
    let ended = ended.map_err(|e| format!("the client: {e}"))?;
    account(&ended, &killer, begin.elapsed())?;

    all_served(options, "after the storm")?;
    let after = rest(options.server, Some(before))?;
    println!("storm: at rest again: {after:?}");
    no_strays(options.server, &killer.seen)
}

/// Makes the connections; stops early when one has hung, because the others then would too.
fn load(options: &Options, connections: usize) -> io::Result<Vec<Ended>> {
    let mut flood = Flood::new(options.addr, CAPITALS, options.concurrency)?;
    let mut ended = Vec::with_capacity(connections);
    let (mut left, mut hung) = (connections, false);
    while !hung && (left > 0 || flood.open() > 0) {
        let mut end = |e: Ended| {
            hung |= e.result == Err(Failure::Hung);
            ended.push(e);
        };
        left -= flood.fill(left, &mut end)?;
        flood.wait(Duration::from_secs(1), &mut end)?;
    }
    Ok(ended)
}

fn all_served(options: &Options, when: &str) -> Result<(), String> {
    let ended = load(options, 4 * options.concurrency).map_err(|e| format!("the client {when}: {e}"))?;
    let bad = ended.iter().find_map(|e| e.result.err());
    bad.map_or(Ok(()), |bad| Err(format!("{when} a connection failed: {bad:?}")))
}

/// Kills from a thread of its own, so that the connections go on meanwhile.
struct Killer {
    server: i32,
    every: Duration,
    zygote: bool,
    random: u64,
    /// Every process seen below the server: pid and tick of birth.
    seen: HashMap<i32, u64>,
    kills: Vec<Kill>,
    /// How many were killed, by command name.
    names: BTreeMap<String, usize>,
}

impl Killer {
    fn new(options: &Options) -> Killer {
        Killer {
            server: options.server,
            every: options.kill_every,
            zygote: options.zygote,
            random: options.seed | 1 << 32,
            seen: HashMap::new(),
            kills: Vec::new(),
            names: BTreeMap::new(),
        }
    }

    fn run(&mut self, stopped: &Receiver<()>) {
        while stopped.recv_timeout(self.every) == Err(RecvTimeoutError::Timeout) {
            self.kill_one();
        }
    }

    /// SIGKILLs a living process below the server, by a pidfd that is known to mean this one.
    fn kill_one(&mut self) {
        let below = descendants(self.server);
        self.seen.extend(below.iter().map(|s| (s.pid, s.born)));
        let may_die = |comm: &str| self.zygote || !comm.contains("zygote");
        let alive: Vec<_> = below.iter().filter(|s| s.state != 'Z' && may_die(&s.comm)).collect();
        if alive.is_empty() {
            return;
        }
        let victim = alive[self.random() as usize % alive.len()];
        let Some(pidfd) = Pid::from_raw(victim.pid).and_then(|pid| pidfd_open(pid, PidfdFlags::empty()).ok())
        else {
            return;
        };
        // The number may have been given to another process before the pidfd was open.
        let same = stat(victim.pid).is_some_and(|s| s.born == victim.born && s.state != 'Z');
        let before = Instant::now();
        if same && pidfd_send_signal(&pidfd, Signal::KILL).is_ok() {
            self.kills.push(Kill { before, after: Instant::now() });
            *self.names.entry(victim.comm.clone()).or_default() += 1;
        }
    }

    /// xorshift64
    fn random(&mut self) -> u64 {
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        self.random
    }
}

/// Prints what became of the connections, and checks that the kills explain the failed ones.
fn account(ended: &[Ended], killer: &Killer, took: Duration) -> Result<(), String> {
    let mut failures: BTreeMap<String, usize> = BTreeMap::new();
    for failure in ended.iter().filter_map(|e| e.result.err()) {
        *failures.entry(format!("{failure:?}").to_lowercase()).or_default() += 1;
    }
    let failed: usize = failures.values().sum();
    println!(
        "storm: {} connections in {:.1} s ({:.0} per second): {} served, {failed} failed {failures:?}; \
         {} processes killed {:?}",
        ended.len(),
        took.as_secs_f64(),
        ended.len() as f64 / took.as_secs_f64(),
        ended.len() - failed,
        killer.kills.len(),
        killer.names,
    );
    for wrong in [Failure::Refused, Failure::Wrong, Failure::Hung] {
        if ended.iter().any(|e| e.result == Err(wrong)) {
            return Err(format!("no kill excuses a connection that was {wrong:?}"));
        }
    }
    match unexplained(ended, &killer.kills) {
        0 => Ok(()),
        n => Err(format!("{n} connections failed with no kill of their own while they were open")),
    }
}

/// Waits until the server is at rest: as `wanted`, or when not told, unchanged for a while.
fn rest(server: i32, wanted: Option<Rest>) -> Result<Rest, String> {
    let deadline = Instant::now() + SETTLE;
    let (mut last, mut since) = (now(server)?, Instant::now());
    loop {
        let settled = wanted.map_or(since.elapsed() > STILL, |wanted| wanted == last);
        if settled && last.zombies == 0 {
            return Ok(last);
        }
        if Instant::now() > deadline {
            return Err(format!("not at rest after {SETTLE:?}: {last:?}, wanted {wanted:?}"));
        }
        sleep(Duration::from_millis(10));
        let now = now(server)?;
        if now != last {
            (last, since) = (now, Instant::now());
        }
    }
}

fn now(server: i32) -> Result<Rest, String> {
    let below = descendants(server);
    let fds = fds(server).ok_or("the server has ended")?;
    Ok(Rest { processes: below.len(), zombies: below.iter().filter(|s| s.state == 'Z').count(), fds })
}

/// No process ever seen below the server may live on outside of it.
fn no_strays(server: i32, seen: &HashMap<i32, u64>) -> Result<(), String> {
    let below = descendants(server);
    let lives = |(&pid, &born): (&i32, &u64)| stat(pid).filter(|s| s.born == born);
    let strays = seen.iter().filter_map(lives).filter(|s| below.iter().all(|b| b.pid != s.pid));
    match strays.map(|s| format!("{} {}", s.pid, s.comm)).collect::<Vec<_>>() {
        none if none.is_empty() => Ok(()),
        strays => Err(format!("processes that left the server: {}", strays.join(", "))),
    }
}
