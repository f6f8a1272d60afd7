//! A storm over handles in messages: four processes pass shared objects on, from one queue to another, to themselves and to each other, and one
//! of them is killed and replaced every 10 ms. Whatever handle is got is of an object that is there; in the end nothing is left.
//!
//! 4 s; 60 s with `FORKYARD_LONG=1`.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by a panic")]

mod common;

use std::time::{Duration, Instant};

use common::{Dice, alone_for, eventually};
use forkyard::__private::family_census;
use forkyard::channel::{JoinableQueue, Queue};
use forkyard::process::{Builder, Process, Start};
use forkyard::sync::{LockError, Mutex, Value};
use serde::{Deserialize, Serialize};

const PARTIES: usize = 4;
const TICK: Duration = Duration::from_millis(10);
const HUNG: Duration = Duration::from_secs(60);
/// So many objects are in motion, about.
const ENOUGH: usize = 40;

/// What is passed on: an object; or a queue with something in it.
#[derive(Serialize, Deserialize)]
#[allow(clippy::large_enum_variant, reason = "a handle of a queue is large, and there are few")]
enum Thing {
    Counter(Mutex<[u64; 2]>),
    Pair(Value<u64>, Value<u64>),
    Box(Queue<Thing>),
}

#[derive(Clone, Serialize, Deserialize)]
struct Ways {
    few: Queue<Thing>,
    any: Queue<Thing>,
    work: JoinableQueue<Thing>,
    /// Handles that were got and could be used.
    passed: Value<u64>,
}

impl Thing {
    fn new(dice: &mut Dice) -> Thing {
        match dice.roll(3) {
            0 => Thing::Counter(Mutex::new([0; 2]).unwrap()),
            1 => {
                let one = Value::new(7).unwrap();
                Thing::Pair(one.clone(), one)
            }
            _ => {
                let queue = Queue::bounded(2).unwrap();
                let inside = if dice.roll(2) == 0 {
                    Thing::new(dice)
                } else {
                    Thing::Pair(Value::new(7).unwrap(), Value::new(7).unwrap())
                };
                queue.put(inside).unwrap();
                Thing::Box(queue)
            }
        }
    }

    /// Uses it, as only what is there can be used.
    fn touch(&self) {
        match self {
            Thing::Counter(counter) => {
                // Its last user may have been killed half-way.
                let mut both = counter.lock().or_else(LockError::recovered).unwrap();
                both[0] += 1;
                both[1] = both[0];
            }
            Thing::Pair(one, other) => {
                assert_eq!((one.get().unwrap(), other.get().unwrap()), (7, 7));
            }
            Thing::Box(queue) => {
                if let Ok(inside) = queue.try_get() {
                    inside.touch();
                    let _ = queue.try_put(inside);
                }
            }
        }
    }
}

#[forkyard::task]
fn pass_on(seed: u64, ways: Ways) {
    let mut dice = Dice(seed);
    loop {
        let thing = match dice.roll(3) {
            0 => ways.few.try_get().ok(),
            1 => ways.any.try_get().ok(),
            _ => ways.work.try_get().ok().map(|work| {
                work.touch();
                work.finish().unwrap()
            }),
        };
        let thing = match thing {
            Some(thing) => thing,
            None if ways.any.len() + ways.work.len() < ENOUGH => Thing::new(&mut dice),
            None => continue,
        };
        thing.touch();
        *ways.passed.lock().or_else(LockError::recovered).unwrap() += 1;
        match dice.roll(4) {
            0 => drop(ways.few.try_put(thing)),
            1 => ways.any.put(thing).unwrap(),
            2 => ways.work.put(thing).unwrap(),
            _ => drop(thing),
        }
    }
}

fn start(number: u64, ways: &Ways) -> Process<()> {
    let start = if number.is_multiple_of(8) { Start::Spawn } else { Start::Zygote };
    let builder = Builder::new().name("passer").daemon(true).start(start);
    builder.spawn(pass_on, (number * 7919 + 1, ways.clone())).unwrap()
}

#[forkyard::task]
fn storm() {
    // From the first object on this process is a member.
    drop(Value::new(0u64).unwrap());
    let before = family_census();
    let ways = Ways {
        few: Queue::bounded(4).unwrap(),
        any: Queue::unbounded().unwrap(),
        work: JoinableQueue::unbounded().unwrap(),
        passed: Value::new(0).unwrap(),
    };
    let mut started = PARTIES as u64;
    let mut parties: Vec<_> = (0..started).map(|number| start(number, &ways)).collect();
    let (mut dice, mut tick) = (Dice(u64::from(std::process::id()) | 1 << 40), Instant::now());
    let lasts = if std::env::var_os("FORKYARD_LONG").is_some() { 60 } else { 4 };
    let end = tick + Duration::from_secs(lasts);
    while Instant::now() < end {
        tick += TICK;
        std::thread::sleep(tick.saturating_duration_since(Instant::now()));
        let party = &mut parties[dice.roll(PARTIES as u64) as usize];
        if !party.is_alive() {
            let died = std::mem::replace(party, start(started, &ways));
            panic!("ended by itself: {}", died.join().unwrap_err());
        }
        party.kill().unwrap();
        party.wait_ended().unwrap();
        *party = start(started, &ways);
        started += 1;
    }
    for party in &parties {
        party.kill().unwrap();
        party.wait_ended_timeout(HUNG).unwrap();
    }
    let passed = ways.passed.get().unwrap();
    // What is left can be used.
    let mut left = 0;
    while let Ok(thing) = ways.any.try_get().or_else(|_| ways.few.try_get()) {
        thing.touch();
        left += 1;
    }
    println!("storm: {started} started, {passed} passed on, {left} left");
    assert!(passed > 0);
    drop(ways);
    let is_as_before = || {
        let now = family_census();
        (now.participants, now.unfinished, now.objects, now.holders)
            == (before.participants, before.unfinished, before.objects, before.holders)
    };
    eventually(&format!("all is gone: {before:?}, now {:?}", family_census()), is_as_before);
}

#[test]
fn no_handle_is_of_nothing_and_nothing_stays_whoever_is_killed() {
    alone_for(storm, Duration::from_secs(240));
}
