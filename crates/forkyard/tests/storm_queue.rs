//! A storm over queues: four producers and four consumers, of which one is killed and replaced every 10 ms, or stopped for a while; messages
//! of no bytes and of 2 MiB. Every message whose put returned is accounted for exactly once.
//!
//! 4 s in all; 60 s with `FORKYARD_LONG=1`. A producer counts a message after its put, a consumer notes one after its get; so of each dead
//! producer there may be one more than it counted, and by each dead consumer one may be missing that it had got.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by a panic")]

mod common;

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use common::Dice;
use forkyard::__private::family_census;
use forkyard::channel::{ByteQueue, QueueBuilder, Sample};
use forkyard::process::{Builder, Process, Start};
use forkyard::signal::Signal;
use forkyard::sync::Array;
use serde::{Deserialize, Serialize};

/// Producers, and as many consumers.
const PARTIES: usize = 4;
const TICK: Duration = Duration::from_millis(10);
/// Who does not end in so long hangs.
const HUNG: Duration = Duration::from_secs(60);
/// A producer counts up to this, and then waits for its end.
const MOST: usize = 1 << 16;
/// Numbers of a producer: how many it has put, how many empty ones, and a bit for each that was got.
const NUMBERS: usize = 2 + MOST / 64;
/// Bytes that say whose message it is, and which.
const HEAD: usize = 8;

#[derive(Clone, Serialize, Deserialize)]
struct Shared {
    queue: ByteQueue,
    /// Messages are of so many bytes at most.
    largest: usize,
    /// For each producer that ever was.
    numbers: Array<AtomicU64>,
    /// Not 0: it is enough. Then: what is wrong, how many came before one that was put before, empty ones that were got, and all.
    state: Array<AtomicU64>,
}

const STOP: usize = 0;
const WRONG: usize = 1;
const EARLY: usize = 2;
const EMPTY: usize = 3;
const GOT: usize = 4;

impl Shared {
    fn of(&self, producer: usize) -> &[AtomicU64] {
        &self.numbers[producer * NUMBERS..][..NUMBERS]
    }

    fn is_over(&self) -> bool {
        self.state[STOP].load(Ordering::Relaxed) != 0
    }

    /// Notes a message that was got.
    fn note(&self, sample: &Sample, last: &mut BTreeMap<usize, usize>) {
        self.state[GOT].fetch_add(1, Ordering::Relaxed);
        if sample.is_empty() {
            self.state[EMPTY].fetch_add(1, Ordering::Relaxed);
            return;
        }
        let word = |at: usize| u32::from_le_bytes(sample[at..at + 4].try_into().unwrap()) as usize;
        let (producer, number) = (word(0), word(4));
        let fill = fill_of(producer, number);
        let is_whole = sample[HEAD..].iter().step_by(1021).chain(sample.last()).all(|byte| *byte == fill);
        let bit = 1 << (number % 64);
        let seen = self.of(producer)[2 + number / 64].fetch_or(bit, Ordering::Relaxed);
        if !is_whole {
            self.state[WRONG].fetch_or(1, Ordering::Relaxed);
        }
        if seen & bit != 0 {
            self.state[WRONG].fetch_or(2, Ordering::Relaxed);
        }
        if last.insert(producer, number).is_some_and(|before| before > number) {
            // It had been taken by somebody who died.
            self.state[EARLY].fetch_add(1, Ordering::Relaxed);
        }
    }
}

fn fill_of(producer: usize, number: usize) -> u8 {
    (producer * 31 + number) as u8
}

#[forkyard::task]
fn produce(producer: usize, shared: Shared) {
    let counts = shared.of(producer);
    let mut dice = Dice(producer as u64 + 0x9e37_79b9);
    for number in 0..MOST {
        while shared.queue.capacity() == usize::MAX && shared.queue.len() > 4000 && !shared.is_over() {
            std::thread::yield_now();
        }
        if shared.is_over() {
            return;
        }
        if dice.roll(16) == 0 {
            shared.queue.put(&[]).unwrap();
            counts[1].fetch_add(1, Ordering::Relaxed);
        }
        let most = match dice.roll(64) {
            0 => shared.largest,
            1..8 => shared.largest.min(100_000),
            _ => 200,
        };
        let len = HEAD + 1 + dice.roll(most as u64) as usize;
        let head = [(producer as u32).to_le_bytes(), (number as u32).to_le_bytes()].concat();
        let fill = fill_of(producer, number);
        if dice.roll(2) == 0 {
            let mut loan = shared.queue.loan(len).unwrap();
            loan[..HEAD].copy_from_slice(&head);
            loan[HEAD..].fill(fill);
            shared.queue.send(loan).unwrap();
        } else {
            let mut message = vec![fill; len];
            message[..HEAD].copy_from_slice(&head);
            shared.queue.put(&message).unwrap();
        }
        counts[0].store(number as u64 + 1, Ordering::Relaxed);
    }
    while !shared.is_over() {
        std::thread::sleep(TICK);
    }
}

#[forkyard::task]
fn consume(_number: usize, shared: Shared) {
    let mut last = BTreeMap::new();
    while let Ok(sample) = shared.queue.get() {
        shared.note(&sample, &mut last);
    }
}

/// A producer or consumer, from outside.
struct Party {
    process: Process<()>,
    is_producer: bool,
    stopped: bool,
}

impl Party {
    fn start(is_producer: bool, number: usize, shared: &Shared) -> Party {
        let name = if is_producer { "producer" } else { "consumer" };
        let start = if number.is_multiple_of(8) { Start::Spawn } else { Start::Zygote };
        let builder = Builder::new().name(name).daemon(true).start(start);
        let task = if is_producer { produce } else { consume };
        let process = builder.spawn(task, (number, shared.clone())).unwrap();
        Party { process, is_producer, stopped: false }
    }

    fn go_on(&mut self) {
        if std::mem::take(&mut self.stopped) {
            self.process.signal(Signal::CONT).unwrap();
        }
    }

    fn end(self) {
        self.process.join_timeout(HUNG).unwrap_or_else(|error| panic!("{}: {error}", self.process.name()));
    }
}

fn storm(queue: impl FnOnce() -> ByteQueue, largest: usize, lasts: Duration) {
    // From the first object on this process is a member.
    drop(ByteQueue::bounded(1).unwrap());
    let before = family_census();
    let producers = 2 * PARTIES + lasts.as_millis() as usize / TICK.as_millis() as usize;
    let shared = Shared {
        queue: queue(),
        largest,
        numbers: Array::zeroed(producers * NUMBERS).unwrap(),
        state: Array::zeroed(8).unwrap(),
    };
    let mut next = 0;
    let mut start = |is_producer| {
        next += usize::from(is_producer);
        Party::start(is_producer, if is_producer { next - 1 } else { next }, &shared)
    };
    let mut parties: Vec<Party> = (0..2 * PARTIES).map(|number| start(number < PARTIES)).collect();
    let seed = u64::from(std::process::id()) | 1 << 40;
    let (mut dice, mut killed) = (Dice(seed), [0_u64; 2]);
    let mut tick = Instant::now();
    let end = tick + lasts;
    while Instant::now() < end && next_is_there(killed[1] as usize, producers) {
        tick += TICK;
        std::thread::sleep(tick.saturating_duration_since(Instant::now()));
        let party = &mut parties[dice.roll(2 * PARTIES as u64) as usize];
        assert!(party.process.is_alive(), "{} ended by itself", party.process.name());
        if party.stopped {
            party.go_on();
        } else if dice.roll(8) == 0 {
            party.process.signal(Signal::STOP).unwrap();
            party.stopped = true;
        } else {
            party.process.kill().unwrap();
            party.process.wait_ended().unwrap();
            killed[usize::from(party.is_producer)] += 1;
            *party = start(party.is_producer);
        }
    }
    shared.state[STOP].store(1, Ordering::Relaxed);
    parties.iter_mut().for_each(Party::go_on);
    let (all, consumers): (Vec<_>, Vec<_>) = parties.into_iter().partition(|party| party.is_producer);
    all.into_iter().for_each(Party::end);
    shared.queue.close();
    consumers.into_iter().for_each(Party::end);
    // What the last of the dead had taken.
    let mut last = BTreeMap::new();
    while let Ok(sample) = shared.queue.try_get() {
        shared.note(&sample, &mut last);
    }
    exact(&shared, next, killed, seed);
    drop(shared);
    let mut now = before;
    let end = Instant::now() + HUNG;
    let mut is_as_before = || {
        now = family_census();
        (now.participants, now.unfinished, now.objects, now.holders)
            == (before.participants, before.unfinished, before.objects, before.holders)
            && now.chunks <= before.chunks + 11
    };
    while !is_as_before() && Instant::now() < end {
        std::thread::sleep(TICK);
    }
    assert!(is_as_before(), "left behind: {now:?}, before {before:?}");
}

fn next_is_there(killed: usize, producers: usize) -> bool {
    killed + PARTIES < producers
}

/// Everything that was put was got, once, but for what the dead had not counted or noted.
fn exact(shared: &Shared, producers: usize, [consumers_killed, producers_killed]: [u64; 2], seed: u64) {
    let state = |index: usize| shared.state[index].load(Ordering::Relaxed);
    let (mut put, mut empty, mut missing, mut more) = (0, 0, 0, 0);
    for producer in 0..producers {
        let numbers = shared.of(producer);
        let counted = numbers[0].load(Ordering::Relaxed);
        let was_got =
            |number: u64| numbers[2 + number as usize / 64].load(Ordering::Relaxed) & 1 << (number % 64) != 0;
        put += counted;
        empty += numbers[1].load(Ordering::Relaxed);
        missing += (0..counted).filter(|number| !was_got(*number)).count() as u64;
        let uncounted: Vec<u64> = (counted..MOST as u64).filter(|number| was_got(*number)).collect();
        assert!(
            uncounted.is_empty() || uncounted == [counted],
            "{uncounted:?} of {producer} after {counted}"
        );
        more += uncounted.len() as u64;
    }
    println!(
        "storm: {producers_killed} producers and {consumers_killed} consumers killed; {put} put and {empty} empty ones, {} got; {missing} \
         missing, {more} more, {} early, seed {seed}",
        state(GOT),
        state(EARLY)
    );
    assert_eq!(state(WRONG), 0, "1: a message was torn, 2: one was got twice");
    assert!(more <= producers_killed, "{more} were not counted");
    let empty_missing = empty.saturating_sub(state(EMPTY));
    assert!(state(EMPTY) <= empty + producers_killed, "{} empty ones of {empty}", state(EMPTY));
    assert!(missing + empty_missing <= consumers_killed, "{missing} and {empty_missing} empty ones are lost");
    assert!(state(EARLY) <= consumers_killed, "{} were out of order", state(EARLY));
    assert!(put > 0 && producers_killed + consumers_killed > 0);
}

fn lasts() -> Duration {
    if std::env::var_os("FORKYARD_LONG").is_some() { Duration::from_secs(60) } else { Duration::from_secs(4) }
}

#[forkyard::task]
fn bounded() {
    let queue = || QueueBuilder::new().items(64).bytes(16 << 20).byte_queue().unwrap();
    storm(queue, 2 << 20, lasts());
}

#[forkyard::task]
fn unbounded() {
    storm(|| ByteQueue::unbounded().unwrap(), 3000, lasts());
}

#[test]
fn nothing_is_lost_or_got_twice_whoever_is_killed() {
    common::alone_for(bounded, Duration::from_secs(240));
}

#[test]
fn the_same_while_the_queue_grows_and_shrinks() {
    common::alone_for(unbounded, Duration::from_secs(240));
}
