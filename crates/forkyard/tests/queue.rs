//! Queues between processes: order, bounds, ends, and the deaths of whoever uses them.

#![allow(
    unsafe_code,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test fails by a panic; each unsafe block has its own reason"
)]

mod common;

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use common::{METHODS, alone, eventually, kill};
use forkyard::__private::family_census;
use forkyard::channel::{ByteQueue, GetError, JoinableQueue, PutError, Queue, SimpleQueue, pipe};
use forkyard::process::{self, Builder, Process, Start};
use serde::{Deserialize, Serialize};

/// So long nothing takes that is told of an event.
const LONG: Duration = Duration::from_secs(30);

fn start<R>(method: Start, name: &str, task: impl FnOnce(Builder) -> forkyard::Result<R>) -> R {
    task(Builder::new().name(name).start(method)).unwrap()
}

fn pid(process: &Process<impl Sized>) -> i32 {
    process.pid().as_raw_nonzero().get()
}

/// A message: whose it is, which of theirs, and some bytes that follow from both.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Parcel {
    producer: u32,
    number: u32,
    bytes: Vec<u8>,
}

impl Parcel {
    fn new(producer: u32, number: u32, len: usize) -> Parcel {
        let bytes = (0..len).map(|at| (at as u32 ^ number.wrapping_mul(31) ^ producer) as u8).collect();
        Parcel { producer, number, bytes }
    }

    fn is_whole(&self) -> bool {
        *self == Parcel::new(self.producer, self.number, self.bytes.len())
    }
}

/// Bytes of memory that the family's arena has.
fn memory() -> u64 {
    use std::os::unix::fs::MetadataExt;
    let list = std::fs::read_dir("/proc/self/fd").unwrap();
    let arena = list.filter_map(|entry| {
        let path = entry.ok()?.path();
        let target = std::fs::read_link(&path).ok()?;
        target.to_str()?.contains("forkyard-arena").then(|| std::fs::metadata(&path).unwrap().blocks() * 512)
    });
    arena.max().unwrap_or(0)
}

#[forkyard::task]
fn produce(queue: Queue<Parcel>, producer: u32, count: u32, len: usize) {
    for number in 0..count {
        queue.put(Parcel::new(producer, number, len)).unwrap();
    }
}

#[forkyard::task]
fn by_every_start_method() {
    let queue = Queue::bounded(10).unwrap();
    for (producer, method) in (0..).zip(METHODS) {
        for len in [0, 100, 5000, 200_000] {
            let child = start(method, "producer", |b| b.spawn(produce, (queue.clone(), producer, 40, len)));
            for number in 0..40 {
                assert_eq!(queue.get_timeout(LONG).unwrap(), Parcel::new(producer, number, len));
            }
            child.join().unwrap();
        }
    }
    assert!(queue.is_empty() && !queue.is_full() && queue.capacity() == 10);
}

#[test]
fn messages_of_every_size_arrive_in_order_by_every_start_method() {
    common::isolated(by_every_start_method);
}

#[forkyard::task]
fn a_process_may_end_right_after_a_put() {
    let queue = Queue::bounded(100).unwrap();
    let children: Vec<_> =
        (0..4).map(|n| process::spawn(produce, (queue.clone(), n, 10, 3000)).unwrap()).collect();
    children.into_iter().for_each(|child| child.join().unwrap());
    assert_eq!(queue.len(), 40);
    let mut next = BTreeMap::new();
    for parcel in queue.get_many(100).unwrap() {
        assert!(parcel.is_whole());
        let expected = next.entry(parcel.producer).or_insert(0);
        assert_eq!(parcel.number, *expected);
        *expected += 1;
    }
    assert!(next.values().all(|count| *count == 10) && next.len() == 4);
}

#[test]
fn what_was_put_outlives_whoever_put_it() {
    common::isolated(a_process_may_end_right_after_a_put);
}

#[forkyard::task]
fn bounds() {
    let queue = Queue::bounded(3).unwrap();
    queue.put_many([1, 2, 3]).unwrap();
    assert!(queue.is_full() && queue.len() == 3);
    assert!(matches!(queue.try_put(4), Err(PutError::Full(4))));
    let began = Instant::now();
    assert!(matches!(queue.put_timeout(5, Duration::from_millis(30)), Err(PutError::TimedOut(5))));
    assert!(matches!(queue.put_deadline(6, began), Err(PutError::TimedOut(6))));
    assert!(began.elapsed() >= Duration::from_millis(30));
    assert_eq!(queue.get().unwrap(), 1);
    queue.try_put(4).unwrap();
    assert_eq!(queue.get_many(100).unwrap(), [2, 3, 4]);
    assert!(matches!(queue.try_get(), Err(GetError::Empty)));
    let error = queue.get_timeout(Duration::from_millis(10)).unwrap_err();
    assert!(error.is_timeout() && forkyard::Error::from(error).is_timeout());
    assert_eq!(queue.get_many(0).unwrap(), [0; 0]);
    assert!(Queue::<u8>::bounded(0).unwrap_err().is_invalid());
    assert!(Queue::<u8>::bounded(usize::MAX).unwrap_err().is_invalid());
    // A queue for one works as well, for many times its length.
    let one = Queue::bounded(1).unwrap();
    for n in 0..1000 {
        one.put(n).unwrap();
        assert!(one.try_put(n).unwrap_err().is_full());
        assert_eq!(one.get().unwrap(), n);
    }
}

#[test]
fn full_and_empty_queues_say_so_at_once_or_after_a_time() {
    common::isolated(bounds);
}

#[forkyard::task]
fn add_up(queue: Queue<u64>, sums: Queue<(u64, u64)>) {
    let (mut sum, mut count) = (0, 0);
    for number in &queue {
        sum += number;
        count += 1;
    }
    assert!(matches!(queue.get(), Err(GetError::Closed)));
    sums.put((sum, count)).unwrap();
}

#[forkyard::task]
fn closing() {
    const COUNT: u64 = 20_000;
    let (queue, sums) = (Queue::bounded(64).unwrap(), Queue::bounded(8).unwrap());
    let children: Vec<_> =
        (0..3).map(|_| process::spawn(add_up, (queue.clone(), sums.clone())).unwrap()).collect();
    queue.put_many(0..COUNT).unwrap();
    assert!(queue.close() && !queue.close() && queue.is_closed());
    assert!(matches!(queue.put(7), Err(PutError::Closed(7))));
    assert!(matches!(queue.try_put(7), Err(PutError::Closed(7))));
    children.into_iter().for_each(|child| child.join().unwrap());
    let sums = sums.get_many(3).unwrap();
    assert_eq!(sums.iter().map(|(sum, _)| sum).sum::<u64>(), COUNT * (COUNT - 1) / 2);
    assert_eq!(sums.iter().map(|(_, count)| count).sum::<u64>(), COUNT);
    // A full queue can be closed, and is read to its end.
    let full = Queue::bounded(2).unwrap();
    full.put_many([1, 2]).unwrap();
    std::thread::scope(|scope| {
        let waiter = scope.spawn(|| full.put(3));
        full.close();
        // It may have been told before it waited.
        assert!(waiter.join().unwrap().unwrap_err().is_closed());
    });
    assert_eq!(full.iter().collect::<Vec<i32>>(), [1, 2]);
}

#[test]
fn a_simple_queue_tells_what_is_in_it() {
    let queue = SimpleQueue::new().unwrap();
    assert!(queue.is_empty() && !queue.is_closed());
    queue.put(1).unwrap();
    queue.put(2).unwrap();
    assert_eq!((queue.len(), queue.is_empty()), (2, false));
    assert!(queue.close() && queue.is_closed());
    assert_eq!((queue.get().unwrap(), queue.get().unwrap(), queue.len()), (1, 2, 0));
    assert!(queue.get().unwrap_err().is_closed());
}

#[test]
fn closing_ends_the_queue_behind_its_last_message() {
    common::isolated(closing);
}

#[forkyard::task]
fn batches() {
    let queue = Queue::bounded(100).unwrap();
    assert!(queue.try_get_many(3).unwrap_err().is_empty());
    assert!(queue.get_many_timeout(3, Duration::from_millis(1)).unwrap_err().is_timeout());
    let values: Vec<String> = (0..150).map(|number| number.to_string().repeat(number)).collect();
    // The first one that is not put is told.
    let refused = queue.try_put_many(values.clone()).unwrap_err();
    assert!(refused.is_full() && refused.into_inner() == values[100]);
    assert_eq!(queue.get_many(70).unwrap(), values[..70]);
    assert!(queue.put_many_deadline(values[100..].to_vec(), Instant::now() + LONG).is_ok());
    assert_eq!(queue.try_get_many(100).unwrap(), values[70..]);
    queue.put_many_timeout(values[..3].to_vec(), LONG).unwrap();
    queue.close();
    assert_eq!(queue.get_many_deadline(100, Instant::now()).unwrap(), values[..3]);
    assert!(queue.get_many(100).unwrap_err().is_closed());
    assert!(queue.put_many(values).unwrap_err().is_closed());
}

#[test]
fn batches_are_put_and_got_whole_and_in_order() {
    common::isolated(batches);
}

struct Unspeakable;

impl Serialize for Unspeakable {
    fn serialize<S: serde::Serializer>(&self, _: S) -> Result<S::Ok, S::Error> {
        Err(serde::ser::Error::custom("there are no words for it"))
    }
}

/// A field is left out now and then, which whoever decodes it does not expect.
#[derive(Debug, PartialEq, Serialize, Deserialize)]
struct Sparse {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    hint: Option<u32>,
    number: u32,
}

#[forkyard::task]
fn passes_on(value: Sparse) -> Sparse {
    Sparse { hint: value.hint.filter(|&hint| hint > 1), ..value }
}

#[forkyard::task]
fn codec() {
    let queue = Queue::bounded(2).unwrap();
    match queue.put(Unspeakable) {
        Err(PutError::Failed(Unspeakable, error)) => assert!(!error.is_full(), "{error}"),
        other => panic!("{other:?}"),
    }
    assert!(queue.is_empty());
    // A descriptor would have to be held by the queue, which is no process.
    let files = Queue::bounded(2).unwrap();
    let null = process::Fd::from(std::fs::File::open("/dev/null").unwrap());
    assert!(matches!(files.put(null), Err(PutError::Failed(_, _))));
    assert!(files.is_empty());

    // What nobody could decode is refused before anybody else has it.
    let [bad, weak, good] = [None, Some(1), Some(2)].map(|hint| Sparse { hint, number: 7 });
    let sparse = Queue::bounded(4).unwrap();
    let Err(PutError::Failed(bad, error)) = sparse.put(bad) else { panic!("nobody could get it") };
    assert!(error.to_string().contains("field hint of Sparse"), "{error}");
    let (work, (ours, _theirs)) = (JoinableQueue::bounded(1).unwrap(), pipe().unwrap());
    for error in [
        forkyard::Error::from(work.put(Sparse { ..bad }).unwrap_err()),
        ours.send(&bad).unwrap_err(),
        process::spawn(passes_on, (bad,)).unwrap_err(),
        process::spawn(passes_on, (weak,)).unwrap().join().unwrap_err(),
    ] {
        assert!(error.to_string().contains("field hint of Sparse"), "{error}");
    }
    assert!(sparse.is_empty() && work.is_empty());
    let good = process::spawn(passes_on, (good,)).unwrap().join().unwrap();
    sparse.put(good).unwrap();
    assert_eq!(sparse.get().unwrap(), Sparse { hint: Some(2), number: 7 });

    // Of this nothing shows before it is decoded.
    let guessed = Queue::bounded(1).unwrap();
    guessed.put(Guessed::Number(1)).unwrap();
    let error = guessed.get().unwrap_err();
    assert!(error.to_string().contains("untagged"), "{error}");
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(untagged)]
enum Guessed {
    Number(u8),
}

#[test]
fn a_value_that_cannot_be_encoded_is_an_error_in_its_producer() {
    common::isolated(codec);
}

#[forkyard::task]
fn loans() {
    let queue = ByteQueue::bounded(4).unwrap();
    let child = {
        #[forkyard::task]
        fn echo(queue: ByteQueue, back: ByteQueue) {
            while let Ok(sample) = queue.get() {
                let mut loan = back.loan(sample.len()).unwrap();
                loan.iter_mut().zip(sample.iter().rev()).for_each(|(to, from)| *to = *from);
                back.send(loan).unwrap();
            }
        }
        let back = ByteQueue::bounded(4).unwrap();
        let child = process::spawn(echo, (queue.clone(), back.clone())).unwrap();
        for len in [0, 1, 104, 105, 4096, 1 << 20, 20 << 20] {
            let mut loan = queue.loan(len).unwrap();
            assert_eq!(loan.len(), len);
            loan.iter_mut().zip(0u32..).for_each(|(byte, at)| *byte = (at % 251) as u8);
            queue.send(loan).unwrap();
            let sample = back.get_timeout(LONG).unwrap();
            assert_eq!(sample.len(), len);
            assert!(sample.iter().rev().zip(0u32..).all(|(byte, at)| *byte == (at % 251) as u8));
        }
        child
    };
    queue.close();
    let refused = queue.send(queue.loan(10).unwrap()).unwrap_err();
    assert!(refused.is_closed() && refused.into_inner().len() == 10);
    child.join().unwrap();
    let inline = ByteQueue::with_inline(4, 2000).unwrap();
    for len in [0, 2000, 2001, 100_000] {
        let message: Vec<u8> = (0..len).map(|at| at as u8).collect();
        inline.put(&message).unwrap();
        assert_eq!(*inline.get().unwrap(), message[..]);
    }
}

#[test]
fn bytes_are_written_once_and_read_where_they_lie() {
    common::isolated(loans);
}

#[forkyard::task]
fn memory_comes_back() {
    let warm = ByteQueue::bounded(4).unwrap();
    let fill = |queue: &ByteQueue| {
        for len in [10, 300, 5000, 100_000] {
            queue.put(&vec![7; len]).unwrap();
        }
    };
    fill(&warm);
    (0..4).for_each(|_| drop(warm.get().unwrap()));
    drop(warm);
    let (before, fds, census) = (memory(), common::open_fds(), family_census());
    assert!(before > 0);
    for round in 0..10_000 {
        let queue = if round % 2 == 0 { ByteQueue::bounded(4) } else { ByteQueue::unbounded() }.unwrap();
        if round % 50 == 1 {
            // It grows.
            (0..100).for_each(|_| queue.put(&[3]).unwrap());
        }
        if round % 4 == 0 {
            // What is in it goes with it, and what it keeps.
            fill(&queue);
        }
        if round % 100 == 0 {
            (0..4).for_each(|_| drop(queue.get().unwrap()));
            drop(queue.loan(1 << 20).unwrap());
            queue.put(&vec![1; 1 << 20]).unwrap();
            drop(queue.get().unwrap());
        }
    }
    // One chunk of each class of blocks stays.
    assert!(memory() <= before + (12 << 16), "{} and {before}", memory());
    assert_eq!(common::open_fds(), fds);
    let now = family_census();
    assert_eq!((now.objects, now.holders, now.unfinished), (census.objects, census.holders, 0));
}

#[test]
fn ten_thousand_queues_leave_nothing() {
    alone(memory_comes_back);
}

#[forkyard::task]
fn produce_for_ever(queue: Queue<Parcel>, producer: u32, len: usize) {
    for number in 0.. {
        if queue.put(Parcel::new(producer, number, len)).is_err() {
            return;
        }
    }
}

/// Producers are killed one after the other while they write large messages.
#[forkyard::task]
fn killed_producers() {
    // The first makes what stays, and goes.
    let queue = Queue::bounded(8).unwrap();
    process::spawn(produce, (queue.clone(), 999, 8, 40_000)).unwrap().join().unwrap();
    drop(queue);
    let before = memory();
    let queue = Queue::bounded(8).unwrap();
    for victim in 0..40 {
        let child = process::spawn(produce_for_ever, (queue.clone(), victim, 40_000)).unwrap();
        let mut next = 0;
        for _ in 0..=victim % 7 {
            let parcel: Parcel = queue.get_timeout(LONG).unwrap();
            assert!(parcel.is_whole() && parcel.number == next && parcel.producer == victim);
            next += 1;
        }
        kill(pid(&child), 9);
        assert!(child.join().is_err());
        while let Ok(parcel) = queue.try_get() {
            assert!(parcel.is_whole() && parcel.number == next && parcel.producer == victim);
            next += 1;
        }
        assert_eq!(queue.len(), 0);
    }
    // No place was lost.
    queue.put_many((0..8).map(|number| Parcel::new(0, number, 10))).unwrap();
    assert!(queue.try_put(Parcel::new(0, 9, 10)).unwrap_err().is_full());
    drop(queue);
    eventually("their memory comes back", || memory() <= before + (4 << 16));
}

#[test]
fn a_producer_killed_in_a_large_put_leaves_whole_messages_and_no_memory() {
    alone(killed_producers);
}

#[forkyard::task]
fn consume(queue: Queue<Parcel>, told: Queue<(u32, u32)>) {
    for parcel in &queue {
        assert!(parcel.is_whole());
        told.put((parcel.producer, parcel.number)).unwrap();
    }
}

/// Consumers are killed one after the other; each may take one message with it that it had got and not yet told of.
#[forkyard::task]
fn killed_consumers() {
    const COUNT: u32 = 20_000;
    let (queue, told) = (Queue::bounded(16).unwrap(), Queue::bounded(16).unwrap());
    let producers: Vec<_> =
        (0..2).map(|n| process::spawn(produce, (queue.clone(), n, COUNT, 150)).unwrap()).collect();
    let consumer = || process::spawn(consume, (queue.clone(), told.clone())).unwrap();
    let mut consumers = [consumer(), consumer()];
    let (mut seen, mut deaths) = (BTreeSet::new(), 0);
    let mut ended = false;
    let deadline = Instant::now() + LONG;
    loop {
        assert!(Instant::now() < deadline, "{} of {} after {deaths} deaths", seen.len(), 2 * COUNT);
        match told.get_timeout(Duration::from_millis(100)) {
            Ok(one) => assert!(seen.insert(one), "{one:?} was delivered twice"),
            Err(_) if !ended && producers.iter().all(|one| !one.is_alive()) && queue.is_empty() => {
                ended = queue.close();
            }
            Err(_) if ended => break,
            Err(_) => {}
        }
        if seen.len() as u32 % 400 == 399 && !ended {
            let fresh = consumer();
            let old = std::mem::replace(&mut consumers[deaths % 2], fresh);
            kill(pid(&old), 9);
            assert!(old.join().is_err());
            deaths += 1;
            // What it had told of and not yet taken out is not counted twice.
            if let Ok(one) = told.get_timeout(LONG) {
                assert!(seen.insert(one), "{one:?} was delivered twice");
            }
        }
    }
    let lost = 2 * COUNT as usize - seen.len();
    assert!(deaths > 20 && lost <= deaths, "{lost} lost by {deaths} deaths");
    consumers.into_iter().for_each(|one| one.join().unwrap());
}

#[test]
fn a_consumer_that_is_killed_loses_what_it_had_got_and_no_more() {
    common::isolated(killed_consumers);
}

/// Producers and consumers are stopped for a while, now this one and now that one.
#[forkyard::task]
fn stopped_and_continued() {
    const SIGSTOP: i32 = 19;
    const SIGCONT: i32 = 18;
    let (queue, told) = (Queue::bounded(4).unwrap(), Queue::bounded(4).unwrap());
    let mut parties = Vec::new();
    for n in 0..2 {
        parties.push(process::spawn(produce_for_ever, (queue.clone(), n, 5000)).unwrap());
    }
    for _ in 0..2 {
        parties.push(process::spawn(consume, (queue.clone(), told.clone())).unwrap());
    }
    let mut seen = BTreeSet::new();
    let mut get = |what: &str| {
        let one = told.get_timeout(LONG).unwrap_or_else(|error| panic!("{what}: {error}"));
        assert!(seen.insert(one), "{one:?} was delivered twice");
    };
    for round in 0..200 {
        // One of each goes on.
        let stopped = [pid(&parties[round % 2]), pid(&parties[2 + round / 2 % 2])];
        stopped.iter().for_each(|pid| kill(*pid, SIGSTOP));
        (0..20).for_each(|_| get("while one of each is stopped"));
        stopped.iter().for_each(|pid| kill(*pid, SIGCONT));
        (0..5).for_each(|_| get("after they went on"));
    }
    queue.close();
    let drained = std::thread::spawn({
        let told = told.clone();
        move || told.iter().collect::<Vec<(u32, u32)>>()
    });
    parties.into_iter().for_each(|one| one.join().unwrap());
    told.close();
    for one in drained.join().unwrap() {
        assert!(seen.insert(one), "{one:?} was delivered twice");
    }
    for producer in 0..2 {
        let numbers: Vec<_> = seen.iter().filter(|one| one.0 == producer).map(|one| one.1).collect();
        assert!(numbers.iter().copied().eq(0..numbers.len() as u32), "one of {producer} is missing");
    }
}

#[test]
fn who_is_stopped_delays_nobody_and_loses_nothing() {
    common::isolated(stopped_and_continued);
}

/// A queue full of large messages, and samples and loans, whose holder is killed.
#[forkyard::task]
fn hoard(ready: Queue<u8>) {
    let queue = ByteQueue::bounded(8).unwrap();
    for _ in 0..8 {
        queue.put(&vec![1; 500_000]).unwrap();
    }
    let _samples = [queue.get().unwrap(), queue.get().unwrap()];
    let _loans = [queue.loan(500_000).unwrap(), queue.loan(10).unwrap()];
    ready.put(1).unwrap();
    loop {
        std::thread::park();
    }
}

#[forkyard::task]
fn last_holder_killed() {
    let ready = Queue::bounded(1).unwrap();
    ready.put(0).unwrap();
    ready.get().unwrap();
    let before = memory();
    for _ in 0..3 {
        let child = process::spawn(hoard, (ready.clone(),)).unwrap();
        assert_eq!(ready.get_timeout(LONG).unwrap(), 1);
        assert!(memory() > before + 4_000_000);
        kill(pid(&child), 9);
        assert!(child.join().is_err());
        eventually("its memory comes back", || memory() <= before + (12 << 16));
    }
}

#[test]
fn a_queue_samples_and_loans_go_with_their_last_holder() {
    alone(last_holder_killed);
}

#[forkyard::task]
fn sleepers() {
    // A consumer that sleeps is woken by a producer that dies right after its put, and by close.
    let queue = Queue::bounded(4).unwrap();
    let told = Queue::bounded(4).unwrap();
    let consumers: Vec<_> =
        (0..3).map(|_| process::spawn(consume, (queue.clone(), told.clone())).unwrap()).collect();
    for n in 0..30 {
        let child = process::spawn(produce, (queue.clone(), n, 1, 10)).unwrap();
        assert_eq!(told.get_timeout(LONG).unwrap(), (n, 0));
        child.join().unwrap();
    }
    // Of sleeping consumers some are killed: the others are woken.
    let mut consumers = consumers.into_iter();
    kill(pid(&consumers.next().unwrap()), 9);
    queue.put(Parcel::new(100, 0, 10)).unwrap();
    assert_eq!(told.get_timeout(LONG).unwrap(), (100, 0));
    queue.close();
    consumers.for_each(|one| one.join().unwrap());
}

#[test]
fn sleeping_consumers_are_woken_whoever_dies() {
    common::isolated(sleepers);
}

#[forkyard::task]
fn put_and_die(queue: ByteQueue, len: usize) {
    queue.put(&vec![7; len]).unwrap();
    kill(common::own_pid(), 9);
}

/// A message of each size whose producer was killed right behind its put.
#[forkyard::task]
fn killed_behind_a_put() {
    let queue = ByteQueue::bounded(2).unwrap();
    for len in [10, 1000, 30_000, 40_000, 70_000, 1_000_000] {
        for method in METHODS {
            let child = start(method, "producer", |b| b.spawn(put_and_die, (queue.clone(), len)));
            assert!(child.join().is_err());
            assert_eq!(
                *queue.try_get().unwrap_or_else(|e| panic!("{len} {method:?}: {e}")),
                vec![7; len][..]
            );
        }
    }
}

#[test]
fn a_message_outlives_its_producers_death_whatever_its_size() {
    common::isolated(killed_behind_a_put);
}

#[forkyard::task]
fn work_on(queue: JoinableQueue<Parcel>, done: Queue<u32>) {
    while let Ok(work) = queue.get() {
        done.put(work.finish().unwrap().number).unwrap();
    }
}

#[forkyard::task]
fn take_and_hold(queue: JoinableQueue<Parcel>, ready: Queue<u32>) {
    let held = [queue.get().unwrap(), queue.get().unwrap()];
    ready.put(held.len() as u32).unwrap();
    loop {
        std::thread::park();
    }
}

#[forkyard::task]
fn joining() {
    let (queue, done) = (JoinableQueue::bounded(20).unwrap(), Queue::bounded(100).unwrap());
    queue.join().unwrap();
    (0..10).for_each(|number| queue.put(Parcel::new(0, number, number as usize * 10_000)).unwrap());
    assert!(queue.join_timeout(Duration::from_millis(20)).unwrap_err().is_timeout());
    // What one holds and does not finish goes to another when it is killed.
    let holder = process::spawn(take_and_hold, (queue.clone(), done.clone())).unwrap();
    assert_eq!(done.get_timeout(LONG).unwrap(), 2);
    let worker = process::spawn(work_on, (queue.clone(), done.clone())).unwrap();
    let mut finished: Vec<u32> = (0..8).map(|_| done.get_timeout(LONG).unwrap()).collect();
    assert!(queue.is_empty() && queue.join_timeout(Duration::from_millis(20)).is_err());
    kill(pid(&holder), 9);
    queue.join_timeout(LONG).unwrap();
    finished.extend(done.get_many(2).unwrap());
    finished.extend((finished.len() < 10).then(|| done.get_timeout(LONG).unwrap()));
    assert_eq!(finished.iter().copied().collect::<BTreeSet<_>>(), (0..10).collect());
    // What is dropped goes back, before the others.
    queue.close();
    worker.join().unwrap();
    let queue = JoinableQueue::bounded(3).unwrap();
    [1, 2].into_iter().for_each(|number| queue.put(number).unwrap());
    drop(queue.get().unwrap());
    assert_eq!(*queue.get().unwrap(), 1);
    assert_eq!(queue.get().unwrap().finish().unwrap(), 1);
    assert_eq!(queue.try_get().unwrap().finish().unwrap(), 2);
    queue.join().unwrap();
    assert!(queue.try_get().unwrap_err().is_empty());
}

#[test]
fn work_that_is_not_finished_is_done_by_another_and_joined() {
    common::isolated(joining);
}
