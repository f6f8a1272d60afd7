//! Objects, their holders, and what deaths leave of them.

use std::time::{Duration, Instant};

use super::{Kind, Lives, Payload, Shared, existing, for_each_object, get, joined, me};
use crate::primitive::{AtomicU32, AtomicU64, Ordering};
use crate::process::{self, Builder, Start};

/// A counter, with a tail.
#[repr(C)]
struct Bytes {
    count: AtomicU64,
    word: AtomicU32,
    unused: AtomicU32,
}

// SAFETY: atomics only, `repr(C)`.
#[allow(unsafe_code)]
unsafe impl Payload for Bytes {
    const KIND: Kind = Kind::Bytes;
}

fn bytes(tail: usize) -> Shared<Bytes> {
    Shared::new(tail, std::panic::Location::caller(), |_, _| {}).unwrap()
}

/// Runs the test in a family of its own, in a process with one thread.
fn isolated(body: crate::Task<fn()>) {
    const INSIDE: &str = "INSIDE_A_FAMILY_OF_ITS_OWN";
    if std::env::var_os(INSIDE).is_some() {
        return Builder::new().start(Start::Spawn).spawn(body, ()).unwrap().join().unwrap();
    }
    let name = std::thread::current().name().unwrap().to_owned();
    let mut program = std::process::Command::new(std::env::current_exe().unwrap());
    let mut running = program
        .args(["--exact", &name, "--nocapture"])
        .env(INSIDE, "1")
        .env("FORKYARD_ARENA_SIZE", "512M")
        .spawn()
        .unwrap();
    let deadline = Instant::now() + Duration::from_secs(60);
    let status = loop {
        match running.try_wait().unwrap() {
            Some(status) => break status,
            None if Instant::now() > deadline => {
                running.kill().unwrap();
                panic!("{name} hung");
            }
            None => std::thread::sleep(Duration::from_millis(5)),
        }
    };
    assert!(status.success(), "{status}");
}

fn eventually(what: &str, condition: impl Fn() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(30);
    while !condition() {
        assert!(Instant::now() < deadline, "not within 30 s: {what}");
        std::thread::yield_now();
    }
}

fn objects() -> usize {
    let mut found = 0;
    for_each_object(|_| found += 1);
    found
}

/// Memory that the arena has taken from the kernel.
fn memory() -> u64 {
    use std::os::unix::fs::MetadataExt;
    let fd = existing().unwrap().fd().try_clone_to_owned().unwrap();
    std::fs::File::from(fd).metadata().unwrap().blocks() * 512
}

#[crate::task]
fn sizes() {
    let before = objects();
    drop(bytes(0));
    let floor = memory();
    for round in 0..3 {
        let mut kept = Vec::new();
        for tail in [0, 1, 63, 64, 100, 1000, 5000, 30_000, 40_000, 70_000, 1 << 20, 10 << 20] {
            for _ in 0..20 {
                let object = bytes(tail);
                let (address, len) = object.tail();
                assert!(len >= tail && address.as_ptr().addr() % 64 == 0);
                // SAFETY: the tail is ours, and so long.
                #[allow(unsafe_code)]
                let all = unsafe { std::slice::from_raw_parts_mut(address.as_ptr(), tail) };
                assert!(all.iter().all(|byte| *byte == 0), "fresh memory is zero in round {round}");
                all.fill(7);
                kept.push(object);
            }
        }
        assert_eq!(objects(), before + kept.len());
        drop(kept);
        assert_eq!(objects(), before);
    }
    // A chunk of each class stays.
    assert!(memory() <= floor + 11 * (64 << 10) + (128 << 10), "{} and {floor}", memory());
}

#[test]
fn memory_of_every_size_is_given_back() {
    isolated(sizes);
}

#[crate::task]
fn count(object: Shared<Bytes>, until: u64) {
    object.count.fetch_add(1, Ordering::SeqCst);
    while object.count.load(Ordering::SeqCst) < until {
        std::thread::yield_now();
    }
}

#[crate::task]
fn travels() {
    let object = bytes(0);
    for start in [Start::Zygote, Start::Spawn, Start::Fork] {
        object.count.store(0, Ordering::SeqCst);
        let children: Vec<_> =
            (0..3).map(|_| Builder::new().start(start).spawn(count, (object.clone(), 3)).unwrap()).collect();
        children.into_iter().for_each(|child| child.join().unwrap());
        assert_eq!(object.count.load(Ordering::SeqCst), 3, "{start:?}");
    }
    let copy = object.clone();
    process::fork(move || copy.count.fetch_add(4, Ordering::SeqCst)).unwrap().join().unwrap();
    assert_eq!(object.count.load(Ordering::SeqCst), 7);
    drop(object);
    eventually("nobody holds it", || objects() == 0);
}

#[test]
fn objects_travel_by_every_start_method() {
    isolated(travels);
}

#[crate::task]
fn drops_late(object: Shared<Bytes>, go: Shared<Bytes>) {
    object.count.fetch_add(1, Ordering::SeqCst);
    while go.count.load(Ordering::SeqCst) == 0 {
        std::thread::yield_now();
    }
}

#[crate::task]
fn last_holder() {
    let (go, object) = (bytes(0), bytes(100_000));
    let killed = process::spawn(drops_late, (object.clone(), go.clone())).unwrap();
    let lives = process::spawn(drops_late, (object.clone(), go.clone())).unwrap();
    eventually("both have it", || object.count.load(Ordering::SeqCst) == 2);
    drop(object);
    assert_eq!(objects(), 2);
    killed.kill().unwrap();
    assert_eq!(killed.wait_ended().unwrap().signal(), Some(9));
    assert_eq!(objects(), 2, "one holder lives");
    go.count.store(1, Ordering::SeqCst);
    lives.join().unwrap();
    eventually("the last holder is gone", || objects() == 1);
    assert_eq!(super::everybody(), [me().unwrap().id]);
}

#[test]
fn an_object_is_freed_when_its_last_holder_is_gone() {
    isolated(last_holder);
}

#[crate::task]
fn slots() {
    let object = bytes(0);
    for _ in 0..300 {
        let copy = object.clone();
        object.count.store(0, Ordering::SeqCst);
        process::fork(move || copy.count.fetch_add(1, Ordering::SeqCst)).unwrap().join().unwrap();
        assert_eq!(object.count.load(Ordering::SeqCst), 1);
    }
    assert!(super::existing().unwrap().pages() <= 16, "slots are used again");
}

#[test]
fn slots_of_the_dead_are_used_again() {
    isolated(slots);
}

#[crate::task]
fn foreign_fork() {
    let object = bytes(0);
    let me = me().unwrap().id;
    // SAFETY: the copy uses atomics and ends.
    #[allow(unsafe_code)]
    match unsafe { libc::fork() } {
        0 => {
            let other = joined().is_some_and(|id| id != me) && !super::Family.is_dead(me);
            object.count.store(u64::from(other) + 1, Ordering::SeqCst);
            drop(object);
            #[allow(unsafe_code)]
            // SAFETY: ends this copy.
            unsafe {
                libc::_exit(0)
            }
        }
        pid => {
            eventually("the copy took part", || object.count.load(Ordering::SeqCst) == 2);
            // SAFETY: a child of ours.
            #[allow(unsafe_code)]
            unsafe {
                libc::waitpid(pid, std::ptr::null_mut(), 0)
            };
        }
    }
    crate::sync::reap();
    assert_eq!(super::everybody(), [me]);
    // A copy that glibc knows nothing of.
    // SAFETY: as fork; the copy uses atomics and system calls.
    #[allow(unsafe_code)]
    match unsafe { libc::syscall(libc::SYS_clone, libc::SIGCHLD, 0, 0, 0, 0) } {
        0 => {
            let nobody = joined().is_none();
            let joins = super::me().is_ok_and(|now| now.id != me);
            object.count.store(if nobody && joins { 3 } else { 4 }, Ordering::SeqCst);
            // SAFETY: ends this copy.
            #[allow(unsafe_code)]
            unsafe {
                libc::_exit(0)
            }
        }
        pid => {
            eventually("the copy took part", || object.count.load(Ordering::SeqCst) >= 3);
            assert_eq!(object.count.load(Ordering::SeqCst), 3);
            // SAFETY: a child of ours.
            #[allow(unsafe_code)]
            unsafe {
                libc::waitpid(pid as i32, std::ptr::null_mut(), 0)
            };
        }
    }
    crate::sync::reap();
    assert_eq!(super::everybody(), [me]);
}

#[test]
fn forks_of_foreign_code_take_part_as_themselves() {
    isolated(foreign_fork);
}

/// All that happens around a fork, and no fork.
#[crate::task]
fn fork_that_fails() {
    let object = bytes(0);
    let used = || {
        crate::sync::reap();
        let census = super::family_census();
        (census.participants, census.holders)
    };
    let before = used();
    for _ in 0..2 * super::Id::SLOTS {
        super::copying(|| (false, ()));
    }
    assert_eq!(used(), before);
    drop(object);
}

#[test]
fn a_fork_that_fails_gives_its_slot_back() {
    isolated(fork_that_fails);
}

#[crate::task]
fn fills_up() {
    let mut kept = Vec::new();
    let error = loop {
        match Shared::<Bytes>::new(1 << 20, std::panic::Location::caller(), |_, _| {}) {
            Ok(object) => kept.push(object),
            Err(error) => break error,
        }
    };
    assert!(error.is_full() && kept.len() >= 100, "{error} after {}", kept.len());
    kept.pop();
    kept.push(bytes(1 << 20));
    let too_large = Shared::<Bytes>::new(usize::MAX, std::panic::Location::caller(), |_, _| {});
    assert!(too_large.unwrap_err().is_full());
}

#[test]
fn a_full_arena_is_an_error() {
    isolated(fills_up);
}

#[test]
fn a_handle_that_outlived_its_object_is_refused() {
    isolated(stale_handles);
}

#[crate::task]
fn stale_handles() {
    let (_, first) = (get().unwrap(), bytes(0));
    let (offset, _) = (first.offset(), me().unwrap());
    let stale = super::outgoing(|| postcard::to_stdvec(&first).unwrap()).0;
    assert!(postcard::from_bytes::<Shared<Bytes>>(&stale).is_ok());
    drop(first);
    let second = bytes(0);
    if second.offset() == offset {
        assert!(postcard::from_bytes::<Shared<Bytes>>(&stale).is_err());
    }
    for garbage in [[0u8; 8], [255; 8], [1, 2, 3, 4, 5, 6, 7, 8]] {
        assert!(postcard::from_bytes::<Shared<Bytes>>(&garbage).is_err());
    }
    assert!(postcard::to_stdvec(&second).is_err(), "only among the arguments of a task");
}
