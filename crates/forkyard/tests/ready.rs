//! The descriptor of a queue: it tells of messages, of room and of the end, to as many as ask, whoever dies.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by a panic")]

mod common;

use std::os::fd::AsFd;
use std::thread;

use common::{DEADLINE, eventually, isolated, open_fds, own_pid};
use forkyard::channel::{ByteQueue, GetError, JoinableQueue, PutError, Queue, Ready, wait};
use forkyard::process;
use forkyard::sync::Event;

/// Makes attempts, and waits for the descriptor in between.
fn until<R>(ready: &Ready, mut attempt: impl FnMut() -> Option<R>) -> R {
    loop {
        ready.arm();
        if let Some(done) = attempt() {
            return done;
        }
        assert!(!wait(&[ready.as_fd()], Some(DEADLINE)).unwrap().is_empty(), "nobody told");
    }
}

fn get(queue: &Queue<u32>, ready: &Ready) -> Result<u32, GetError> {
    until(ready, || Some(queue.try_get()).filter(|got| !matches!(got, Err(GetError::Empty))))
}

#[forkyard::task]
fn puts(queue: Queue<u32>, count: u32) {
    // There is little room: it waits too.
    let ready = queue.ready_to_put().unwrap();
    for number in 0..count {
        until(&ready, || Some(queue.try_put(number)).filter(|put| !matches!(put, Err(PutError::Full(_)))))
            .unwrap();
    }
    queue.close();
}

#[forkyard::task]
fn a_queue_is_polled() {
    let queue = Queue::bounded(3).unwrap();
    let ready = queue.ready_to_get().unwrap();
    let child = process::spawn(puts, (queue.clone(), 500)).unwrap();
    for number in 0..500 {
        assert_eq!(get(&queue, &ready).unwrap(), number);
    }
    assert!(get(&queue, &ready).unwrap_err().is_closed());
    child.join().unwrap();
}

#[test]
fn messages_and_room_and_the_end_are_told() {
    isolated(a_queue_is_polled);
}

#[forkyard::task]
fn takes_and_stays(queue: JoinableQueue<u32>, taken: Event) {
    let _work = queue.get().unwrap();
    taken.set().unwrap();
    loop {
        thread::park();
    }
}

#[forkyard::task]
fn a_consumer_is_killed() {
    let (queue, taken) = (JoinableQueue::bounded(3).unwrap(), Event::new().unwrap());
    let ready = queue.ready_to_get().unwrap();
    let consumer = process::spawn(takes_and_stays, (queue.clone(), taken.clone())).unwrap();
    queue.put(7).unwrap();
    taken.wait_timeout(DEADLINE).unwrap();
    ready.arm();
    assert!(queue.try_get().unwrap_err().is_empty());
    consumer.kill().unwrap();
    let back = until(&ready, || queue.try_get().ok());
    assert_eq!(back.finish().unwrap(), 7);
    consumer.wait_ended().unwrap();
}

#[test]
fn what_a_dead_consumer_had_taken_is_told() {
    isolated(a_consumer_is_killed);
}

#[forkyard::task]
fn counts(queue: Queue<u32>) -> u32 {
    queue.iter().count() as u32
}

#[forkyard::task]
fn one_that_asks_and_does_not_come() {
    let queue = Queue::bounded(100).unwrap();
    let consumer = process::spawn(counts, (queue.clone(),)).unwrap();
    let ready = queue.ready_to_get().unwrap();
    for number in 0..300 {
        // It is told, and does nothing; the consumer sleeps on the same word.
        ready.arm();
        queue.put(number).unwrap();
        eventually("the consumer has it", || queue.is_empty());
    }
    queue.close();
    assert_eq!(consumer.join().unwrap(), 300);
}

#[test]
fn who_asks_and_does_not_come_takes_nothing_from_the_others() {
    isolated(one_that_asks_and_does_not_come);
}

fn threads() -> usize {
    std::fs::read_dir("/proc/self/task").unwrap().count()
}

#[forkyard::task]
fn many_queues() {
    let (fds, before) = (open_fds(), threads());
    // More than one call of the kernel takes.
    let queues: Vec<_> = (0..300).map(|_| ByteQueue::bounded(2).unwrap()).collect();
    let ready: Vec<_> = queues.iter().map(|queue| queue.ready_to_get().unwrap()).collect();
    let all: Vec<_> = ready.iter().map(AsFd::as_fd).collect();
    ready.iter().for_each(Ready::arm);
    assert!(wait(&all, Some(std::time::Duration::ZERO)).unwrap().is_empty());
    for number in [0, 299, 150, 7, 7] {
        queues[number].put(b"here").unwrap();
        assert_eq!(wait(&all, Some(DEADLINE)).unwrap(), [number]);
        assert_eq!(&queues[number].try_get().unwrap()[..], b"here");
        ready[number].arm();
    }
    assert!(threads() <= before + 3);
    drop(ready);
    eventually("the threads have ended", || threads() == before);
    drop(queues);
    let arena = open_fds().difference(&fds).count();
    assert!(arena <= 1, "{} of process {}", arena, own_pid());
}

#[test]
fn hundreds_are_watched_by_a_few_threads_that_end_with_them() {
    isolated(many_queues);
}
