//! Queues and connections in tasks of tokio, with ordinary processes at the other end.

#![cfg(feature = "tokio")]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by a panic")]

mod common;

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use common::isolated;
use forkyard::channel::{Connection, Queue, pipe};
use forkyard::process;
use tokio::runtime::Builder;
use tokio::time::timeout;

/// Runs it on two threads.
fn run(future: impl Future<Output = ()>) {
    Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap().block_on(future);
}

#[forkyard::task]
fn square_all(numbers: Queue<u64>, squares: Queue<u64>) {
    for number in &numbers {
        squares.put(number * number).unwrap();
    }
    squares.close();
}

#[forkyard::task]
fn tasks_and_a_process() {
    const COUNT: u64 = 2000;
    let (numbers, results) = (Queue::bounded(3).unwrap(), Queue::bounded(3).unwrap());
    let child = process::spawn(square_all, (numbers.clone(), results.clone())).unwrap();
    run(async {
        let (numbers, results) =
            (Arc::new(numbers.to_async().unwrap()), Arc::new(results.to_async().unwrap()));
        // Eight that put, and eight that get, at both ends of little room.
        let putters: Vec<_> = (0..8)
            .map(|first| {
                let numbers = Arc::clone(&numbers);
                tokio::spawn(async move {
                    for number in (first..COUNT).step_by(8) {
                        numbers.put(number).await.unwrap();
                    }
                })
            })
            .collect();
        let getters: Vec<_> = (0..8)
            .map(|_| {
                let results = Arc::clone(&results);
                tokio::spawn(async move {
                    let mut sum = 0;
                    loop {
                        match results.get().await {
                            Ok(square) => sum += square,
                            Err(error) => {
                                assert!(error.is_closed(), "{error}");
                                return sum;
                            }
                        }
                    }
                })
            })
            .collect();
        for putter in putters {
            putter.await.unwrap();
        }
        numbers.queue().close();
        assert!(numbers.put(1).await.unwrap_err().is_closed());
        let mut sum = 0;
        for getter in getters {
            sum += getter.await.unwrap();
        }
        assert_eq!(sum, (0..COUNT).map(|number| number * number).sum::<u64>());
    });
    child.join().unwrap();
}

#[test]
fn many_tasks_share_a_queue_with_a_process() {
    isolated(tasks_and_a_process);
}

#[forkyard::task]
fn calls_are_dropped() {
    run(async {
        let queue = Queue::bounded(1).unwrap();
        let tasks = Arc::new(queue.to_async().unwrap());
        assert!(timeout(Duration::from_millis(5), tasks.get()).await.is_err());
        for number in 0..50u32 {
            // One waits and is dropped, while another one waits for the same.
            let one = tokio::spawn({
                let tasks = Arc::clone(&tasks);
                async move { tasks.get().await.unwrap() }
            });
            let other = tokio::spawn({
                let tasks = Arc::clone(&tasks);
                async move { tasks.get().await.unwrap() }
            });
            if number % 2 == 0 {
                tokio::task::yield_now().await;
            }
            one.abort();
            queue.put(number).unwrap();
            match one.await {
                // It had it before it was dropped.
                Ok(got) => {
                    assert_eq!(got, number);
                    other.abort();
                    assert!(other.await.is_err());
                }
                Err(_) => assert_eq!(other.await.unwrap(), number),
            }
        }
        tasks.put(1).await.unwrap();
        assert!(timeout(Duration::from_millis(5), tasks.put(2)).await.is_err());
        assert_eq!(tasks.get().await.unwrap(), 1);
        assert!(queue.is_empty(), "what was dropped was not put");
    });
}

#[test]
fn a_call_that_is_dropped_takes_nothing_with_it() {
    isolated(calls_are_dropped);
}

#[forkyard::task]
fn echo(connection: Connection) {
    while let Ok(message) = connection.recv_bytes() {
        connection.send_bytes(&message).unwrap();
    }
}

#[forkyard::task]
fn a_connection_in_tasks() {
    let (ours, theirs) = pipe().unwrap();
    let child = process::spawn(echo, (theirs,)).unwrap();
    run(async {
        let connection = Arc::new(ours.into_async().unwrap());
        for len in [0, 5, 16 << 10, 3 << 20] {
            let message = vec![7; len];
            let sends = tokio::spawn({
                let (connection, message) = (Arc::clone(&connection), message.clone());
                async move { connection.send_bytes(&message).await.unwrap() }
            });
            assert!(connection.recv_bytes().await.unwrap() == message);
            sends.await.unwrap();
        }
        connection.send(&("typed", 3)).await.unwrap();
        assert_eq!(connection.recv::<(String, i32)>().await.unwrap(), ("typed".to_owned(), 3));
        // Dropped in the middle of a message, which goes on with the next one.
        let large = vec![1; 8 << 20];
        let dropped = timeout(Duration::from_millis(1), connection.send_bytes(&large)).await.is_err();
        let last = tokio::spawn({
            let connection = Arc::clone(&connection);
            async move { connection.send_bytes(b"last").await.unwrap() }
        });
        let mut got = connection.recv_bytes().await.unwrap();
        // It was not begun where it was dropped at once.
        if got != b"last" {
            assert!(got == large);
            got = connection.recv_bytes().await.unwrap();
        } else {
            assert!(dropped);
        }
        assert_eq!(got, b"last");
        last.await.unwrap();
        let silence = timeout(Duration::from_millis(1), connection.recv_bytes()).await;
        assert!(silence.is_err());
    });
    child.join().unwrap();
}

#[test]
fn connections_carry_messages_between_tasks_and_a_process() {
    isolated(a_connection_in_tasks);
}
