//! What is left of queues when everybody who used them is killed at once: nothing.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by a panic")]

mod common;

use std::collections::BTreeSet;
use std::io::{BufRead, BufReader};
use std::os::unix::fs::MetadataExt;
use std::process::{Command, Stdio};

use common::{children_of, eventually, is_gone, kill};
use forkyard::channel::{ByteQueue, JoinableQueue, Queue};
use forkyard::process;

const INSIDE: &str = "QUEUE_ENDS_INSIDE";

#[forkyard::task]
fn produce(few: ByteQueue, any: ByteQueue, work: JoinableQueue<u64>) {
    for number in 0.. {
        few.put(&vec![1; 300_000]).unwrap();
        if any.len() < 3000 {
            any.put(&[2; 50]).unwrap();
            work.put(number).unwrap();
        }
    }
}

#[forkyard::task]
fn consume(few: ByteQueue, any: ByteQueue, work: JoinableQueue<u64>, told: Queue<u32>) {
    let mut unfinished = Vec::new();
    for round in 0.. {
        let _sample = few.get().unwrap();
        let _ = any.try_get();
        if let Ok(one) = work.try_get()
            && round < 100
        {
            unfinished.push(one);
        }
        if round == 100 {
            told.put(round).unwrap();
        }
    }
}

/// A family in the midst of it; it says when it is.
fn inside() {
    let (few, any) = (ByteQueue::bounded(10).unwrap(), ByteQueue::unbounded().unwrap());
    let (work, told) = (JoinableQueue::unbounded().unwrap(), Queue::unbounded().unwrap());
    let _producers =
        [0, 1].map(|_| process::spawn(produce, (few.clone(), any.clone(), work.clone())).unwrap());
    let _consumers = [0, 1]
        .map(|_| process::spawn(consume, (few.clone(), any.clone(), work.clone(), told.clone())).unwrap());
    assert_eq!(told.get_many(1).unwrap(), [100]);
    println!("in the midst of it");
    loop {
        std::thread::park();
    }
}

/// This process and all below it.
fn tree(pid: i32) -> BTreeSet<i32> {
    let mut all = BTreeSet::from([pid]);
    for child in children_of(pid) {
        all.extend(tree(child));
    }
    all
}

/// The arena that a process has, by its number among files.
fn arena_of(pid: i32) -> u64 {
    let list = std::fs::read_dir(format!("/proc/{pid}/fd")).unwrap();
    let arena = list.filter_map(|entry| {
        let path = entry.ok()?.path();
        let target = std::fs::read_link(&path).ok()?;
        target.to_str()?.contains("forkyard-arena").then(|| std::fs::metadata(&path).unwrap().ino())
    });
    arena.last().unwrap()
}

/// True if any process has this arena mapped.
fn is_mapped(arena: u64) -> bool {
    let processes = std::fs::read_dir("/proc").unwrap().flatten();
    let numbers = processes.filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok());
    numbers.into_iter().any(|pid| {
        let maps = std::fs::read_to_string(format!("/proc/{pid}/maps")).unwrap_or_default();
        maps.lines().any(|line| {
            line.contains("forkyard-arena")
                && line.split_whitespace().nth(4).and_then(|inode| inode.parse().ok()) == Some(arena)
        })
    })
}

#[test]
fn of_a_family_that_is_killed_at_once_nothing_is_left() {
    if std::env::var_os(INSIDE).is_some() {
        return inside();
    }
    let names = || -> BTreeSet<_> {
        std::fs::read_dir("/dev/shm").unwrap().flatten().map(|entry| entry.file_name()).collect()
    };
    let name = std::thread::current().name().unwrap().to_owned();
    let mut program = Command::new(std::env::current_exe().unwrap());
    program.args(["--exact", &name, "--nocapture"]).env(INSIDE, "1").stdout(Stdio::piped());
    let mut root = program.spawn().unwrap();
    let lines = BufReader::new(root.stdout.take().unwrap()).lines();
    assert!(lines.map_while(Result::ok).any(|line| line.contains("in the midst of it")));
    let pid = i32::try_from(root.id()).unwrap();
    let (all, arena) = (tree(pid), arena_of(pid));
    assert!(all.len() >= 5 && is_mapped(arena), "{all:?}");
    // All are stopped first, so that nobody sees another one's end.
    all.iter().for_each(|pid| kill(*pid, 19));
    all.iter().for_each(|pid| kill(*pid, 9));
    root.wait().unwrap();
    eventually("all are gone", || all.iter().all(|pid| is_gone(*pid)));
    eventually("nobody has the memory", || !is_mapped(arena));
    let own = |name: &std::ffi::OsString| name.to_string_lossy().contains(&format!("{pid}"));
    assert!(!names().iter().any(own), "{:?}", names());
}
