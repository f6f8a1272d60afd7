//! The words of commands: one operation each, and what it answers.

use std::ops::{DerefMut, IndexMut};

use forkyard::channel::{ByteQueue, GetError, PutError, Sample};
use forkyard::sync::{LockError, Mutex};

use crate::actor::{CLOSINGS, Made, ONCES, Operation};
use crate::joining;

#[allow(clippy::unit_arg, reason = "what is done is all there is to say")]
pub(crate) fn operation(word: &str) -> Operation {
    match word {
        "naive.acquire" => |actor| done(actor.naive.unwrap().acquire()),
        "naive.release" => |actor| done(actor.naive.unwrap().release()),
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
        "work.return" => |actor| done(drop(actor.work.take())),
        "work.join" => |actor| told(actor.objects.work.join()),
        "work.drain" => |actor| {
            let works = std::iter::from_fn(|| actor.objects.work.try_get().ok());
            number(works.map(|work| assert_eq!(work.finish().unwrap(), 7)).count())
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
