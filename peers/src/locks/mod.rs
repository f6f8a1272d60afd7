//! Locks: alone, contended, and when their owner is killed.
//!
//! All contenders lie in memory that forks share, and are used by forks; only parking_lot's mutex, which is for threads, is used by
//! threads.

mod contenders;
mod crew;
mod death;

use std::cell::RefCell;
use std::hint::black_box;
use std::time::{Duration, Instant};

use contenders::{Cas, ForThreads, Plain, Robust, Section, Semaphore};

use crate::options::Options;
use crate::rounds::{Contender, Series, alternate};
use crate::table::{Budget, Group, Report};

/// Measures everything and adds it to the report.
pub fn run(options: &Options, report: &mut Report) {
    uncontended(options, report);
    for parties in [2, 8] {
        for (what, spins) in [("short", 0), ("long", 1000)] {
            contended(options, report, parties, what, spins);
        }
    }
    death::run(options, report);
}

/// A series that is a limit, to be set against.
fn limit(name: &str, value: f64, rounds: usize) -> Series {
    Series { name: name.to_owned(), rounds: Ok(vec![value; rounds]) }
}

/// Calls `visit` with each contender's name and a function of it.
macro_rules! for_each_contender {
    ($options:expr, $function:ident ( $($argument:expr),* )) => {{
        let mut contenders = Vec::new();
        #[cfg(feature = "ours")]
        if !$options.skip_ours {
            contenders.push(Contender::new("forkyard Mutex", move || $function::<contenders::OurMutex>($($argument),*)));
            contenders.push(Contender::new("forkyard Lock", move || $function::<contenders::OurLock>($($argument),*)));
        }
        contenders.push(Contender::new("glibc robust mutex", move || $function::<Robust>($($argument),*)));
        contenders.push(Contender::new("glibc shared mutex", move || $function::<Plain>($($argument),*)));
        contenders.push(Contender::new("sem_t", move || $function::<Semaphore>($($argument),*)));
        contenders.push(Contender::new("parking_lot (threads)", move || $function::<ForThreads>($($argument),*)));
        contenders.push(Contender::new("raw CAS", move || $function::<Cas>($($argument),*)));
        contenders
    }};
}

const OURS: [&str; 2] = ["forkyard Mutex", "forkyard Lock"];
const PEERS: [&str; 5] =
    ["glibc robust mutex", "glibc shared mutex", "sem_t", "parking_lot (threads)", "raw CAS"];

fn rows(mut group: Group, budget: impl Fn(&str) -> Option<Budget>) -> Group {
    for ours in OURS {
        for peer in PEERS {
            group = group.row(ours, peer, budget(peer));
        }
    }
    group
}

fn uncontended(options: &Options, report: &mut Report) {
    const LIMIT: &str = "budget: 6 ns";
    const TITLE: &str = "lock + unlock, nobody else";
    if !options.wants(TITLE) {
        return;
    }
    let length = options.length / 10;
    let mut series = alternate(options.rounds, for_each_contender!(options, alone(length)));
    series.push(limit(LIMIT, 6.0, options.rounds));
    let mut group = Group::new(TITLE, "ns", series);
    for ours in OURS {
        group = group.row(ours, LIMIT, Some(Budget::AtMost(1.0)));
    }
    report.add(&rows(group, |_| None));
}

/// Nanoseconds of this thread's own time for one section with nobody else: what other programs take is not counted.
fn alone<L: Section>(length: Duration) -> Result<f64, String> {
    const BATCH: u32 = 10_000;
    let lock = L::make()?;
    let own = || {
        let now = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
        now.tv_sec as f64 * 1e9 + now.tv_nsec as f64
    };
    let (begin, then, mut done) = (Instant::now(), own(), 0.0);
    while begin.elapsed() < length {
        for _ in 0..BATCH {
            black_box(&lock).section(|| {});
        }
        done += f64::from(BATCH);
    }
    Ok((own() - then) / done)
}

fn contended(options: &Options, report: &mut Report, parties: usize, what: &str, spins: u32) {
    thread_local! {
        static FAIRNESS: RefCell<Vec<(String, Vec<f64>)>> = const { RefCell::new(Vec::new()) };
    }
    fn measure<L: Section>(parties: usize, spins: u32, length: Duration) -> Result<f64, String> {
        let counts = crew::contend::<L>(parties, spins, length)?;
        let (least, most) = (counts.iter().min(), counts.iter().max());
        let share = least.zip(most).map_or(0.0, |(least, most)| *least as f64 / (*most).max(1) as f64);
        FAIRNESS.with_borrow_mut(|all| match all.iter_mut().find(|(name, _)| name == L::NAME) {
            Some((_, shares)) => shares.push(share * 100.0),
            None => all.push((L::NAME.to_owned(), vec![share * 100.0])),
        });
        Ok(counts.iter().sum::<u64>() as f64 / length.as_secs_f64() / 1e3)
    }
    let title = format!("{parties} processes contend, {what} sections");
    if !options.wants(&title) {
        return;
    }
    let length = options.length / 8;
    let series = alternate(options.rounds, for_each_contender!(options, measure(parties, spins, length)));
    report.add(&rows(Group::new(&format!("{title}: throughput"), "k/s", series), |_| None));
    let shares = FAIRNESS.take();
    let shares = shares.into_iter().map(|(name, shares)| Series { name, rounds: Ok(shares) }).collect();
    report.add(&rows(Group::new(&format!("{title}: least share of the greatest"), "%", shares), |_| None));
}
