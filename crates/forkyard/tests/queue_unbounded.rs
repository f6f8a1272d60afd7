//! Queues without a bound: they grow, shrink again, and lose nothing when whoever grows them is killed.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by a panic")]

mod common;

use std::collections::BTreeMap;
use std::time::Duration;

use common::{eventually, kill};
use forkyard::__private::{Census, family_census};
use forkyard::channel::{ByteQueue, GetError, JoinableQueue, Queue};
use forkyard::process::{self, Process};

/// So long nothing takes that is told of an event.
const LONG: Duration = Duration::from_secs(30);

fn pid(process: &Process<impl Sized>) -> i32 {
    process.pid().as_raw_nonzero().get()
}

/// Waits until no more objects are there than then, and about as much memory.
fn is_as(then: Census) {
    let mut now = then;
    eventually("nothing is left", || {
        now = family_census();
        // An empty chunk of each class of blocks may stay.
        now.objects == then.objects && now.unfinished == 0 && now.chunks <= then.chunks + 11
    });
}

#[forkyard::task]
fn grows_and_shrinks() {
    const COUNT: u64 = 100_000;
    let queue = Queue::unbounded().unwrap();
    assert!(!queue.is_full() && queue.is_empty() && queue.capacity() == usize::MAX);
    queue.put(0).unwrap();
    assert_eq!(queue.get().unwrap(), 0);
    let before = family_census();
    for _ in 0..3 {
        for number in 0..COUNT {
            queue.put(number).unwrap();
        }
        assert_eq!(queue.len() as u64, COUNT);
        assert!(!queue.is_full() && !queue.is_empty());
        assert!(family_census().memory > before.memory + COUNT * 100);
        for number in 0..COUNT {
            assert_eq!(queue.try_get().unwrap(), number);
        }
        assert!(matches!(queue.try_get(), Err(GetError::Empty)));
        let now = family_census();
        // It goes on in a small segment.
        assert!(now.objects <= before.objects + 1, "{now:?}, before {before:?}");
        assert!(now.memory <= before.memory + (1 << 20), "{now:?}, before {before:?}");
    }
    queue.put(7).unwrap();
    assert!(queue.close() && !queue.close() && queue.is_closed());
    assert!(queue.put(8).unwrap_err().is_closed());
    assert_eq!(queue.get().unwrap(), 7);
    assert!(queue.get().unwrap_err().is_closed());
}

#[test]
fn it_takes_memory_while_there_are_many_messages_and_gives_it_back() {
    common::alone(grows_and_shrinks);
}

#[forkyard::task]
fn dropped_full() {
    drop(Queue::<u8>::unbounded().unwrap());
    let before = family_census();
    for round in 0..30 {
        let queue = ByteQueue::unbounded().unwrap();
        for len in (0..3000).map(|number| number % 300) {
            queue.put(&vec![round; len]).unwrap();
        }
        (0..round as usize * 100).for_each(|_| drop(queue.get().unwrap()));
    }
    is_as(before);
}

#[test]
fn a_queue_that_is_dropped_full_leaves_nothing() {
    common::alone(dropped_full);
}

#[forkyard::task]
fn put_numbers(queue: Queue<(u32, u32)>, producer: u32, count: u32) {
    for number in 0..count {
        queue.put((producer, number)).unwrap();
    }
}

#[forkyard::task]
fn get_all(queue: Queue<(u32, u32)>, told: Queue<(u64, u64)>) {
    let (mut next, mut sum, mut count) = (BTreeMap::new(), 0, 0);
    for (producer, number) in &queue {
        let least = next.entry(producer).or_insert(0);
        assert!(number >= *least, "{number} of {producer} after {least}");
        *least = number + 1;
        sum += u64::from(number);
        count += 1;
    }
    told.put((sum, count)).unwrap();
}

#[forkyard::task]
fn between_processes() {
    const COUNT: u32 = 30_000;
    let (queue, told) = (Queue::unbounded().unwrap(), Queue::unbounded().unwrap());
    let consumers: Vec<_> =
        (0..2).map(|_| process::spawn(get_all, (queue.clone(), told.clone())).unwrap()).collect();
    let producers: Vec<_> =
        (0..3).map(|n| process::spawn(put_numbers, (queue.clone(), n, COUNT)).unwrap()).collect();
    producers.into_iter().for_each(|one| one.join().unwrap());
    assert!(queue.close());
    consumers.into_iter().for_each(|one| one.join().unwrap());
    let told = told.get_many(2).unwrap();
    assert_eq!(told.iter().map(|(_, count)| count).sum::<u64>(), 3 * u64::from(COUNT));
    let sum = u64::from(COUNT) * u64::from(COUNT - 1) / 2;
    assert_eq!(told.iter().map(|(sum, _)| sum).sum::<u64>(), 3 * sum);
}

#[test]
fn many_producers_and_consumers_keep_the_order() {
    common::isolated(between_processes);
}

#[forkyard::task]
fn put_for_ever(queue: Queue<(u32, u32)>, producer: u32) {
    for number in 0.. {
        queue.put((producer, number)).unwrap();
    }
}

/// Producers are killed while the queue grows under their hands.
#[forkyard::task]
fn killed_producers() {
    let before = {
        let warm = Queue::unbounded().unwrap();
        process::spawn(put_numbers, (warm.clone(), 0, 10)).unwrap().join().unwrap();
        drop(warm);
        family_census()
    };
    let queue = Queue::unbounded().unwrap();
    for victim in 0..30 {
        let child = process::spawn(put_for_ever, (queue.clone(), victim)).unwrap();
        let mut next = 0;
        let mut take = |(producer, number)| {
            assert_eq!((producer, number), (victim, next));
            next += 1;
        };
        (0..victim * 100).for_each(|_| take(queue.get_timeout(LONG).unwrap()));
        kill(pid(&child), 9);
        assert!(child.join().is_err());
        while let Ok(one) = queue.try_get() {
            take(one);
        }
        assert_eq!(queue.len(), 0);
    }
    drop(queue);
    is_as(before);
}

#[test]
fn a_producer_killed_while_it_grows_leaves_a_queue_that_goes_on() {
    common::alone(killed_producers);
}

#[forkyard::task]
fn get_some_and_wait(queue: JoinableQueue<u32>, told: Queue<u32>, count: u32) {
    let mut all = Vec::new();
    for _ in 0..count {
        let work = queue.get().unwrap();
        told.put(*work).unwrap();
        all.push(work);
    }
    loop {
        std::thread::park();
    }
}

/// What somebody got and never finished takes no room from anybody, and comes back from wherever it lies.
#[forkyard::task]
fn unfinished() {
    const COUNT: u32 = 3000;
    let queue = JoinableQueue::unbounded().unwrap();
    let told = Queue::unbounded().unwrap();
    (0..COUNT).for_each(|number| queue.put(number).unwrap());
    let child = process::spawn(get_some_and_wait, (queue.clone(), told.clone(), COUNT / 2)).unwrap();
    for number in 0..COUNT / 2 {
        assert_eq!(told.get_timeout(LONG).unwrap(), number);
    }
    (0..COUNT).for_each(|number| queue.put(COUNT + number).unwrap());
    // This process holds the other half.
    let held: Vec<_> = (COUNT / 2..COUNT).map(|_| queue.get_timeout(LONG).unwrap()).collect();
    assert!(held.iter().map(|work| **work).eq(COUNT / 2..COUNT));
    assert!(queue.join_timeout(Duration::from_millis(1)).unwrap_err().is_timeout());
    kill(pid(&child), 9);
    assert!(child.join().is_err());
    let mut back = Vec::new();
    for _ in 0..COUNT / 2 + COUNT {
        back.push(queue.get_timeout(LONG).unwrap().finish().unwrap());
    }
    // In their order, and before the others.
    assert!(back.into_iter().eq((0..COUNT / 2).chain(COUNT..2 * COUNT)));
    assert!(queue.join_timeout(Duration::from_millis(1)).unwrap_err().is_timeout());
    held.into_iter().for_each(|work| _ = work.finish().unwrap());
    queue.join_timeout(LONG).unwrap();
    queue.close();
    assert!(queue.get().unwrap_err().is_closed());
}

#[test]
fn any_number_of_messages_may_be_unfinished_and_come_back_from_the_dead() {
    common::isolated(unfinished);
}

#[forkyard::task]
fn in_forks() {
    let queue = Queue::unbounded().unwrap();
    (0..5000).for_each(|number| queue.put((0, number)).unwrap());
    let child = process::Builder::new()
        .start(process::Start::Fork)
        .spawn(put_numbers, (queue.clone(), 1, 5000))
        .unwrap();
    child.join().unwrap();
    let all = queue.get_many(20_000).unwrap();
    assert!(all.into_iter().eq((0..5000).map(|n| (0, n)).chain((0..5000).map(|n| (1, n)))));
}

#[test]
fn a_fork_goes_on_where_its_parent_was() {
    common::isolated(in_forks);
}

#[test]
fn a_message_that_a_segment_refused_lies_in_the_next_one() {
    by_threads::<1000>(20_000);
}

#[test]
fn what_threads_put_and_keep_for_the_next_message_is_not_freed_by_another_one() {
    by_threads::<70_000>(1000);
}

/// Two producers and a consumer, all in this process.
fn by_threads<const LEN: usize>(count: u32) {
    let queue = ByteQueue::unbounded().unwrap();
    let put = |producer: u8| {
        for number in 0..count {
            let mut message = [producer; LEN];
            message[..4].copy_from_slice(&number.to_le_bytes());
            queue.put(&message).unwrap();
        }
    };
    std::thread::scope(|threads| {
        threads.spawn(|| put(1));
        threads.spawn(|| put(2));
        let mut next = [0; 3];
        for _ in 0..2 * count {
            let message = queue.get_timeout(LONG).unwrap();
            let producer = message[LEN - 1];
            assert_eq!(message[..4], u32::to_le_bytes(next[usize::from(producer)]));
            next[usize::from(producer)] += 1;
        }
    });
}
