//! From the SIGKILL of a lock's owner to its first waiter having the lock.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use super::contenders::{Robust, Section, shared_memory};
use super::crew::Fork;
use super::limit;
use crate::options::Options;
use crate::rounds::{Contender, Summary, alternate};
use crate::table::{Budget, Group, Report};

/// How long everything may take.
const LONG: Duration = Duration::from_secs(20);

/// What the owner, the waiters and the tester share.
struct Board {
    held: AtomicU32,
    waiting: AtomicU32,
    served: AtomicU32,
    /// When the first waiter had the lock: nanoseconds on the monotonic clock.
    first: AtomicU64,
}

pub(super) fn run(options: &Options, report: &mut Report) {
    const LIMIT: &str = "budget: 50 µs";
    for waiters in [1, 3, 50] {
        let title = format!("owner killed, {waiters} waiting: until the first has the lock");
        if !options.wants(&title) {
            continue;
        }
        // Many: where the scheduler puts the waiter, beside the dying owner or behind it, makes a difference of ten times.
        let kills = if options.length < Duration::from_secs(1) { 15 } else { 31 };
        let mut contenders = vec![Contender::new(Robust::NAME, move || median::<Robust>(waiters, kills))];
        #[cfg(feature = "ours")]
        if !options.skip_ours {
            use super::contenders::{OurLock, OurMutex};
            contenders.push(Contender::new(OurMutex::NAME, move || median::<OurMutex>(waiters, kills)));
            contenders.push(Contender::new(OurLock::NAME, move || median::<OurLock>(waiters, kills)));
        }
        let mut series = alternate(options.rounds, contenders);
        series.push(limit(LIMIT, 50.0, options.rounds));
        let mut group = Group::new(&title, "µs", series);
        for ours in super::OURS {
            group = group.row(ours, LIMIT, Some(Budget::AtMost(1.0))).row(ours, Robust::NAME, None);
        }
        report.add(&group);
    }
}

fn median<L: Section>(waiters: u32, kills: u32) -> Result<f64, String> {
    let times = (0..kills).map(|_| once::<L>(waiters)).collect::<Result<Vec<f64>, String>>()?;
    Summary::of(&times).map(|summary| summary.median).ok_or_else(|| "no figure".to_owned())
}

/// Microseconds.
fn once<L: Section>(waiters: u32) -> Result<f64, String> {
    let board: &'static Board = shared_memory()?;
    let lock: &'static L = Box::leak(Box::new(L::make()?));
    let owner = Fork::that(|| {
        lock.section(|| {
            board.held.store(1, Ordering::Release);
            loop {
                std::thread::park();
            }
        });
    })?;
    until("the owner has the lock", || board.held.load(Ordering::Acquire) == 1)?;
    let wait = || {
        board.waiting.fetch_add(1, Ordering::AcqRel);
        lock.section(|| {
            let now = monotonic_ns();
            let _ = board.first.compare_exchange(0, now, Ordering::AcqRel, Ordering::Acquire);
        });
        board.served.fetch_add(1, Ordering::AcqRel);
    };
    let forks: Vec<Fork> = (0..waiters).map(|_| Fork::that(wait)).collect::<Result<_, _>>()?;
    until("all wait", || {
        board.waiting.load(Ordering::Acquire) == waiters && forks.iter().all(|fork| sleeps(fork.0))
    })?;
    // Those who were seen asleep may have been on their way to a longer sleep.
    std::thread::sleep(Duration::from_millis(3));
    let then = monotonic_ns();
    owner.kill();
    until("all were served", || {
        std::thread::sleep(Duration::from_micros(200));
        board.served.load(Ordering::Acquire) == waiters
    })?;
    owner.join();
    forks.into_iter().for_each(Fork::join);
    Ok((board.first.load(Ordering::Acquire).saturating_sub(then)) as f64 / 1e3)
}

fn until(what: &str, mut holds: impl FnMut() -> bool) -> Result<(), String> {
    let end = Instant::now() + LONG;
    while !holds() {
        if Instant::now() > end {
            return Err(format!("never happened: {what}"));
        }
        std::thread::yield_now();
    }
    Ok(())
}

/// True if the process waits in the kernel.
fn sleeps(pid: libc::pid_t) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit(')').next().is_some_and(|rest| rest.trim_start().starts_with('S'))
}

fn monotonic_ns() -> u64 {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
    now.tv_sec as u64 * 1_000_000_000 + now.tv_nsec as u64
}
