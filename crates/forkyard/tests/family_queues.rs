//! The queues of a family seen from outside: what is in them, what went through them, and who waits at which end.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by a panic")]

mod common;

use std::collections::BTreeMap;
use std::io::Read;
use std::process::{Child, Command, Stdio};

use common::{children_of, eventually, kill};
use forkyard::channel::{ByteQueue, JoinableQueue, Queue};
use forkyard::family::{self, Family};
use forkyard::process::{Builder, Pid};

const SIGSTOP: i32 = 19;
const SIGCONT: i32 = 18;
const INSIDE: &str = "A_FAMILY_WITH_QUEUES";

#[forkyard::task]
fn gets(queue: Queue<u32>) {
    assert!(queue.get().unwrap_err().is_closed());
}

#[forkyard::task]
fn puts(queue: ByteQueue) {
    assert!(queue.put(b"no room").unwrap_err().is_closed());
}

#[forkyard::task]
fn joins(queue: JoinableQueue<u32>) {
    queue.join().unwrap();
}

/// Somebody waits to get, to put and to join; it ends when its standard input does.
fn to_be_looked_at() {
    let empty = Queue::bounded(5).unwrap();
    for number in 0..7 {
        empty.put(number).unwrap();
        empty.get().unwrap();
    }
    let full = ByteQueue::bounded(3).unwrap();
    for len in [10, 200, 3000] {
        full.put(&vec![1; len]).unwrap();
    }
    let work = JoinableQueue::bounded(9).unwrap();
    work.put(1).unwrap();
    work.put(2).unwrap();
    let begun = work.get().unwrap();
    let endless = ByteQueue::unbounded().unwrap();
    (0..100).for_each(|_| endless.put(&[1; 10]).unwrap());
    (0..60).for_each(|_| drop(endless.get().unwrap()));

    let getter = Builder::new().name("getter").spawn(gets, (empty.clone(),)).unwrap();
    let putter = Builder::new().name("putter").spawn(puts, (full.clone(),)).unwrap();
    let joiner = Builder::new().name("joiner").spawn(joins, (work.clone(),)).unwrap();
    std::io::stdin().read_to_end(&mut Vec::new()).unwrap();
    empty.close();
    full.close();
    begun.finish().unwrap();
    work.get().unwrap().finish().unwrap();
    getter.join().unwrap();
    putter.join().unwrap();
    joiner.join().unwrap();
}

struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// This process takes no part in any family, so it may look at others.
#[test]
fn what_is_in_queues_and_who_waits_at_which_end_is_seen_also_when_all_are_stopped() {
    if std::env::var_os(INSIDE).is_some() {
        return to_be_looked_at();
    }
    let mut program = Command::new(std::env::current_exe().unwrap());
    program.env(INSIDE, "1").stdin(Stdio::piped()).stdout(Stdio::null());
    let mut running = Running(program.spawn().unwrap());
    let root = i32::try_from(running.0.id()).unwrap();
    let look = || family::observe(Pid::from_raw(root).unwrap());
    let waits_to = |family: &Family, name: &str| {
        let process = family.processes.iter().find(|process| process.name == name)?;
        process.waits.first()?.to
    };
    let ends = [("getter", "get"), ("putter", "put"), ("joiner", "join")];
    eventually("all three wait", || {
        look().is_ok_and(|family| ends.iter().all(|(name, verb)| waits_to(&family, name) == Some(verb)))
    });
    let all: Vec<i32> = children_of(root).into_iter().chain([root]).collect();
    all.iter().for_each(|pid| kill(*pid, SIGSTOP));
    eventually("all are stopped", || {
        look().is_ok_and(|family| family.processes.iter().all(|process| process.state == 'T'))
    });
    let family = look().unwrap();

    let with = |facts: &[(&str, u64)]| {
        let is_it = |found: &BTreeMap<&'static str, u64>| {
            facts.iter().all(|(name, value)| found.get(name) == Some(value))
        };
        let object = family.objects.iter().find(|object| is_it(&object.facts));
        object.unwrap_or_else(|| panic!("nothing with {facts:?} in {:#?}", family.objects))
    };
    let empty =
        with(&[("capacity", 5), ("depth", 0), ("bytes", 0), ("put", 7), ("got", 7), ("waiting_to_get", 1)]);
    assert!(empty.kind == "Queue" && empty.made_at.contains("family_queues.rs:"), "{empty:?}");
    assert_eq!((empty.waiting, empty.holders.len()), (1, 2));
    with(&[("capacity", 3), ("depth", 3), ("bytes", 3210), ("put", 3), ("got", 0), ("waiting_to_put", 1)]);
    with(&[("capacity", 9), ("depth", 1), ("taken", 1), ("put", 2), ("got", 1), ("waiting_to_join", 1)]);
    // Also what went through segments that are gone.
    let endless = with(&[("depth", 40), ("bytes", 400), ("put", 100), ("got", 60)]);
    assert!(endless.facts["segments"] > 0 && !endless.facts.contains_key("capacity"), "{endless:?}");

    all.iter().for_each(|pid| kill(*pid, SIGCONT));
    drop(running.0.stdin.take());
    assert!(running.0.wait().unwrap().success());
}
