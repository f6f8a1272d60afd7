//! Models of the allocator: taking a block of a chunk that is being closed, and holding an object that is being let go.

use loom::sync::Arc;
use loom::sync::atomic::{AtomicU64, Ordering};
use loom::thread;

use crate::family::{check, id};
use crate::shm::{Block, Entry, State, Use};

const CLASS: u32 = 3;

/// A chunk with one block.
#[derive(Default)]
struct Chunk {
    entry: Entry,
    block: Block,
}

fn chunk() -> Arc<Chunk> {
    let chunk = Arc::new(Chunk::default());
    chunk.entry.set(Use::Blocks(CLASS));
    chunk
}

fn closes(chunk: &Chunk, me: crate::shm::Id) -> bool {
    chunk.entry.close(me, CLASS, || chunk.block.change(State::Free, State::Freeing(me)))
}

#[test]
fn nobody_has_a_block_of_a_chunk_that_was_closed() {
    check(5, || {
        let chunk = chunk();
        let other = Arc::clone(&chunk);
        let taker = thread::spawn(move || other.entry.take(&other.block, 0, CLASS, id(1)));
        let closed = closes(&chunk, id(2));
        let taken = taker.join().unwrap();
        assert!(!(taken && closed), "taken and closed");
        match (taken, closed) {
            (true, _) => assert_eq!(chunk.block.state(), State::Building(id(1))),
            (false, true) => assert_eq!(chunk.entry.get(), Use::Turning(id(2), CLASS)),
            // They met: each gave way to the other, and nothing has changed.
            (false, false) => assert_eq!(chunk.entry.get(), Use::Blocks(CLASS)),
        }
        assert!(taken || closed || chunk.block.state() == State::Free);
    });
}

#[test]
fn nobody_writes_into_a_chunk_that_is_used_for_something_else() {
    check(5, || {
        let chunk = chunk();
        let visits = Arc::new(AtomicU64::new(0));
        let (other, visited) = (Arc::clone(&chunk), Arc::clone(&visits));
        let taker = thread::spawn(move || {
            visited.fetch_add(1, Ordering::SeqCst);
            let there = other.entry.get() == Use::Blocks(CLASS);
            let taken = there && other.entry.take(&other.block, 0, CLASS, id(1));
            visited.fetch_sub(1, Ordering::SeqCst);
            taken
        });
        let me = id(2);
        let mut used = false;
        if closes(&chunk, me) {
            // Its memory is given back.
            chunk.block.set(State::Free);
            chunk.entry.set(Use::Idle(CLASS));
            used = chunk.entry.claim(me, || visits.load(Ordering::SeqCst) == 0);
        }
        if used {
            // From here on that is somebody's payload, which happens to be zero.
            assert_eq!(chunk.block.state(), State::Free);
            assert!(chunk.block.change(State::Free, State::Garbled), "a visitor wrote");
        }
        assert!(!(taker.join().unwrap() && used), "taken and used");
        if used {
            assert_eq!(chunk.block.state(), State::Garbled, "a visitor wrote");
        }
    });
}

#[test]
fn a_block_is_taken_once_and_marked_as_it_is() {
    check(5, || {
        let chunk = chunk();
        let other = Arc::clone(&chunk);
        let taker = thread::spawn(move || {
            let taken = other.entry.take(&other.block, 0, CLASS, id(1));
            if taken {
                // And freed again, as its owner does.
                other.entry.mark(0, false);
                other.block.set(State::Free);
            }
            taken
        });
        let taken = chunk.entry.take(&chunk.block, 0, CLASS, id(2));
        let by_other = taker.join().unwrap();
        assert!(taken || by_other);
        assert_eq!(chunk.entry.is_empty(), !taken, "the mark is that of the one that has it");
    });
}

/// An object that participant 1 holds.
fn object() -> Arc<Chunk> {
    let chunk = chunk();
    assert!(chunk.entry.take(&chunk.block, 0, CLASS, id(1)));
    chunk.block.hold(id(1).slot());
    chunk.block.set(State::Live(7));
    chunk
}

#[test]
fn an_object_is_freed_once_and_by_nobody_who_holds_it() {
    check(5, || {
        let object = object();
        object.block.hold(id(2).slot());
        let other = Arc::clone(&object);
        let second = thread::spawn(move || other.block.release(id(2).slot(), 7, id(2)));
        let first = object.block.release(id(1).slot(), 7, id(1));
        let second = second.join().unwrap();
        assert!(first != second, "exactly one of two that let go at the same time frees");
    });
}

#[test]
fn who_comes_too_late_finds_nothing_and_who_comes_in_time_keeps_it() {
    check(5, || {
        let object = object();
        let other = Arc::clone(&object);
        let comes = thread::spawn(move || other.block.hold_if(id(2).slot(), 7, id(2)));
        let freeing = object.block.release(id(1).slot(), 7, id(1));
        match comes.join().unwrap() {
            Ok(()) => {
                assert!(!freeing && object.block.state() == State::Live(7));
                assert!(object.block.is_held_by(id(2).slot()));
            }
            Err(to_free) => {
                assert!(freeing != to_free, "exactly one frees: {freeing} {to_free}");
                assert!(matches!(object.block.state(), State::Freeing(_)));
            }
        }
    });
}
