//! Starts from a program with many threads, with children and the zygote killed at any moment of a start: no hang,
//! every end told right, nothing left.
//!
//! `FORKYARD_LONG=1` runs the 10 000 starts of the promise, `FORKYARD_SEED=n` the choices of an earlier run.

#![allow(
    unsafe_code,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test fails by a panic; each unsafe block has its own reason"
)]

mod common;

use std::collections::BTreeSet;
use std::io::Write;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

use common::{children_of, eventually, isolated, open_fds, own_pid, state_of, zygote};
use forkyard::process::{self, Builder, Ended, Fd, Pid, Process, Start};

const THREADS: u64 = 64;
const SIGKILL: i32 = 9;
/// A start that is not counted.
const NO_NUMBER: u64 = u64::MAX;

/// A stream of numbers without pattern (splitmix64).
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, end: u64) -> u64 {
        self.next() % end
    }
}

fn seed() -> u64 {
    let given = std::env::var("FORKYARD_SEED").ok().and_then(|text| text.parse().ok());
    given.unwrap_or_else(|| u64::from_ne_bytes(forkyard_sys::random::bytes().unwrap()))
}

fn spin(duration: Duration) {
    let end = Instant::now() + duration;
    while Instant::now() < end {
        std::hint::spin_loop();
    }
}

#[forkyard::task]
fn nothing() {}

/// A value that fits into a slot, or one that travels as a parcel.
fn expected(n: u64) -> Vec<u64> {
    let len = if n.is_multiple_of(3) { 700 } else { 2 };
    vec![n; len]
}

/// Notes that it was called, in a file that is opened for appending. With a descriptor among its arguments it takes
/// the other of the two ways in which a task is handed over.
#[forkyard::task]
fn answer(n: u64, notes: String, _more: Option<Fd>) -> Vec<u64> {
    let mut notes = std::fs::OpenOptions::new().append(true).open(notes).unwrap();
    notes.write_all(&n.to_ne_bytes()).unwrap();
    expected(n)
}

/// A copy of the zygote that waits for its task.
fn spare() -> Option<i32> {
    let comm = |pid| std::fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
    children_of(own_pid()).into_iter().find(|&pid| comm(pid).trim_end() == "forkyard-spare")
}

/// What all threads of a storm share.
struct Storm {
    start: Start,
    seed: u64,
    starts: u64,
    /// Starts begun, starts told of.
    begun: AtomicU64,
    told: AtomicU64,
    killed: AtomicU64,
    /// Where each task notes that it was called.
    notes: OwnedFd,
    /// Which were told to have returned.
    returned: Mutex<BTreeSet<u64>>,
    /// What the killer of zygotes and spares hit: a spare may have got a task meanwhile.
    victims: Mutex<BTreeSet<i32>>,
    over: AtomicBool,
}

impl Storm {
    fn new(start: Start, starts: u64) -> Storm {
        let seed = seed();
        println!("FORKYARD_SEED={seed}");
        Storm {
            start,
            seed,
            starts,
            begun: AtomicU64::new(0),
            told: AtomicU64::new(0),
            killed: AtomicU64::new(0),
            notes: forkyard_sys::memfd::holding("notes", b"").unwrap(),
            returned: Mutex::default(),
            victims: Mutex::default(),
            over: AtomicBool::new(false),
        }
    }

    fn start(&self, n: u64, with_fd: bool) -> forkyard::Result<Process<Vec<u64>>> {
        let notes = format!("/proc/{}/fd/{}", own_pid(), self.notes.as_raw_fd());
        let more = with_fd.then(|| self.notes.try_clone().unwrap().into());
        Builder::new().start(self.start).spawn(answer, (n, notes, more))
    }

    /// Each task was called once at most, and those that returned were.
    fn check_notes(&self) {
        let notes = std::fs::read(format!("/proc/self/fd/{}", self.notes.as_raw_fd())).unwrap();
        let mut called = BTreeSet::new();
        for note in notes.chunks(8) {
            let n = u64::from_ne_bytes(note.try_into().unwrap());
            assert!(called.insert(n) || n == NO_NUMBER, "task {n} was called twice");
        }
        let returned = self.returned.lock().unwrap();
        assert!(returned.is_subset(&called), "never called: {:?}", returned.difference(&called));
    }

    /// Starts and joins children until all have been; kills a third of them at a random moment of their start.
    fn work(&self, thread: u64) {
        let mut random = Random(self.seed ^ thread);
        loop {
            let n = self.begun.fetch_add(1, Relaxed);
            if n >= self.starts {
                return;
            }
            let child = self.start(n, random.below(3) == 0).unwrap();
            let pid = child.pid().as_raw_nonzero().get();
            let kill = random.below(3) == 0;
            if kill {
                spin(Duration::from_micros(random.below(2) * random.below(200)));
                child.kill().unwrap();
            }
            match child.join() {
                Ok(value) => {
                    assert_eq!(value, expected(n));
                    self.returned.lock().unwrap().insert(n);
                    assert!(child.exit_status().unwrap().success());
                }
                Err(error) => {
                    let status = error.exit_status().unwrap_or_else(|| panic!("{error}"));
                    assert_eq!(status.signal(), Some(SIGKILL), "{error}");
                    assert!(kill || self.victims.lock().unwrap().contains(&pid), "nobody killed it: {error}");
                    let how = error.ended().unwrap();
                    let possible = [Ended::BeforeTask, Ended::Signal, Ended::AfterTask];
                    assert!(possible.contains(&how), "{error}");
                    self.killed.fetch_add(1, Relaxed);
                }
            }
            self.told.fetch_add(1, Relaxed);
        }
    }

    /// Kills the zygote every now and then; sometimes its successor as well, as soon as it is there; sometimes a spare.
    fn kill_zygotes(&self) -> u64 {
        let mut random = Random(self.seed ^ 0xdead);
        let mut kills = 0;
        loop {
            let next = self.told.load(Relaxed) + 5 + random.below(60);
            while self.told.load(Relaxed) < next {
                if self.over.load(Relaxed) {
                    return kills;
                }
                std::thread::yield_now();
            }
            for _ in 0..=random.below(5) / 4 {
                spin(Duration::from_micros(random.below(300)));
                kills += u64::from(self.kill_one(zygote));
            }
            if random.below(4) == 0 {
                self.kill_one(spare);
            }
        }
    }

    fn kill_one(&self, find: fn() -> Option<i32>) -> bool {
        let Some(pid) = find() else { return false };
        let Ok(pidfd) = forkyard_sys::pidfd::open(Pid::from_raw(pid).unwrap()) else { return false };
        // The number may be somebody else's by now.
        if find() != Some(pid) {
            return false;
        }
        self.victims.lock().unwrap().insert(pid);
        forkyard_sys::pidfd::send_signal(pidfd.as_fd(), SIGKILL).is_ok()
    }

    fn run(&self) {
        // The runtime and its zygote, which stay, are there before descriptors are counted.
        (0..4).for_each(|i| drop(self.start(NO_NUMBER, i % 2 == 0).unwrap().join().unwrap()));
        process::spawn(nothing, ()).unwrap().join().unwrap();
        let before = open_fds();
        let began = Instant::now();
        let kills = std::thread::scope(|scope| {
            let workers: Vec<_> = (0..THREADS).map(|i| scope.spawn(move || self.work(i))).collect();
            let killer = scope.spawn(|| self.kill_zygotes());
            let failed = workers.into_iter().filter_map(|worker| worker.join().err()).count();
            self.over.store(true, Relaxed);
            assert_eq!(failed, 0, "threads in which a start or a join went wrong");
            killer.join().unwrap()
        });
        assert_eq!(self.told.load(Relaxed), self.starts);
        let killed = self.killed.load(Relaxed);
        println!(
            "{:?}: {} starts in {:?}, {killed} ended by a kill, zygote killed {kills} times",
            self.start,
            self.starts,
            began.elapsed()
        );
        self.check_notes();
        self.nothing_is_left(&before);
    }

    fn nothing_is_left(&self, before: &BTreeSet<i32>) {
        assert!(process::children().is_empty());
        eventually("the zygote is there again, and nobody else but its spares", || {
            let children = children_of(own_pid());
            zygote().is_some_and(|pid| {
                let settled = children.iter().all(|&child| state_of(child) == Some('S'));
                children.len() <= 3 && children.contains(&pid) && settled
            })
        });
        let after = open_fds();
        // The spares' pidfds, and the numbers kept free for them, may not have been there before.
        assert!(after.len() <= before.len() + 3, "descriptors before {before:?}, after {after:?}");
        process::spawn(nothing, ()).unwrap().join().unwrap();
    }
}

#[forkyard::task]
fn zygote_storm() {
    let starts = if std::env::var_os("FORKYARD_LONG").is_some() { 10_000 } else { 2_000 };
    Storm::new(Start::Zygote, starts).run();
}

#[test]
fn starts_from_64_threads_survive_kills_of_children_and_of_the_zygote() {
    isolated(zygote_storm);
}

#[forkyard::task]
fn spawn_storm() {
    let starts = if std::env::var_os("FORKYARD_LONG").is_some() { 2_000 } else { 200 };
    Storm::new(Start::Spawn, starts).run();
}

#[test]
fn fresh_executions_from_64_threads_survive_kills() {
    isolated(spawn_storm);
}

#[forkyard::task]
fn fork_beside_threads() {
    let over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let over = &over;
        // Threads that hold the allocator's locks now and then.
        let use_allocator = move |i| {
            while !over.load(Relaxed) {
                drop(std::hint::black_box(vec![i; 100]));
                std::thread::sleep(Duration::from_micros(200));
            }
        };
        let threads: Vec<_> = (0..THREADS).map(|i| scope.spawn(move || use_allocator(i))).collect();
        let error = process::fork(|| 1).unwrap_err();
        assert!(error.is_other_threads(), "{error}");
        assert!(error.to_string().contains("64 other thread"), "{error}");
        let error = Builder::new().start(Start::Fork).spawn(nothing, ()).unwrap_err();
        assert!(error.is_other_threads(), "{error}");

        let mut random = Random(seed());
        for n in 0..200u64 {
            // SAFETY: the closure takes no lock but the allocator's, which glibc puts in order.
            let child = unsafe { Builder::new().fork_with_threads(move || n + 1) }.unwrap();
            if random.below(3) == 0 {
                spin(Duration::from_micros(random.below(200)));
                child.kill().unwrap();
            }
            match child.join() {
                Ok(value) => assert_eq!(value, n + 1),
                Err(error) => assert_eq!(error.exit_status().unwrap().signal(), Some(SIGKILL), "{error}"),
            }
        }
        over.store(true, Relaxed);
        threads.into_iter().for_each(|thread| thread.join().unwrap());
    });
    assert_eq!(process::fork(|| 5).unwrap().join().unwrap(), 5, "the threads are gone");
    assert!(children_of(own_pid()).len() <= 2);
}

#[forkyard::task]
fn fork_after_joins() {
    for n in 0..300 {
        let threads: Vec<_> = (0..n % 4 + 1).map(|_| std::thread::spawn(|| ())).collect();
        threads.into_iter().for_each(|thread| thread.join().unwrap());
        assert_eq!(process::fork(move || n).unwrap().join().unwrap(), n);
    }
}

#[test]
fn threads_that_were_joined_are_in_no_forks_way() {
    isolated(fork_after_joins);
}

#[test]
fn a_fork_beside_other_threads_is_refused_unless_insisted_on() {
    isolated(fork_beside_threads);
}
