//! A queue whose memory another process of the family overwrites at random, while others put and get: they are told of errors or get wrong
//! messages, and never crash, never hang, and never touch what is not the queue's.
//!
//! 3 s; 60 s with `FORKYARD_LONG=1`. Every call has a deadline; one that does not keep it makes its family hang, which is ended.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by a panic")]

mod common;

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use common::random::Random;
use common::{DEADLINE, kill_tree};
use forkyard::channel::{ByteQueue, JoinableQueue, Queue};
use forkyard::family::private;
use forkyard::process::{self, Builder, Process, Start};
use forkyard::sync::{Event, Semaphore, Value};

const CAPACITY: usize = 16;
/// How long a call of these waits.
const BRIEF: Duration = Duration::from_millis(2);

/// Which bytes of the arena a queue takes: those behind its block's header.
fn range_of(handle: &[u8]) -> std::ops::Range<u64> {
    // A handle is written down as the place of its block, seven bits to a byte.
    let mut place = 0;
    for (number, byte) in handle.iter().enumerate() {
        place |= u64::from(byte & 0x7f) << (7 * number);
        if byte & 0x80 == 0 {
            break;
        }
    }
    place + 192..place + 192 + 4096
}

/// Something that may make sense as a word of a queue: a small number, a large one, a word of its own, one with a bit turned.
fn word(random: &mut Random, memory: &File, range: &std::ops::Range<u64>) -> u64 {
    let at = range.start + random.below((range.end - range.start) / 8) * 8;
    let mut seen = [0; 8];
    memory.read_exact_at(&mut seen, at).unwrap();
    let seen = u64::from_le_bytes(seen);
    match random.below(6) {
        0 => random.next(),
        1 => random.below(300),
        2 => u64::MAX - random.below(300),
        3 => seen,
        4 => seen ^ (1 << random.below(64)),
        _ => seen.wrapping_add(random.below(5)).wrapping_sub(2),
    }
}

/// Overwrites words, pages and everything, until it is killed.
#[forkyard::task]
fn scribble(handle: Vec<u8>, seed: u64, pause: u64, scribbles: Value<AtomicU64>) {
    let memory = File::from(private::arena().unwrap().try_clone_to_owned().unwrap());
    let (mut random, range) = (Random::new(seed), range_of(&handle));
    let words = (range.end - range.start) / 8;
    loop {
        let value = word(&mut random, &memory, &range).to_le_bytes();
        let (first, count) = match random.below(40) {
            // One word over all.
            0 => (0, words),
            1 => (random.below(words), 16),
            // The header and the counters are few.
            2..20 => (random.below(words / 6), 1),
            _ => (random.below(words), 1),
        };
        for number in first..(first + count).min(words) {
            memory.write_all_at(&value, range.start + number * 8).unwrap();
        }
        scribbles.fetch_add(1, Ordering::Relaxed);
        (0..random.below(pause + 1)).for_each(|_| std::hint::spin_loop());
    }
}

#[forkyard::task]
fn puts(queue: ByteQueue, seed: u64, over: Event, ready: Semaphore) -> u64 {
    let mut random = Random::new(seed);
    let message = vec![7; 70_000];
    let mut done = 0;
    ready.release().unwrap();
    while !over.is_set() {
        let len = match random.below(50) {
            0 => random.below(70_000),
            1..10 => random.below(1000),
            _ => random.below(112),
        };
        done += u64::from(queue.put_timeout(&message[..len as usize], BRIEF).is_ok());
        // Numbers, whatever they are.
        let _ = (queue.len(), queue.is_full(), queue.is_closed());
    }
    done
}

#[forkyard::task]
fn gets(queue: ByteQueue, over: Event, ready: Semaphore) -> u64 {
    let mut done = 0;
    ready.release().unwrap();
    while !over.is_set() {
        if let Ok(message) = queue.get_timeout(BRIEF) {
            done += 1;
            // Every byte of it can be read.
            std::hint::black_box(message.iter().map(|&byte| u64::from(byte)).sum::<u64>());
        }
    }
    done
}

#[forkyard::task]
fn works(queue: JoinableQueue<Vec<u8>>, seed: u64, over: Event, ready: Semaphore) -> u64 {
    let mut random = Random::new(seed);
    let mut done = 0;
    ready.release().unwrap();
    while !over.is_set() {
        if random.below(2) == 0 {
            done += u64::from(queue.put_timeout(vec![1; random.below(300) as usize], BRIEF).is_ok());
        } else if let Ok(work) = queue.get_timeout(BRIEF) {
            // Finished, or given back.
            if random.below(3) > 0 {
                done += u64::from(work.finish().is_ok());
            }
        }
        if random.below(50) == 0 {
            let _ = queue.join_timeout(BRIEF);
        }
    }
    done
}

/// Puts and gets one and many, in a queue that grows.
#[forkyard::task]
fn grows(queue: Queue<Vec<u8>>, seed: u64, over: Event, ready: Semaphore) -> u64 {
    let mut random = Random::new(seed);
    let (mut done, mut put) = (0, 0);
    ready.release().unwrap();
    while !over.is_set() {
        let count = random.below(40);
        // Not without end, whatever the others get.
        if random.below(2) == 0 && put < 20_000 {
            let values = (0..count).map(|_| vec![2; random.below(300) as usize]);
            done += u64::from(queue.put_many(values).is_ok());
            put += count;
        } else if random.below(2) == 0 && !queue.is_empty() {
            done += u64::from(queue.try_get().is_ok());
        } else {
            (0..count).for_each(|_| done += u64::from(queue.get_timeout(BRIEF / 20).is_ok()));
        }
    }
    done
}

/// Dies while it is at it, so that its part is repaired in what is garbled.
#[forkyard::task]
fn dies(queue: ByteQueue) {
    let _kept = queue.get_timeout(BRIEF);
    let _ = queue.put_timeout(&[1; 200], BRIEF);
    common::kill_self();
}

fn ends<R: serde::de::DeserializeOwned>(children: Vec<Process<R>>) -> Vec<R> {
    children.into_iter().map(|child| child.join_timeout(DEADLINE).unwrap()).collect()
}

/// A queue that nobody scribbles over still works.
fn others_work() {
    let queue = Queue::bounded(4).unwrap();
    for number in 0..10 {
        queue.put_timeout((number, "x".repeat(200)), DEADLINE).unwrap();
        assert_eq!(queue.get_timeout(DEADLINE).unwrap(), (number, "x".repeat(200)));
    }
}

/// Waits until there were so many scribbles more.
fn scribbled(scribbles: &Value<AtomicU64>, more: u64) {
    let goal = scribbles.load(Ordering::Relaxed) + more;
    common::eventually("it is scribbled over", || scribbles.load(Ordering::Relaxed) >= goal);
}

#[forkyard::task]
fn a_family_with_a_scribbler(seed: u64) {
    let over = Event::new().unwrap();
    let scribbles = Value::new(AtomicU64::new(0)).unwrap();
    let bytes = ByteQueue::bounded(CAPACITY).unwrap();
    let jobs = JoinableQueue::bounded(CAPACITY).unwrap();
    let endless = Queue::<Vec<u8>>::unbounded().unwrap();
    let (ready, mut workers) = (Semaphore::new(0).unwrap(), Vec::new());
    for number in 0..2 {
        workers
            .push(process::spawn(puts, (bytes.clone(), seed + number, over.clone(), ready.clone())).unwrap());
        workers.push(process::spawn(gets, (bytes.clone(), over.clone(), ready.clone())).unwrap());
        workers
            .push(process::spawn(works, (jobs.clone(), seed + number, over.clone(), ready.clone())).unwrap());
    }
    // A handle that arrives while the header is garbled is none.
    common::waiters::take_all(&ready, workers.len());
    // Now and then as often as it can, now and then so that much is put and got in between.
    let pause = [0, 1000, 100_000][seed as usize % 3];
    let mut scribblers = Vec::new();
    let handles = [private::encode(&bytes), private::encode(&jobs), private::encode(&endless)];
    for handle in handles.map(Result::unwrap) {
        let arguments = (handle, seed, pause, scribbles.clone());
        scribblers.push(process::spawn(scribble, arguments).unwrap());
    }
    scribbled(&scribbles, 500);
    let dying: Vec<_> = (0..2).map(|_| process::spawn(dies, (bytes.clone(),))).collect();
    scribbled(&scribbles, 500);
    // One whose handle arrived while the header was garbled does not even begin.
    for child in dying.into_iter().flatten() {
        child.wait_ended().unwrap();
    }
    bytes.close();
    jobs.close();
    endless.close();
    scribbled(&scribbles, 200);
    others_work();
    over.set().unwrap();
    ends(workers);
    for scribbler in scribblers {
        scribbler.kill().unwrap();
        scribbler.wait_ended().unwrap();
    }
    // What is left of them is freed.
    drop((bytes, jobs, endless));
    others_work();
}

#[test]
fn a_queue_that_is_scribbled_over_harms_nobody_else() {
    let long = std::env::var_os("FORKYARD_LONG").is_some();
    let end = Instant::now() + Duration::from_secs(if long { 60 } else { 3 });
    let chosen = std::env::var("FORKYARD_FUZZ_SEED").ok().and_then(|seed| seed.parse().ok());
    for seed in chosen.unwrap_or(0u64).. {
        // A family of its own for each.
        let family = Builder::new().start(Start::Spawn).spawn(a_family_with_a_scribbler, (seed,)).unwrap();
        if let Err(error) = family.join_timeout(DEADLINE * 2) {
            kill_tree(family.pid().as_raw_nonzero().get());
            family.kill().unwrap();
            panic!("with FORKYARD_FUZZ_SEED={seed}: {error:?}");
        }
        if chosen.is_some() || Instant::now() > end {
            return;
        }
    }
}
