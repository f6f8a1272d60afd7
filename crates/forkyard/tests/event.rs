//! Events: set wakes all, whoever dies.

#![allow(
    unsafe_code,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test fails by a panic; each unsafe block has its own reason"
)]

mod common;

use std::time::{Duration, Instant};

use common::waiters::{LONG, all_sleep, end, finish, pid, take_all};
use common::{eventually, isolated, kill, sleeps, thread_sleeps};
use forkyard::process::{self, Builder, Process, Start};
use forkyard::signal::{Signal, SignalInfo};
use forkyard::sync::{Event, Semaphore};

#[forkyard::task]
fn waits(event: Event, ready: Semaphore) {
    ready.release().unwrap();
    event.wait_timeout(LONG).unwrap();
}

struct World {
    event: Event,
    ready: Semaphore,
}

impl World {
    fn new() -> World {
        World { event: Event::new().unwrap(), ready: Semaphore::new(0).unwrap() }
    }

    /// So many children that sleep at the event.
    fn waiters(&self, count: usize) -> Vec<Process<()>> {
        let start = |_| process::spawn(waits, (self.event.clone(), self.ready.clone())).unwrap();
        let children: Vec<_> = (0..count).map(start).collect();
        all_sleep(&self.ready, &children);
        children
    }
}

#[test]
fn a_set_wakes_everybody() {
    for count in [0, 1, 3, 50] {
        let world = World::new();
        let children = world.waiters(count);
        world.event.set().unwrap();
        finish(children);
        assert!(world.event.is_set());
        world.event.wait().unwrap();
    }
}

#[test]
fn who_was_asleep_at_a_set_knows_it_though_it_was_cleared_at_once() {
    let world = World::new();
    for _ in 0..20 {
        let children = world.waiters(3);
        world.event.set().unwrap();
        world.event.clear().unwrap();
        finish(children);
        assert!(!world.event.try_wait().unwrap());
    }
}

#[test]
fn a_cleared_event_is_waited_for_again() {
    let event = Event::new().unwrap();
    assert!(!event.is_set());
    event.clear().unwrap();
    for _ in 0..2 {
        event.set().unwrap();
        event.set().unwrap();
        assert!(event.is_set() && event.try_wait().unwrap());
        event.clear().unwrap();
        assert!(!event.is_set());
        assert!(event.wait_timeout(Duration::from_millis(1)).unwrap_err().is_timeout());
    }
}

#[test]
fn a_killed_waiter_is_no_matter_for_the_others() {
    for others in [0, 1, 3] {
        let world = World::new();
        let mut children = world.waiters(others + 1);
        end(children.remove(0));
        world.event.set().unwrap();
        finish(children);
    }
}

#[forkyard::task]
fn sets_and_dies(event: Event) {
    event.set().unwrap();
    common::kill_self();
}

#[test]
fn a_set_by_one_who_is_killed_right_after_wakes_everybody() {
    for count in [1, 3, 50] {
        let world = World::new();
        let children = world.waiters(count);
        let setter = process::spawn(sets_and_dies, (world.event.clone(),)).unwrap();
        finish(children);
        assert_eq!(setter.wait_ended().unwrap().signal(), Some(libc::SIGKILL));
        assert!(world.event.is_set());
    }
}

#[test]
fn it_travels_by_each_start_method_and_outlives_its_maker() {
    let world = World::new();
    for start in [Start::Zygote, Start::Spawn] {
        let event = Event::new().unwrap();
        let args = (event.clone(), world.ready.clone());
        let children = [Builder::new().start(start).spawn(waits, args).unwrap()];
        all_sleep(&world.ready, &children);
        event.set().unwrap();
        drop(event);
        finish(children);
    }
    isolated(forks);
}

#[forkyard::task]
fn forks() {
    let event = Event::new().unwrap();
    let here = event.clone();
    let child = process::fork(move || here.wait_timeout(LONG).unwrap()).unwrap();
    eventually("the child sleeps", || sleeps(pid(&child)));
    event.set().unwrap();
    finish([child]);
}

#[test]
fn threads_wait_too() {
    let event = Event::new().unwrap();
    let (tell, told) = std::sync::mpsc::channel();
    std::thread::scope(|scope| {
        scope.spawn(|| {
            // SAFETY: no arguments.
            tell.send(unsafe { libc::gettid() }).unwrap();
            event.wait_timeout(LONG).unwrap();
        });
        let thread = told.recv().unwrap();
        eventually("the thread sleeps", || thread_sleeps(common::own_pid(), thread));
        event.set().unwrap();
    });
}

#[test]
fn a_wait_ends_when_its_time_is_up_and_not_before() {
    let event = Event::new().unwrap();
    for timeout in [Duration::ZERO, Duration::from_millis(30)] {
        let start = Instant::now();
        assert!(event.wait_timeout(timeout).unwrap_err().is_timeout());
        assert!(event.wait_deadline(Instant::now() + timeout).unwrap_err().is_timeout());
        assert!(start.elapsed() >= timeout * 2);
    }
    event.set().unwrap();
    event.wait_timeout(Duration::ZERO).unwrap();
    event.wait_timeout(Duration::MAX).unwrap();
}

#[forkyard::task]
fn counts_signals(event: Event, ready: Semaphore, seen: Semaphore) {
    let count = move |_: &SignalInfo| seen.release().unwrap();
    forkyard::signal::handle(Signal::USR1, count).unwrap().keep();
    ready.release().unwrap();
    event.wait_timeout(LONG).unwrap();
}

#[test]
fn a_signal_does_not_end_a_wait() {
    let world = World::new();
    let seen = Semaphore::new(0).unwrap();
    let args = (world.event.clone(), world.ready.clone(), seen.clone());
    let children = [process::spawn(counts_signals, args).unwrap()];
    all_sleep(&world.ready, &children);
    for _ in 0..3 {
        kill(pid(&children[0]), libc::SIGUSR1);
        take_all(&seen, 1);
        eventually("it sleeps again", || sleeps(pid(&children[0])));
    }
    world.event.set().unwrap();
    finish(children);
}
