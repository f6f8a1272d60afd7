//! The words of commands: one operation each, and what it answers.

use std::ops::{DerefMut, IndexMut};

use forkyard::channel::{ByteQueue, GetError, PutError, Queue, Sample};
use forkyard::sync::{LockError, Mutex};

use crate::actor::{CLOSINGS, Made, ONCES, Operation};
use crate::joining;

#[allow(clippy::unit_arg, reason = "what is done is all there is to say")]
pub(crate) fn operation(word: &str) -> Operation {
    match word {
        "naive.acquire" => |actor| done(actor.naive.unwrap().lock.acquire()),
        "naive.release" => |actor| done(actor.naive.unwrap().lock.release()),
        "naive.put" => |actor| done(actor.naive.unwrap().queue.put(1)),
        "naive.put_last" => |actor| done(actor.naive.unwrap().queue.put(2)),
        // Up to the last one.
        "naive.drain" => |actor| done(while actor.naive.unwrap().queue.get() != 2 {}),
        "make.small" => |actor| done(actor.made.push(Made::Small(Mutex::new([0; 8]).unwrap()))),
        "make.half" => |actor| done(actor.made.push(Made::Half(Mutex::new([0; 30_000]).unwrap()))),
        "make.large" => |actor| done(actor.made.push(Made::Large(Mutex::new([0; 200_000]).unwrap()))),
        "drop" => |actor| done(drop(actor.made.remove(0))),
        "fork" => |actor| done(actor.fork = joining::fork()),
        "reap" => |actor| done(joining::reap(actor.fork)),
        "lock.acquire" => |actor| locked(actor.objects.lock.acquire(), forkyard::sync::LockGuard::keep),
        "lock.acquire_20ms" => |actor| {
            let time = std::time::Duration::from_millis(20);
            locked(actor.objects.lock.acquire_timeout(time), forkyard::sync::LockGuard::keep)
        },
        "lock.try" => |actor| locked(actor.objects.lock.try_acquire(), forkyard::sync::LockGuard::keep),
        "lock.release" => |actor| if actor.objects.lock.release().is_ok() { "ok" } else { "not-locked" },
        "rlock.acquire" => |actor| locked(actor.objects.rlock.acquire(), forkyard::sync::RLockGuard::keep),
        "rlock.release" => |actor| if actor.objects.rlock.release().is_ok() { "ok" } else { "not-owner" },
        "once.call" => |actor| {
            let mut ran = "before";
            let once = &actor.objects.onces[actor.round % ONCES];
            let called =
                once.call_once_force(|state| ran = if state.owner_died() { "again" } else { "first" });
            if called.is_ok() { ran } else { "failed" }
        },
        "mutex.lock" => |actor| kept(actor.objects.mutex.lock(), &mut actor.guard),
        "mutex.unlock" => |actor| done(drop(actor.guard.take())),
        "mutex.add" => |actor| add(actor.objects.mutex.lock()),
        "array.add" => |actor| add(actor.objects.array.lock()),
        "array.lock" => |actor| kept(actor.objects.array.lock(), &mut actor.array),
        "array.unlock" => |actor| done(drop(actor.array.take())),
        "rwlock.add" => |actor| add(actor.objects.rwlock.write()),
        "rwlock.look" => |actor| match actor.objects.rwlock.read() {
            Ok(guard) if guard[0] != guard[1] => "torn",
            Ok(_) => "ok",
            Err(LockError::OwnerDied(_)) => "died",
            Err(error) => refused(&error),
        },
        "rwlock.read" => |actor| kept(actor.objects.rwlock.read(), &mut actor.read),
        "rwlock.write" => |actor| kept(actor.objects.rwlock.write(), &mut actor.write),
        "rwlock.unlock" => |actor| done(drop((actor.read.take(), actor.write.take()))),
        "value.add" => |actor| match actor.objects.value.lock().or_else(LockError::recovered) {
            Ok(mut guard) => done(*guard += 1),
            Err(error) => refused(&error),
        },
        // Waits until somebody has added.
        "condition.wait" => |actor| {
            let guard = actor.objects.mutex.lock().or_else(LockError::recovered).unwrap();
            let then = guard[0];
            match actor.objects.condition.wait_for(guard, |guard| guard[0] > then) {
                Ok(guard) if guard[0] != guard[1] => "torn",
                Ok(_) => "ok",
                Err(LockError::OwnerDied(died)) => {
                    let mut guard = died.into_inner();
                    guard[1] = guard[0];
                    "died"
                }
                Err(error) => refused(&error),
            }
        },
        "condition.one" => |actor| told(actor.objects.condition.notify_one()),
        "condition.all" => |actor| told(actor.objects.condition.notify_all()),
        "semaphore.acquire" => |actor| told(actor.objects.semaphore.acquire()),
        "semaphore.release" => |actor| told(actor.objects.semaphore.release()),
        "semaphore.value" => |actor| number(actor.objects.semaphore.value() as usize),
        "semaphore.drain" => |actor| {
            number(
                std::iter::from_fn(|| actor.objects.semaphore.try_acquire().unwrap().then_some(())).count(),
            )
        },
        "undo.acquire" => |actor| told(actor.objects.undo.acquire()),
        "undo.release" => |actor| told(actor.objects.undo.release()),
        "undo.value" => |actor| number(actor.objects.undo.value() as usize),
        "bounded.acquire" => |actor| told(actor.objects.bounded.acquire()),
        "bounded.release" => |actor| told(actor.objects.bounded.release()),
        "bounded.value" => |actor| number(actor.objects.bounded.value() as usize),
        "event.set" => |actor| told(actor.objects.event.set()),
        "event.clear" => |actor| told(actor.objects.event.clear()),
        "event.wait" => |actor| told(actor.objects.event.wait()),
        "event.is_set" => |actor| number(actor.objects.event.is_set().into()),
        "two.wait" => |actor| told(actor.objects.two.wait().map(drop)),
        "two.abort" => |actor| told(actor.objects.two.abort()),
        "two.reset" => |actor| told(actor.objects.two.reset()),
        "two.waiting" => |actor| number(actor.objects.two.waiting()),
        "three.wait" => |actor| told(actor.objects.three.wait().map(drop)),
        "three.abort" => |actor| told(actor.objects.three.abort()),
        "three.reset" => |actor| told(actor.objects.three.reset()),
        "three.waiting" => |actor| number(actor.objects.three.waiting()),
        "queue.put" => |actor| put(actor.objects.queue.put(SHORT)),
        "queue.put_large" => |actor| put(actor.objects.queue.put(&LARGE)),
        "queue.send" => |actor| {
            let mut loan = actor.objects.queue.loan(LARGE.len()).unwrap();
            loan.copy_from_slice(&LARGE);
            put(actor.objects.queue.send(loan))
        },
        "queue.put_two" => |actor| put(actor.objects.queue.put_many([&LARGE[..], SHORT])),
        "queue.get_two" => |actor| match actor.objects.queue.get_many(2).as_deref() {
            Ok([large, short]) if large[..] == LARGE && short[..] == *SHORT => "ok",
            _ => "failed",
        },
        "queue.get" => |actor| got(actor.objects.queue.get()),
        "queue.len" => |actor| number(actor.objects.queue.len()),
        "queue.drain" => |actor| {
            for count in 0.. {
                match got(actor.objects.queue.try_get()) {
                    "empty" => return number(count),
                    "short" | "large" => {}
                    other => return other,
                }
            }
            "never"
        },
        "work.put" => |actor| put(actor.objects.work.put(7)),
        "work.get" => |actor| match actor.objects.work.get() {
            Ok(work) if *work == 7 => done(actor.work = Some(work)),
            _ => "failed",
        },
        "work.finish" => |actor| match actor.work.take().map(forkyard::channel::Work::finish) {
            Some(Ok(7)) => "ok",
            _ => "failed",
        },
        "work.put_many" => |actor| put(actor.objects.work.put_many([7, 7])),
        "work.get_many" => |actor| match actor.objects.work.get_many(9) {
            Ok(works) if works.len() == 2 => done(actor.works = works),
            _ => "failed",
        },
        "work.finish_many" => {
            |actor| match actor.objects.work.finish_many(std::mem::take(&mut actor.works)) {
                Ok(values) if values == [7, 7] => "ok",
                _ => "failed",
            }
        }
        "work.return" => |actor| done(drop(actor.work.take())),
        "work.join" => |actor| told(actor.objects.work.join()),
        "work.drain" => |actor| {
            let works = std::iter::from_fn(|| actor.objects.work.try_get().ok());
            number(works.map(|work| assert_eq!(work.finish().unwrap(), 7)).count())
        },
        "many.put" => |actor| put(actor.objects.many.put_many([1, 2, 3])),
        "many.get" => |actor| match actor.objects.many.get_many(3).as_deref() {
            Ok([1, 2, 3]) => "ok",
            _ => "failed",
        },
        // How many of the first ones there are, and how many of the last ones.
        "many.first" => |actor| match actor.objects.many.try_get_many(9).as_deref() {
            Ok(some) if [1, 2, 3].starts_with(some) => number(some.len()),
            Err(GetError::Empty) => "0",
            _ => "failed",
        },
        "many.last" => |actor| match actor.objects.many.try_get_many(9).as_deref() {
            Ok(some) if [1, 2, 3].ends_with(some) => number(some.len()),
            Err(GetError::Empty) => "0",
            _ => "failed",
        },
        "growing.put" => |actor| put(actor.objects.growing.put(SEGMENT)),
        // Until the segment is full that it goes on in when it is empty.
        "growing.fill" => |actor| put(actor.objects.growing.put_many(0..SEGMENT)),
        "growing.get" => |actor| match actor.objects.growing.get() {
            Ok(_) => "ok",
            Err(_) => "failed",
        },
        "growing.get_segment" => |actor| match actor.objects.growing.get_many(SEGMENT as usize) {
            Ok(some) if some.iter().copied().eq(0..SEGMENT) => "ok",
            _ => "failed",
        },
        "growing.try" => |actor| match actor.objects.growing.try_get() {
            Err(GetError::Empty) => "empty",
            _ => "failed",
        },
        // How many more than a segment there are; in their order.
        "growing.drain" => |actor| {
            let all: Vec<_> = std::iter::from_fn(|| actor.objects.growing.try_get().ok()).collect();
            match all.len().checked_sub(SEGMENT as usize) {
                _ if !all.is_sorted() => "disorder",
                Some(more) => number(more),
                None => ["nothing", "one", "two"].get(all.len()).copied().unwrap_or("few"),
            }
        },
        "endless.fill" => |actor| match (0..SEGMENT).try_for_each(|_| actor.objects.endless.put(7)) {
            Ok(()) => "ok",
            Err(_) => "failed",
        },
        "endless.put" => |actor| put(actor.objects.endless.put(7)),
        "endless.get" => |actor| match actor.objects.endless.get() {
            Ok(work) if *work == 7 => done(actor.work = Some(work)),
            _ => "failed",
        },
        "endless.join" => |actor| told(actor.objects.endless.join()),
        "endless.drain" => |actor| {
            let works = std::iter::from_fn(|| actor.objects.endless.try_get().ok());
            let all: Vec<u64> = works.map(|work| work.finish().unwrap()).collect();
            match all.len().checked_sub(SEGMENT as usize) {
                Some(more) => number(more),
                None => "few",
            }
        },
        "closing.put" => |actor| put(actor.objects.closings[actor.round % CLOSINGS].put(SHORT)),
        "closing.get" => |actor| got(actor.objects.closings[actor.round % CLOSINGS].get()),
        "closing.close" => |actor| {
            if actor.objects.closings[actor.round % CLOSINGS].close() { "ok" } else { "closed" }
        },
        "make.queue" => |actor| {
            let queue = ByteQueue::bounded(2).unwrap();
            queue.put(SHORT).unwrap();
            queue.put(&LARGE).unwrap();
            done(actor.made.push(Made::Queue(queue)))
        },
        "make.handles" => |actor| {
            let queue = Queue::bounded(2).unwrap();
            queue.put(Mutex::new(7).unwrap()).unwrap();
            queue.put(Mutex::new(7).unwrap()).unwrap();
            done(actor.made.push(Made::Handles(queue)))
        },
        "make.shared" => |actor| done(actor.made.push(Made::Shared(Mutex::new(7).unwrap()))),
        // What it has made, and then has no more.
        "handles.put" => |actor| match actor.made.pop() {
            Some(Made::Shared(object)) => put(actor.objects.handles.put(object)),
            _ => "nothing to put",
        },
        "handles.get" => |actor| match actor.objects.handles.get() {
            Ok(object) => done(actor.made.push(Made::Shared(object))),
            Err(_) => "failed",
        },
        // How many there are that can be used.
        "handles.drain" => |actor| {
            let all = std::iter::from_fn(|| actor.objects.handles.try_get().ok());
            number(all.filter(|object| matches!(object.try_lock().as_deref(), Ok(7))).count())
        },
        _ => panic!("unknown operation {word}"),
    }
}

fn told(result: forkyard::Result<()>) -> &'static str {
    match result {
        Ok(()) => "ok",
        Err(error) if error.is_broken_barrier() => "broken",
        Err(error) if error.is_invalid() => "invalid",
        Err(error) if error.is_timeout() => "timed-out",
        Err(error) => Box::leak(error.to_string().replace(' ', "-").into_boxed_str()),
    }
}

/// Messages of the smallest segment that a queue without a bound goes on in.
const SEGMENT: u64 = 64;
const SHORT: &[u8] = b"short";
static LARGE: [u8; 70_000] = [7; 70_000];

fn put<T>(result: Result<(), PutError<T>>) -> &'static str {
    match result {
        Ok(()) => "ok",
        Err(PutError::Closed(_)) => "closed",
        Err(_) => "failed",
    }
}

/// Which message it was, if it is whole: at both ends and in the middle.
fn got(result: Result<Sample, GetError>) -> &'static str {
    match result {
        Ok(sample) if *sample == *SHORT => "short",
        Ok(sample)
            if sample.len() == LARGE.len() && [0, 35_000, 69_999].iter().all(|&at| sample[at] == 7) =>
        {
            "large"
        }
        Ok(_) => "torn",
        Err(GetError::Empty) => "empty",
        Err(GetError::Closed) => "closed",
        Err(error) => Box::leak(error.to_string().replace(' ', "-").into_boxed_str()),
    }
}

fn number(number: usize) -> &'static str {
    ["0", "1", "2", "3"].get(number).copied().unwrap_or("many")
}

fn done(_nothing: ()) -> &'static str {
    "ok"
}

/// What came of acquiring; a lock of the dead is kept like another.
fn locked<G>(result: Result<(), LockError<G>>, keep: fn(G)) -> &'static str {
    match result {
        Ok(()) => "ok",
        Err(LockError::OwnerDied(died)) => {
            keep(died.into_inner());
            "died"
        }
        Err(error) => refused(&error),
    }
}

fn refused<G>(error: &LockError<G>) -> &'static str {
    match error {
        LockError::WouldBlock => "would-block",
        LockError::TimedOut => "timed-out",
        LockError::Interrupted => "interrupted",
        LockError::Deadlock(_) => "deadlock",
        _ => "failed",
    }
}

/// Keeps the guard.
fn kept<G>(result: Result<G, LockError<G>>, place: &mut Option<G>) -> &'static str {
    let (guard, answer) = match result {
        Ok(guard) => (guard, "ok"),
        Err(LockError::OwnerDied(died)) => (died.into_inner(), "died"),
        Err(error) => return refused(&error),
    };
    *place = Some(guard);
    answer
}

/// Adds one to both numbers, which are equal unless somebody was killed on the way.
fn add<G: DerefMut>(result: Result<G, LockError<G>>) -> &'static str
where
    G::Target: IndexMut<usize, Output = u64>,
{
    let (mut guard, answer) = match result {
        Ok(guard) if guard[0] != guard[1] => return "torn",
        Ok(guard) => (guard, "ok"),
        Err(LockError::OwnerDied(died)) => {
            let mut guard = died.into_inner();
            guard[1] = guard[0];
            (guard, "died")
        }
        Err(error) => return refused(&error),
    };
    guard[0] += 1;
    guard[1] += 1;
    answer
}
