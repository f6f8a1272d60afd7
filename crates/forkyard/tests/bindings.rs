//! What bindings for other languages use: memory that the family keeps, and messages that are looked at where they lie.

#![allow(
    unsafe_code,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test fails by a panic; each unsafe block has its own reason"
)]

mod common;

use common::{isolated, kill, own_pid};
use forkyard::__private::channel::Patience;
use forkyard::__private::{KeptMemory, family_census};
use forkyard::channel::ByteQueue;
use forkyard::process;
use forkyard::sync::Event;

const SIZE: usize = 100_000;

fn errno(error: &forkyard::Error) -> i32 {
    error.errno().expect("an error of the system").raw_os_error()
}

fn byte(memory: &KeptMemory, at: usize) -> *mut u8 {
    assert!(at < memory.size());
    memory.as_ptr().wrapping_add(at)
}

#[forkyard::task]
fn makes(name: String, made: Event) {
    let memory = KeptMemory::create(&name, SIZE, "test").unwrap();
    // SAFETY: in the memory.
    unsafe { byte(&memory, SIZE - 1).write(7) };
    made.set().unwrap();
    kill(own_pid(), libc::SIGKILL);
}

#[forkyard::task]
fn kept() {
    let before = family_census().objects;
    let made = Event::new().unwrap();
    let maker = process::spawn(makes, ("kept".to_owned(), made.clone())).unwrap();
    made.wait().unwrap();
    let _ = maker.join();
    let memory = KeptMemory::attach("/kept").unwrap();
    assert_eq!(memory.size(), SIZE);
    // SAFETY: in the memory.
    assert_eq!(unsafe { (byte(&memory, 0).read(), byte(&memory, SIZE - 1).read()) }, (0, 7));
    assert_eq!(errno(&KeptMemory::create("kept", 1, "test").unwrap_err()), libc::EEXIST);
    memory.unlink().unwrap();
    assert_eq!(errno(&memory.unlink().unwrap_err()), libc::ENOENT);
    assert_eq!(errno(&KeptMemory::attach("kept").unwrap_err()), libc::ENOENT);
    let again = KeptMemory::create("kept", 1, "test").unwrap();
    // SAFETY: in the memory, which is there as long as the handle.
    assert_eq!(unsafe { byte(&memory, SIZE - 1).read() }, 7);
    again.unlink().unwrap();
    drop((memory, again, made));
    assert!(family_census().objects <= before);
}

#[test]
fn memory_is_kept_when_its_maker_is_killed_and_gone_when_it_is_unlinked_and_dropped() {
    isolated(kept);
}

#[test]
fn a_view_is_this_processes_own_and_stays_as_it_is() {
    let queue = ByteQueue::unbounded().unwrap();
    queue.put(&[1; SIZE]).unwrap();
    let taken = queue.take(Patience::Look).unwrap();
    let view = taken.map().unwrap();
    // It has been looked at, and goes back all the same.
    // SAFETY: in the view.
    unsafe { view.address().write(9) };
    drop((view, taken));
    let taken = queue.take(Patience::Look).unwrap();
    let view = taken.map().unwrap();
    assert_eq!(view.len(), SIZE);
    // SAFETY: in the view.
    assert_eq!(unsafe { view.address().read() }, 1);
    taken.deliver(&view);
    for _ in 0..50 {
        queue.put(&[2; SIZE]).unwrap();
        assert_eq!(queue.get().unwrap()[SIZE / 2], 2);
    }
    let bytes = |from: usize, to: usize| {
        // SAFETY: in the view.
        (from..to).all(|at| unsafe { view.address().wrapping_add(at).read() } == 1)
    };
    assert!(bytes(0, SIZE / 2));
    view.detach();
    assert!(bytes(0, SIZE));
}
