//! Several messages at once: of bytes, and of work.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod common;

use std::time::Duration;

use common::kill;
use forkyard::channel::{ByteQueue, JoinableQueue, Queue, Work};
use forkyard::process::{self, Process};

/// So long nothing takes that is told of an event.
const LONG: Duration = Duration::from_secs(30);
/// In their places, and behind them; kept on the shelf, and not.
const SIZES: [usize; 7] = [0, 5, 104, 105, 3000, 200_000, 11 << 20];

fn pid(process: &Process<impl Sized>) -> i32 {
    process.pid().as_raw_nonzero().get()
}

#[forkyard::task]
fn answer(questions: ByteQueue, answers: ByteQueue) {
    while let Ok(all) = questions.get_many(3) {
        answers.put_many(all.iter().map(|sample| &sample[..])).unwrap();
    }
    answers.close();
}

#[forkyard::task]
fn bytes() {
    let (there, back) = (ByteQueue::bounded(4).unwrap(), ByteQueue::unbounded().unwrap());
    let child = process::spawn(answer, (there.clone(), back.clone())).unwrap();
    let messages: Vec<Vec<u8>> = SIZES.iter().zip(1..).map(|(&len, byte)| vec![byte; len]).collect();
    for _ in 0..3 {
        there.put_many(messages.iter().map(|message| &message[..])).unwrap();
        let mut got = Vec::new();
        while got.len() < SIZES.len() {
            got.extend(back.get_many_timeout(2, LONG).unwrap());
        }
        // All are held at the same time.
        assert!(got.iter().map(|sample| &sample[..]).eq(messages.iter().map(|message| &message[..])));
    }
    there.close();
    child.join().unwrap();
    assert!(back.get_many(1).unwrap_err().is_closed());

    let queue = ByteQueue::bounded(2).unwrap();
    let refused = queue.try_put_many([&b"one"[..], b"two", b"three"]).unwrap_err();
    assert!(refused.is_full() && refused.into_inner() == b"three");
    assert!(queue.put_many_timeout([&b"four"[..]], Duration::from_millis(1)).unwrap_err().is_timeout());
    assert_eq!(queue.try_get_many(0).unwrap().len(), 0);
    assert_eq!(queue.try_get_many(9).unwrap().len(), 2);
    assert!(queue.try_get_many(9).unwrap_err().is_empty());
    assert!(queue.get_many_timeout(9, Duration::from_millis(1)).unwrap_err().is_timeout());
}

#[test]
fn messages_of_all_sizes_are_put_and_got_at_once() {
    common::isolated(bytes);
}

#[forkyard::task]
fn takes_all_and_finishes_some(queue: JoinableQueue<u32>, ready: Queue<usize>) {
    let mut work = queue.get_many(9).unwrap();
    let rest = work.split_off(2);
    queue.finish_many(work).unwrap();
    ready.put(rest.len()).unwrap();
    loop {
        std::thread::park();
    }
}

#[forkyard::task]
fn batches_of_work() {
    let (queue, ready) = (JoinableQueue::bounded(6).unwrap(), Queue::bounded(1).unwrap());
    queue.put_many(0..5).unwrap();
    let child = process::spawn(takes_all_and_finishes_some, (queue.clone(), ready.clone())).unwrap();
    assert_eq!(ready.get_timeout(LONG).unwrap(), 3);
    assert!(queue.try_get_many(9).unwrap_err().is_empty());
    queue.put_many_timeout(5..8, LONG).unwrap();
    kill(pid(&child), 9);
    child.join().unwrap_err();
    let mut got: Vec<Work<u32>> = Vec::new();
    while got.len() < 6 {
        got.extend(queue.get_many_timeout(9, LONG).unwrap());
    }
    let mut values: Vec<u32> = got.iter().map(|work| **work).collect();
    values.sort_unstable();
    assert!(values[..3] == [2, 3, 4], "{values:?}");
    assert!(queue.join_timeout(Duration::from_millis(1)).unwrap_err().is_timeout());
    let other = JoinableQueue::<u32>::bounded(1).unwrap();
    other.put(7).unwrap();
    assert!(queue.finish_many([other.get().unwrap()]).unwrap_err().is_invalid());
    assert_eq!(*other.get().unwrap(), 7, "it went back");
    assert_eq!(queue.finish_many(got).unwrap().len(), 6);
    queue.join_timeout(LONG).unwrap();
    assert!(queue.finish_many([]).unwrap().is_empty());
    queue.close();
    assert!(queue.get_many(1).unwrap_err().is_closed());
}

#[test]
fn work_that_was_taken_at_once_is_finished_at_once_or_goes_to_others() {
    common::isolated(batches_of_work);
}
