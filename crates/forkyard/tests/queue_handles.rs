//! Handles of shared objects in messages of queues: the object is there as long as anybody, or any message, has it, and no longer.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by a panic")]

mod common;

use std::collections::BTreeMap;

use common::{METHODS, alone, builder, eventually, isolated};
use forkyard::__private::family_census;
use forkyard::channel::{JoinableQueue, Queue, SimpleQueue, pipe};
use forkyard::process;
use forkyard::sync::{Event, Lock, Mutex, Semaphore, Value};
use serde::{Deserialize, Serialize};

fn objects() -> usize {
    let census = family_census();
    census.objects - census.messages
}

#[derive(Debug, Serialize, Deserialize)]
struct Request {
    number: u64,
    answer_to: Queue<u64>,
}

#[forkyard::task]
fn answers(requests: Queue<Request>) {
    for request in &requests {
        request.answer_to.put(request.number * 2).unwrap();
    }
}

#[forkyard::task]
fn requests_bring_the_queue_for_their_answer() {
    for start in METHODS {
        let requests = Queue::unbounded().unwrap();
        let server = builder(start).spawn(answers, (requests.clone(),)).unwrap();
        let before = objects();
        for number in 0..100 {
            let answer_to = Queue::bounded(1).unwrap();
            requests.put(Request { number, answer_to: answer_to.clone() }).unwrap();
            assert_eq!(answer_to.get().unwrap(), number * 2);
        }
        eventually("the queues for answers are gone", || objects() <= before);
        requests.close();
        server.join().unwrap();
    }
}

#[test]
fn a_request_brings_the_queue_for_its_answer_by_every_start_method() {
    alone(requests_bring_the_queue_for_their_answer);
}

#[forkyard::task]
fn makes(out: Queue<(Mutex<String64>, Vec<Event>)>) {
    let events: Vec<_> = (0..3).map(|_| Event::new().unwrap()).collect();
    events[1].set().unwrap();
    out.put((Mutex::new(*b"made and left to a message......").unwrap(), events)).unwrap();
}

type String64 = [u8; 32];

#[forkyard::task]
fn maker_ends() {
    for start in METHODS {
        let out = Queue::unbounded().unwrap();
        builder(start).spawn(makes, (out.clone(),)).unwrap().join().unwrap();
        eventually("the maker's place is free", || family_census().participants == 1);
        let (text, events) = out.get().unwrap();
        assert_eq!(&*text.lock().unwrap(), b"made and left to a message......");
        assert_eq!(events.iter().map(Event::is_set).collect::<Vec<_>>(), [false, true, false]);
    }
    let out = Queue::<(Mutex<String64>, Vec<Event>)>::unbounded().unwrap();
    process::spawn(makes, (out.clone(),)).unwrap().join().unwrap();
    eventually("the maker's place is free", || family_census().participants == 1);
    drop(out);
    eventually("it goes with the queue that nobody got it from", || objects() == 0);
}

#[test]
fn an_object_outlives_its_maker_in_a_message_and_goes_with_the_queue() {
    alone(maker_ends);
}

#[forkyard::task]
fn gets_and_is_killed(handles: Queue<Lock>, told: Queue<bool>) {
    let lock = handles.get().unwrap();
    lock.acquire().unwrap();
    told.put(true).unwrap();
    std::thread::park();
}

#[forkyard::task]
fn getter_is_killed() {
    let (handles, told) = (Queue::unbounded().unwrap(), Queue::unbounded().unwrap());
    for _ in 0..20 {
        handles.put(Lock::new().unwrap()).unwrap();
        let child = process::spawn(gets_and_is_killed, (handles.clone(), told.clone())).unwrap();
        assert!(told.get().unwrap());
        child.kill().unwrap();
        assert_eq!(child.join().unwrap_err().exit_status().unwrap().signal(), Some(9));
    }
    drop((handles, told));
    eventually("nothing is left", || objects() == 0 && family_census().participants <= 1);
}

#[test]
fn a_consumer_that_is_killed_takes_what_it_got_with_it() {
    alone(getter_is_killed);
}

#[forkyard::task]
fn all_kinds() {
    let many = Queue::with_inline(4, 2000).unwrap();
    let map: BTreeMap<String, Semaphore> =
        (0..40u32).map(|n| (format!("{n}"), Semaphore::new(n).unwrap())).collect();
    many.put(map).unwrap();
    assert!(many.get().unwrap().into_iter().all(|(name, permits)| name == permits.value().to_string()));
    // More bytes than lie in a queue, and the same object twice.
    let value = Value::new(5u64).unwrap();
    let large = SimpleQueue::new().unwrap();
    large.put((vec![7u8; 300_000], value.clone(), value.clone())).unwrap();
    drop(value);
    let (bytes, one, other) = large.get().unwrap();
    one.set(6).unwrap();
    assert_eq!((bytes.len(), other.get().unwrap()), (300_000, 6));
    drop((one, other));
    // In batches, and as work.
    let locks = Queue::unbounded().unwrap();
    locks.put_many((0..50).map(|_| Lock::new().unwrap())).unwrap();
    assert!(locks.get_many(50).unwrap().iter().all(|lock| !lock.is_locked()));
    let work = JoinableQueue::unbounded().unwrap();
    work.put(Lock::new().unwrap()).unwrap();
    let taken = work.get().unwrap();
    taken.acquire().unwrap();
    drop(taken);
    let again = work.get().unwrap();
    assert!(again.is_locked(), "redelivered, with the state that it has");
    let with_lock = objects();
    again.finish().unwrap();
    assert_eq!(objects(), with_lock - 1);
    drop((many, large, locks, work));
    assert_eq!(objects(), 0);
}

#[test]
fn all_kinds_of_queues_carry_handles_in_whatever_is_around_them() {
    alone(all_kinds);
}

#[derive(Serialize, Deserialize)]
struct Nest(Vec<Queue<Nest>>);

#[forkyard::task]
fn nested() {
    let mut inner: Queue<Nest> = Queue::bounded(1).unwrap();
    for _ in 0..5_000 {
        let outer = Queue::bounded(1).unwrap();
        outer.put(Nest(vec![inner])).unwrap();
        inner = outer;
    }
    drop(inner);
    assert_eq!(objects(), 0, "queues in queues, without end");
}

#[test]
fn queues_in_queues_are_all_freed_and_no_stack_is_too_small_for_that() {
    alone(nested);
}

#[forkyard::task]
fn makes_and_returns(number: u64, padding: usize) -> (Value<u64>, Queue<Lock>, Vec<u8>) {
    let locks = Queue::bounded(1).unwrap();
    locks.put(Lock::new().unwrap()).unwrap();
    (Value::new(number).unwrap(), locks, vec![1; padding])
}

#[forkyard::task]
fn returned_handles() {
    // Whose children return shared objects has shared something itself.
    let shared = Lock::new().unwrap();
    for start in METHODS {
        for padding in [0, 1_000, 1_000_000] {
            let child = builder(start).spawn(makes_and_returns, (7, padding)).unwrap();
            child.wait_ended().unwrap();
            eventually("the child's place is free", || family_census().participants == 1);
            let (value, locks, bytes) = child.join().unwrap();
            assert_eq!((value.get().unwrap(), bytes.len()), (7, padding));
            assert!(!locks.get().unwrap().is_locked());
        }
    }
    let by_closure = process::fork(|| Value::new(8u64).unwrap()).unwrap();
    assert_eq!(by_closure.join().unwrap().get().unwrap(), 8);
    // Nobody takes this one.
    let child = process::spawn(makes_and_returns, (7, 0)).unwrap();
    child.wait_ended().unwrap();
    drop(child);
    eventually("only what was made here is left", || objects() == 1 && family_census().participants == 1);
    drop(shared);
}

#[test]
fn a_result_may_be_a_shared_object_that_outlives_its_maker() {
    alone(returned_handles);
}

#[forkyard::task]
fn returned_to_nobody() {
    let error = process::spawn(makes_and_returns, (7, 0)).unwrap().join().unwrap_err();
    assert!(error.to_string().contains("make a shared object of any kind before"), "{error}");
}

#[test]
fn a_parent_that_shares_nothing_is_told_so() {
    alone(returned_to_nobody);
}

#[forkyard::task]
fn refused_elsewhere() {
    let lock = Lock::new().unwrap();
    let (ours, _theirs) = pipe().unwrap();
    let error = ours.send(&lock).unwrap_err();
    assert!(error.is_invalid() && error.to_string().contains("put it into a queue"), "{error}");
    let queue = Queue::bounded(1).unwrap();
    queue.put(lock.clone()).unwrap();
    let back = queue.try_put(lock).unwrap_err().into_inner();
    assert!(!back.is_locked(), "what was not put comes back");
}

#[test]
fn a_handle_is_refused_where_nobody_could_hold_it_on_its_way() {
    isolated(refused_elsewhere);
}
