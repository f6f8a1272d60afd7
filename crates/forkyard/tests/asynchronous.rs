//! Queues and connections in tasks of tokio, with ordinary processes at the other end.

#![cfg(feature = "tokio")]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by a panic")]

mod common;

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use common::isolated;
use forkyard::channel::{
    Address, AuthKey, ByteQueue, Client, Connection, JoinableQueue, Listener, Queue, pipe,
};
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
fn reverse_all(words: ByteQueue, reversed: ByteQueue) {
    while let Ok(word) = words.get() {
        let mut loan = reversed.loan(word.len()).unwrap();
        loan.copy_from_slice(&word);
        loan.reverse();
        reversed.send(loan).unwrap();
    }
    reversed.close();
}

#[forkyard::task]
fn batches_and_bytes() {
    let numbers = Queue::bounded(3).unwrap();
    let (words, reversed) = (ByteQueue::bounded(2).unwrap(), ByteQueue::bounded(2).unwrap());
    let child = process::spawn(reverse_all, (words.clone(), reversed.clone())).unwrap();
    run(async {
        let numbers = Arc::new(numbers.to_async().unwrap());
        let puts = tokio::spawn({
            let numbers = Arc::clone(&numbers);
            async move { numbers.put_many(0..1000).await.unwrap() }
        });
        let mut got = Vec::new();
        while got.len() < 1000 {
            let some = numbers.get_many(7).await.unwrap();
            assert!((1..=7).contains(&some.len()), "one at least, and more if they come meanwhile");
            got.extend(some);
        }
        puts.await.unwrap();
        assert_eq!(got, (0..1000).collect::<Vec<_>>());
        // What is closed hands back what was not put.
        numbers.queue().close();
        assert_eq!(numbers.put_many(5..7).await.unwrap_err().into_inner(), 5);
        assert!(numbers.get_many(2).await.unwrap_err().is_closed());

        let words = Arc::new(words.to_async().unwrap());
        let reversed = reversed.to_async().unwrap();
        let puts = tokio::spawn({
            let words = Arc::clone(&words);
            async move {
                words.put(b"short").await.unwrap();
                words.put_many([&[7; 3000][..], b"", &[8; 70_000]]).await.unwrap();
                let mut loan = words.queue().loan(3).unwrap();
                loan.copy_from_slice(b"abc");
                words.send(loan).await.unwrap();
                words.queue().close();
                assert!(words.put(b"late").await.unwrap_err().is_closed());
            }
        });
        assert_eq!(&*reversed.get().await.unwrap(), b"trohs");
        let mut lengths = Vec::new();
        while let Ok(some) = reversed.get_many(10).await {
            lengths.extend(some.iter().map(|word| word.len()));
        }
        assert_eq!(lengths, [3000, 0, 70_000, 3]);
        puts.await.unwrap();
    });
    child.join().unwrap();
}

#[test]
fn several_at_once_and_bytes_in_tasks() {
    isolated(batches_and_bytes);
}

#[forkyard::task]
fn works(work: JoinableQueue<u32>, sums: Queue<u32>) {
    let mut sum = 0;
    while let Ok(number) = work.get() {
        sum += number.finish().unwrap();
    }
    sums.put(sum).unwrap();
}

#[forkyard::task]
fn takes_one_and_is_killed(work: JoinableQueue<u32>, ready: Queue<()>) {
    let _one = work.get().unwrap();
    ready.put(()).unwrap();
    std::process::abort();
}

#[forkyard::task]
fn work_in_tasks() {
    let (work, sums) = (JoinableQueue::bounded(3).unwrap(), Queue::bounded(1).unwrap());
    run(async {
        let tasks = Arc::new(work.to_async().unwrap());
        // Nothing is nothing to wait for.
        tasks.join().await.unwrap();
        tasks.put(1).await.unwrap();
        assert!(timeout(Duration::from_millis(5), tasks.join()).await.is_err(), "it is not finished");
        let joins = tokio::spawn({
            let tasks = Arc::clone(&tasks);
            async move { tasks.join().await.unwrap() }
        });
        let mut some = tasks.get_many(9).await.unwrap();
        assert!(!work.is_finished(), "it was got, and no more");
        assert_eq!(some.pop().unwrap().finish().unwrap(), 1);
        joins.await.unwrap();

        // Who is killed with work leaves it to others, and join waits for them.
        tasks.put_many([3, 4, 5]).await.unwrap();
        let ready = Queue::bounded(1).unwrap();
        let dies = process::spawn(takes_one_and_is_killed, (work.clone(), ready.clone())).unwrap();
        ready.to_async().unwrap().get().await.unwrap();
        let child = process::spawn(works, (work.clone(), sums.clone())).unwrap();
        tasks.join().await.unwrap();
        assert!(work.is_finished());
        assert!(dies.join().is_err());
        work.close();
        assert_eq!(sums.to_async().unwrap().get().await.unwrap(), 12);
        assert!(tasks.get().await.unwrap_err().is_closed());
        child.join().unwrap();
    });
}

#[test]
fn work_is_joined_in_tasks_whoever_is_killed() {
    isolated(work_in_tasks);
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
        connection.send_bytes(b"four").await.unwrap();
        assert_eq!(connection.recv_bytes_most(4).await.unwrap(), b"four");
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

#[forkyard::task]
fn connects(port: u16, key: Vec<u8>) -> bool {
    let address = std::net::SocketAddr::from(([127, 0, 0, 1], port));
    let connected = Client::new(address).authkey(AuthKey::new(key)).connect();
    connected.is_ok_and(|connection| {
        connection.send(&std::process::id()).is_ok() && connection.recv::<u32>().is_ok()
    })
}

fn listener() -> Listener {
    let any = std::net::SocketAddr::from(([127, 0, 0, 1], 0));
    Listener::bind(any).unwrap().authkey(AuthKey::new(*b"secret"))
}

fn port(listener: &Listener) -> u16 {
    let Address::Tcp(address) = listener.address() else { panic!("it is TCP") };
    address.port()
}

#[forkyard::task]
fn a_listener_in_tasks() {
    let listener = listener();
    let port = port(&listener);
    // One who is there before, and says nothing, and one who does not know the key.
    let silent = std::net::TcpStream::connect(("127.0.0.1", port)).unwrap();
    let wrong = process::spawn(connects, (port, b"guess".to_vec())).unwrap();
    let right: Vec<_> =
        (0..3).map(|_| process::spawn(connects, (port, b"secret".to_vec())).unwrap()).collect();
    run(async {
        let listener = listener.into_async().unwrap();
        for _ in 0..3 {
            let connection = loop {
                // Calls that are dropped lose nobody.
                match timeout(Duration::from_millis(2), listener.accept()).await {
                    Ok(connection) => break connection.unwrap(),
                    Err(_) => tokio::task::yield_now().await,
                }
            };
            let pid: u32 = connection.recv().await.unwrap();
            connection.send(&pid).await.unwrap();
        }
        // Those who come while nobody is ready to accept are let in as well.
        let late = process::spawn(connects, (port, b"secret".to_vec())).unwrap();
        let connection = listener.accept().await.unwrap();
        connection.send(&connection.recv::<u32>().await.unwrap()).await.unwrap();
        assert!(late.join().unwrap());
        while listener.listener().dropped() < 1 {
            let nobody = timeout(Duration::from_millis(5), listener.accept()).await;
            assert!(nobody.is_err(), "nobody else knows the key");
        }
    });
    assert!(!wrong.join().unwrap());
    for child in right {
        assert!(child.join().unwrap());
    }
    drop(silent);
}

#[test]
fn a_listener_lets_in_those_who_know_the_key_whoever_else_comes() {
    isolated(a_listener_in_tasks);
}

#[forkyard::task]
fn a_silent_peer() {
    let before = common::open_fds();
    let listener = listener().handshake_timeout(Duration::from_millis(30));
    let port = port(&listener);
    run(async {
        let listener = Arc::new(listener.into_async().unwrap());
        let accepts = tokio::spawn({
            let listener = Arc::clone(&listener);
            async move { listener.accept().await.map(drop) }
        });
        let silent = tokio::net::TcpStream::connect(("127.0.0.1", port)).await.unwrap();
        // Nobody else comes or goes, so it is the deadline that ends it.
        while listener.listener().dropped() < 1 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        accepts.abort();
        drop(silent);
    });
    assert_eq!(common::open_fds(), before, "the listener's descriptors are closed");
}

#[test]
fn a_peer_that_says_nothing_is_dropped_in_time() {
    isolated(a_silent_peer);
}
