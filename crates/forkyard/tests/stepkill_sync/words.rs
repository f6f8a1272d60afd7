//! The words of commands: one operation each, and what it answers.

use forkyard::sync::{LockError, Mutex, MutexResult};

use crate::actor::{Actor, Made, Operation};

pub(crate) fn operation(word: &str) -> Operation {
    match word {
        "naive.acquire" => |actor| done(actor.naive.unwrap().acquire()),
        "naive.release" => |actor| done(actor.naive.unwrap().release()),
        "make.small" => |actor| done(actor.made.push(Made::Small(Mutex::new([0; 8]).unwrap()))),
        "make.half" => |actor| done(actor.made.push(Made::Half(Mutex::new([0; 30_000]).unwrap()))),
        "make.large" => |actor| done(actor.made.push(Made::Large(Mutex::new([0; 200_000]).unwrap()))),
        "drop" => |actor| done(drop(actor.made.remove(0))),
        "lock.acquire" => |actor| locked(actor.objects.lock.acquire(), forkyard::sync::LockGuard::keep),
        "lock.acquire_20ms" => |actor| {
            let time = std::time::Duration::from_millis(20);
            locked(actor.objects.lock.acquire_timeout(time), forkyard::sync::LockGuard::keep)
        },
        "lock.try" => |actor| locked(actor.objects.lock.try_acquire(), forkyard::sync::LockGuard::keep),
        "lock.release" => |actor| if actor.objects.lock.release().is_ok() { "ok" } else { "not-locked" },
        "mutex.lock" => |actor| keep(actor, Mutex::lock),
        "mutex.unlock" => |actor| done(drop(actor.guard.take())),
        "mutex.add" => add,
        _ => panic!("unknown operation {word}"),
    }
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

fn keep(
    actor: &mut Actor,
    lock: fn(&'static Mutex<[u64; 2]>) -> MutexResult<'static, [u64; 2]>,
) -> &'static str {
    match lock(&actor.objects.mutex) {
        Ok(guard) => {
            actor.guard = Some(guard);
            "ok"
        }
        Err(LockError::OwnerDied(died)) => {
            actor.guard = Some(died.into_inner());
            "died"
        }
        Err(error) => refused(&error),
    }
}

/// Adds one to both numbers, which are equal unless somebody was killed on the way.
fn add(actor: &mut Actor) -> &'static str {
    let (mut guard, answer) = match actor.objects.mutex.lock() {
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
