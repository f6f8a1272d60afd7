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

/// Lets go of the object, and frees it if nobody knows it: what dropping a last handle is.
fn releases(object: &Chunk, me: u32, is_carried: impl Fn() -> bool) -> bool {
    object.block.let_go(id(me).slot());
    frees(object, me, is_carried)
}

fn frees(object: &Chunk, me: u32, is_carried: impl Fn() -> bool) -> bool {
    let Some(look) = object.block.look(7) else { return false };
    let is_known = object.block.is_held() || (look.travels() && is_carried());
    !is_known && object.block.claim(look, id(me))
}

fn nowhere() -> bool {
    false
}

#[test]
fn an_object_is_freed_once_and_by_nobody_who_holds_it() {
    check(5, || {
        let object = object();
        object.block.hold(id(2).slot());
        let other = Arc::clone(&object);
        let second = thread::spawn(move || releases(&other, 2, nowhere));
        let first = releases(&object, 1, nowhere);
        let second = second.join().unwrap();
        assert!(first != second, "exactly one of two that let go at the same time frees");
    });
}

#[test]
fn who_comes_too_late_finds_nothing_and_who_comes_in_time_keeps_it() {
    check(5, || {
        let object = object();
        let other = Arc::clone(&object);
        let comes = thread::spawn(move || other.block.hold_if(id(2).slot(), 7));
        let freeing = releases(&object, 1, nowhere);
        if comes.join().unwrap() {
            assert!(!freeing && object.block.state() == State::Live(7));
            assert!(object.block.is_held_by(id(2).slot()));
        } else {
            assert!(freeing && object.block.state() == State::Freeing(id(1)));
            assert!(!object.block.is_held());
        }
    });
}

/// An object, and two messages that may carry a handle of it.
#[derive(Clone)]
struct Travels {
    object: Arc<Chunk>,
    messages: Arc<[AtomicU64; 2]>,
}

/// What a message is.
const NONE: u64 = 0;
const MADE: u64 = 1;
const COMMITTED: u64 = 2;
const TAKEN: u64 = 3;

impl Travels {
    fn new() -> Travels {
        Travels { object: object(), messages: Arc::new([AtomicU64::new(NONE), AtomicU64::new(NONE)]) }
    }

    /// Looks at one message after the other.
    fn is_carried(&self) -> bool {
        self.messages.iter().any(|message| message.load(Ordering::SeqCst) != NONE)
    }

    /// By a holder.
    fn put(&self, message: usize) {
        self.messages[message].store(MADE, Ordering::SeqCst);
        assert!(self.object.block.announce(7, true));
        self.messages[message].store(COMMITTED, Ordering::SeqCst);
    }

    /// If it is there; true if this frees the object.
    fn get(&self, message: usize, me: u32) -> Option<bool> {
        let word = &self.messages[message];
        word.compare_exchange(COMMITTED, TAKEN, Ordering::SeqCst, Ordering::SeqCst).ok()?;
        assert!(self.object.block.hold_if(id(me).slot(), 7), "the message carries it, and it is gone");
        word.store(NONE, Ordering::SeqCst);
        Some(self.frees(me))
    }

    fn frees(&self, me: u32) -> bool {
        frees(&self.object, me, || self.is_carried())
    }

    fn releases(&self, me: u32) -> bool {
        assert!(matches!(self.object.block.state(), State::Live(7)), "freed while somebody holds it");
        releases(&self.object, me, || self.is_carried())
    }
}

#[test]
fn an_object_that_only_a_message_knows_is_there_until_that_is_got_and_dropped() {
    check(4, || {
        let travels = Travels::new();
        let there = travels.clone();
        let consumer = thread::spawn(move || match there.get(0, 2) {
            Some(freed) => {
                assert!(!freed, "it is held");
                u32::from(there.releases(2))
            }
            None => 0,
        });
        travels.put(0);
        let mut freed = u32::from(travels.releases(1));
        freed += consumer.join().unwrap();
        if travels.is_carried() {
            assert_eq!(freed, 0, "freed while a message carries it");
            assert_eq!(travels.get(0, 3), Some(false));
            freed += u32::from(travels.releases(3));
        }
        assert_eq!(freed, 1, "freed once");
    });
}

#[test]
fn an_object_that_goes_from_message_to_message_is_found_by_whoever_looks() {
    check(4, || {
        let travels = Travels::new();
        travels.put(1);
        let there = travels.clone();
        // It is got from the second and put into the first, while somebody looks at the first and then at the second.
        let mover = thread::spawn(move || {
            let freed = there.get(1, 2).map(|_| {
                there.put(0);
                there.releases(2)
            });
            u32::from(freed == Some(true))
        });
        let mut freed = u32::from(travels.releases(1));
        freed += mover.join().unwrap();
        assert_eq!(freed, 0, "freed while a message carries it");
        assert_eq!(travels.get(0, 3), Some(false));
        assert!(travels.releases(3), "not freed at all");
    });
}
