//! A family seen from outside: who holds what, and who waits for it.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by a panic")]

mod common;

use std::io::Read;
use std::process::{Child, Command, Stdio};

use common::{children_of, eventually, kill};
use forkyard::family::{self, Family};
use forkyard::process::{self, Builder, Pid};
use forkyard::sync::{Barrier, BoundedSemaphore, Mutex};

const SIGSTOP: i32 = 19;
const SIGCONT: i32 = 18;
const INSIDE: &str = "A_FAMILY_TO_LOOK_AT";

#[forkyard::task]
fn waits_for(lock: Mutex<u64>) {
    drop(lock.lock());
}

#[forkyard::task]
fn waits_at(barrier: Barrier) {
    drop(barrier.wait());
}

/// A family with a lock that one process has and another wants; it ends when its standard input does.
fn to_be_looked_at() {
    let lock = Mutex::new(0).unwrap();
    let (permits, barrier) = (BoundedSemaphore::new(3).unwrap(), Barrier::new(5).unwrap());
    permits.acquire().unwrap();
    let guard = lock.lock().unwrap();
    let waiter = Builder::new().name("waiter").daemon(true).spawn(waits_for, (lock.clone(),)).unwrap();
    let party = Builder::new().name("party").spawn(waits_at, (barrier.clone(),)).unwrap();
    std::io::stdin().read_to_end(&mut Vec::new()).unwrap();
    drop(guard);
    waiter.join().unwrap();
    barrier.abort().unwrap();
    party.join().unwrap();
}

struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn named<'a>(family: &'a Family, name: &str) -> Option<&'a family::Process> {
    family.processes.iter().find(|process| process.name == name)
}

/// This process takes no part in any family, so it may look at others.
#[test]
fn who_holds_and_who_waits_is_seen_from_outside_also_when_all_are_stopped() {
    if std::env::var_os(INSIDE).is_some() {
        return to_be_looked_at();
    }
    let mut program = Command::new(std::env::current_exe().unwrap());
    program.env(INSIDE, "1").stdin(Stdio::piped()).stdout(Stdio::null());
    let mut running = Running(program.spawn().unwrap());
    let root = i32::try_from(running.0.id()).unwrap();
    let look = || family::observe(Pid::from_raw(root).unwrap());
    let waits = |name| look().is_ok_and(|family| named(&family, name).is_some_and(|p| p.waits.len() == 1));
    eventually("both wait", || waits("waiter") && waits("party"));
    // A thread says for what it waits before it says in the lock that there is somebody.
    let is_known = |family: family::Family| {
        family.processes.iter().flat_map(|process| &process.holds).any(|held| held.seconds.is_some())
    };
    eventually("it is known for how long the mutex is held", || look().is_ok_and(is_known));
    let all: Vec<i32> = children_of(root).into_iter().chain([root]).collect();
    all.iter().for_each(|pid| kill(*pid, SIGSTOP));
    eventually("all are stopped", || {
        look().is_ok_and(|family| family.processes.iter().all(|p| p.state == 'T'))
    });
    let family = look().unwrap();

    let (waiter, party) = (named(&family, "waiter").unwrap(), named(&family, "party").unwrap());
    assert_eq!((waiter.daemon, party.daemon), (Some(true), Some(false)));
    assert_eq!((waiter.waits[0].kind.as_str(), party.waits[0].kind.as_str()), ("Mutex", "Barrier"));
    assert!(waiter.waits[0].seconds > 0.0 && waiter.waits[0].made_at.contains("family.rs:"), "{waiter:?}");
    let owner = family.processes.iter().find(|process| process.pid.cast_signed() == root).unwrap();
    let mut held: Vec<_> =
        owner.holds.iter().map(|held| (held.kind.as_str(), held.how, held.seconds.is_some())).collect();
    held.sort_unstable();
    assert_eq!(held, [("BoundedSemaphore", "permit", false), ("Mutex", "lock", true)], "{owner:?}");

    let object = |kind| family.objects.iter().find(|object| object.kind == kind).unwrap();
    assert_eq!(object("Mutex").waiting, 1);
    assert_eq!(object("Mutex").holders.len(), 2);
    let facts = &object("Barrier").facts;
    assert_eq!((facts["parties"], facts["arrived"]), (5, 1), "{facts:?}");
    assert_eq!(object("BoundedSemaphore").facts["value"], 2);
    assert_eq!((family.arena.objects, family.arena.participants), (3, 3));

    all.iter().for_each(|pid| kill(*pid, SIGCONT));
    drop(running.0.stdin.take());
    assert!(running.0.wait().unwrap().success());
    assert!(look().unwrap_err().is_gone());
}

#[test]
fn a_process_of_no_family_is_an_error() {
    if std::env::var_os(INSIDE).is_some() {
        return;
    }
    let error = family::observe(Pid::from_raw(1).unwrap()).unwrap_err();
    assert!(error.is_invalid() || error.errno().is_some(), "{error}");
    let _ = process::current();
}
