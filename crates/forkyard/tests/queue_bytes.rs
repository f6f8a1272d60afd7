//! Queues bounded by bytes, whoever is killed; and the simple queue.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by a panic")]

mod common;

use std::time::Duration;

use common::{eventually, kill, sleeps};
use forkyard::channel::{ByteQueue, QueueBuilder, SimpleQueue};
use forkyard::process::{self, Process};

/// So long nothing takes that is told of an event.
const LONG: Duration = Duration::from_secs(30);
/// The bound of each queue here.
const BYTES: u64 = 1000;

fn pid(process: &Process<impl Sized>) -> i32 {
    process.pid().as_raw_nonzero().get()
}

fn make() -> ByteQueue {
    QueueBuilder::new().items(100).bytes(BYTES).byte_queue().unwrap()
}

/// Exactly as many bytes fit as the bound says.
fn is_exact(queue: &ByteQueue) {
    for len in [100, 50, 25] {
        let fitting = BYTES as usize / len;
        (0..fitting).for_each(|_| queue.try_put(&vec![1; len]).unwrap());
        assert!(queue.is_full() && queue.len() == fitting);
        assert!(queue.try_put(&[1]).unwrap_err().is_full());
        queue.try_put(&[]).unwrap();
        drop(queue.try_get().unwrap());
        assert!(queue.try_put(&vec![1; len + 1]).unwrap_err().is_full());
        queue.try_put(&vec![1; len]).unwrap();
        while queue.try_get().is_ok() {}
    }
    assert!(!queue.is_full() && queue.is_empty());
}

#[forkyard::task]
fn bounds() {
    let queue = make();
    is_exact(&queue);
    // Large messages count as well, and one that never fits is put alone.
    queue.put(&[1; 300]).unwrap();
    queue.put(&[2; 300]).unwrap();
    assert!(queue.try_put(&[3; 5000]).unwrap_err().is_full());
    let refused = queue.put_timeout(&[3; 401], Duration::from_millis(1)).unwrap_err();
    assert!(refused.is_timeout());
    queue.try_put(&[4; 400]).unwrap();
    (0..3).for_each(|_| drop(queue.get().unwrap()));
    queue.try_put(&[3; 5000]).unwrap();
    assert!(queue.is_full() && queue.try_put(&[1]).unwrap_err().is_full());
    assert_eq!(queue.get().unwrap().len(), 5000);
    is_exact(&queue);
    let few = QueueBuilder::new().items(2).bytes(BYTES).queue::<u8>().unwrap();
    few.put_many([1, 2]).unwrap();
    assert!(few.is_full() && few.try_put(3).unwrap_err().is_full());
    assert!(QueueBuilder::new().bytes(0).queue::<u8>().unwrap_err().is_invalid());
    assert_eq!(QueueBuilder::new().bytes(1 << 20).queue::<u8>().unwrap().capacity(), 4096);
    assert_eq!(QueueBuilder::new().queue::<u8>().unwrap().capacity(), usize::MAX);
}

#[test]
fn exactly_so_many_bytes_fit() {
    common::isolated(bounds);
}

#[forkyard::task]
fn put_for_ever(queue: ByteQueue, len: usize) {
    while queue.put(&vec![len as u8; len]).is_ok() {}
}

#[forkyard::task]
fn get_for_ever(queue: ByteQueue) {
    while queue.get().is_ok() {}
}

#[forkyard::task]
fn killed() {
    let queue = make();
    for round in 0..20 {
        let producers =
            [10, 130, 700].map(|len| process::spawn(put_for_ever, (queue.clone(), len + round)).unwrap());
        let consumer = process::spawn(get_for_ever, (queue.clone(),)).unwrap();
        for _ in 0..20 * round {
            drop(queue.get_timeout(LONG).unwrap());
        }
        for child in producers {
            kill(pid(&child), 9);
            assert!(child.join().is_err());
        }
        kill(pid(&consumer), 9);
        assert!(consumer.join().is_err());
        while queue.try_get().is_ok() {}
        is_exact(&queue);
    }
}

#[test]
fn the_bytes_of_the_dead_are_not_counted() {
    common::isolated(killed);
}

/// Room for the short one is none for the long one, which waited first.
#[forkyard::task]
fn waiting() {
    let queue = make();
    queue.put(&[1; 500]).unwrap();
    queue.put(&[2; 500]).unwrap();
    let long = process::spawn(put_for_ever, (queue.clone(), 900)).unwrap();
    eventually("the long one waits", || sleeps(pid(&long)));
    let short = process::spawn(put_for_ever, (queue.clone(), 490)).unwrap();
    eventually("the short one waits", || sleeps(pid(&short)));
    drop(queue.get().unwrap());
    eventually("the short one is put", || queue.len() == 2);
    queue.close();
    long.join().unwrap();
    short.join().unwrap();
}

#[test]
fn a_message_for_which_there_is_room_does_not_wait_for_a_longer_one() {
    common::isolated(waiting);
}

#[forkyard::task]
fn echo(questions: SimpleQueue<Option<u64>>, answers: SimpleQueue<u64>) {
    while let Some(number) = questions.get().unwrap() {
        answers.put(number * 2).unwrap();
    }
    answers.close();
}

#[forkyard::task]
fn simple() {
    let (questions, answers) = (SimpleQueue::new().unwrap(), SimpleQueue::new().unwrap());
    assert!(questions.is_empty());
    // There is no bound.
    (0..5000).for_each(|number| questions.put(Some(number)).unwrap());
    assert!(!questions.is_empty());
    let child = process::spawn(echo, (questions.clone(), answers.clone())).unwrap();
    (0..5000).for_each(|number| assert_eq!(answers.get().unwrap(), number * 2));
    questions.put(None).unwrap();
    child.join().unwrap();
    assert!(answers.get().unwrap_err().is_closed() && !answers.close());
    assert!(questions.is_empty());
}

#[test]
fn a_simple_queue_takes_and_gives_whatever_there_is() {
    common::isolated(simple);
}
