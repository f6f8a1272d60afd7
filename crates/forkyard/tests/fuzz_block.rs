//! The headers of a queue's block, and of the blocks of its large messages, overwritten at random while others put and get. Such a block may become
//! somebody else's; so messages, and other objects of the family, may be wrong. But nobody crashes, and no call takes longer than it may.
//!
//! 2 s; 60 s with `FORKYARD_LONG=1`.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by a panic")]

mod common;

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::time::{Duration, Instant};

use common::random::Random;
use common::{DEADLINE, kill_tree};
use forkyard::channel::{ByteQueue, JoinableQueue};
use forkyard::family::private;
use forkyard::process::{self, Builder, Process, Program, Start};

/// How long a call of these waits.
const BRIEF: Duration = Duration::from_millis(2);
/// How long a family goes on.
const WHILE: Duration = Duration::from_millis(150);
/// Bytes of a block's header.
const HEADER: u64 = 192;
/// In a place: the message lies in a block.
const IN_PARCEL: u64 = 1 << 63;

/// Where the block of a handle begins.
fn place_of(handle: &[u8]) -> u64 {
    let mut place = 0;
    for (number, byte) in handle.iter().enumerate() {
        place |= u64::from(byte & 0x7f) << (7 * number);
        if byte & 0x80 == 0 {
            break;
        }
    }
    place
}

/// The block of a large message in the queue that lies there, if there is one.
fn parcel_in(memory: &File, queue: u64, random: &mut Random) -> Option<u64> {
    let mut bytes = [0; 4096];
    memory.read_exact_at(&mut bytes, queue + HEADER).ok()?;
    let words: Vec<u64> =
        bytes.chunks_exact(8).map(|word| u64::from_le_bytes(word.try_into().unwrap())).collect();
    let is_large = |word: &u64| word & IN_PARCEL != 0 && word & !IN_PARCEL < 1 << 20;
    let found: Vec<u64> = words.windows(3).filter(|seen| is_large(&seen[0])).map(|seen| seen[2]).collect();
    (!found.is_empty()).then(|| found[random.below(found.len() as u64) as usize])
}

/// Overwrites words of headers, until it is killed.
#[forkyard::task]
fn scribble(handle: Vec<u8>, seed: u64) {
    let memory = File::from(private::arena().unwrap().try_clone_to_owned().unwrap());
    let size = memory.metadata().unwrap().len();
    let (mut random, queue) = (Random::new(seed), place_of(&handle));
    loop {
        let block = match random.below(3) {
            0 => queue,
            _ => parcel_in(&memory, queue, &mut random).unwrap_or(queue),
        };
        // The state and what it is are few.
        let word = if random.below(2) == 0 { random.below(4) } else { random.below(HEADER / 8) };
        let at = block.saturating_add(word * 8);
        let mut seen = [0; 8];
        if at.saturating_add(8) > size || memory.read_exact_at(&mut seen, at).is_err() {
            continue;
        }
        let seen = u64::from_le_bytes(seen);
        let value = match random.below(6) {
            0 => random.next(),
            1 => random.below(300),
            2 => 0,
            3 => u64::MAX,
            4 => seen ^ (1 << random.below(64)),
            _ => seen.wrapping_add(random.below(5)).wrapping_sub(2),
        };
        memory.write_all_at(&value.to_le_bytes(), at).unwrap();
        (0..random.below(2000)).for_each(|_| std::hint::spin_loop());
    }
}

#[forkyard::task]
fn puts(queue: ByteQueue, seed: u64) {
    let (mut random, end) = (Random::new(seed), Instant::now() + WHILE);
    let message = vec![7; 70_000];
    while Instant::now() < end {
        let len = if random.below(20) == 0 { random.below(70_000) } else { random.below(1000) };
        let _ = queue.put_timeout(&message[..len as usize], BRIEF);
        if let Ok(mut loan) = queue.loan(300) {
            loan.fill(1);
            let _ = queue.send_timeout(loan, BRIEF);
        }
    }
}

#[forkyard::task]
fn gets(queue: ByteQueue) {
    let end = Instant::now() + WHILE;
    while Instant::now() < end {
        let got = queue.get_timeout(BRIEF).into_iter().chain(queue.try_get_many(3).unwrap_or_default());
        // Every byte of it can be read.
        std::hint::black_box(
            got.map(|sample| sample.iter().map(|&byte| u64::from(byte)).sum::<u64>()).sum::<u64>(),
        );
    }
}

#[forkyard::task]
fn works(queue: JoinableQueue<Vec<u8>>, seed: u64) {
    let (mut random, end) = (Random::new(seed), Instant::now() + WHILE);
    while Instant::now() < end {
        let _ = queue.put_timeout(vec![1; random.below(600) as usize], BRIEF);
        if let Ok(work) = queue.get_timeout(BRIEF)
            && random.below(3) > 0
        {
            let _ = work.finish();
        }
    }
}

/// Dies while it is at it, so that its part is repaired in what is garbled.
#[forkyard::task]
fn dies(queue: ByteQueue) {
    let _kept = queue.get_timeout(BRIEF);
    let _ = queue.put_timeout(&[1; 200], BRIEF);
    common::kill_self();
}

#[forkyard::task]
fn a_family_with_a_scribbler(seed: u64) {
    let bytes = ByteQueue::bounded(8).unwrap();
    let jobs = JoinableQueue::bounded(8).unwrap();
    let mut workers: Vec<Process<()>> = Vec::new();
    for number in 0..2 {
        workers.push(process::spawn(puts, (bytes.clone(), seed + number)).unwrap());
        workers.push(process::spawn(gets, (bytes.clone(),)).unwrap());
        workers.push(process::spawn(works, (jobs.clone(), seed + number)).unwrap());
    }
    let dying = process::spawn(dies, (bytes.clone(),));
    let handles = [private::encode(&bytes), private::encode(&jobs)];
    // The second one may not come up in what the first one has left.
    let scribblers: Vec<_> = handles
        .into_iter()
        .filter_map(|handle| process::spawn(scribble, (handle.unwrap(), seed)).ok())
        .collect();
    for worker in workers {
        // One whose handle arrived while the header was garbled does not even begin: it says so by a panic, and no signal ends it.
        if let Err(error) = worker.join_timeout(DEADLINE) {
            let told = error.to_string();
            assert!(!error.is_timeout() && !told.contains("signal"), "{told}");
        }
    }
    dying.unwrap().wait_ended().unwrap();
    for scribbler in scribblers {
        scribbler.kill().unwrap();
        scribbler.wait_ended().unwrap();
    }
    drop((bytes, jobs));
    // Whatever is left of the arena, calls come back.
    if let Ok(queue) = ByteQueue::bounded(4) {
        let _ = queue.put_timeout(&[1; 300], BRIEF);
        let _ = queue.get_timeout(BRIEF);
    }
}

const TEST: &str = "blocks_whose_headers_are_scribbled_over_crash_nobody";

#[test]
fn blocks_whose_headers_are_scribbled_over_crash_nobody() {
    if let Some(seed) = std::env::var("FORKYARD_FUZZ_SEED").ok().and_then(|seed| seed.parse().ok()) {
        return a_family(seed);
    }
    let long = std::env::var_os("FORKYARD_LONG").is_some();
    let end = Instant::now() + Duration::from_secs(if long { 60 } else { 2 });
    for seed in 0u64.. {
        // A family of its own for each, with memory that nobody has scribbled over: this test, run again.
        let again = Program::new("/proc/self/exe").args(["--exact", TEST, "--nocapture"]);
        let output = again.env("FORKYARD_FUZZ_SEED", seed.to_string()).output().unwrap();
        let told = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "with FORKYARD_FUZZ_SEED={seed}: {}: {told}", output.status);
        if Instant::now() > end {
            return;
        }
    }
}

fn a_family(seed: u64) {
    let family = Builder::new().start(Start::Spawn).spawn(a_family_with_a_scribbler, (seed,)).unwrap();
    if let Err(error) = family.join_timeout(DEADLINE * 2) {
        kill_tree(family.pid().as_raw_nonzero().get());
        family.kill().unwrap();
        panic!("{error:?}");
    }
}
