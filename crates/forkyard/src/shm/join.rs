//! Joining the family, and what happens around a fork.
//!
//! Before a fork the parent takes a slot for the child and has it hold all that the parent holds; the child makes the slot its own
//! before it runs anything else. A copy that was made without glibc's knowledge joins at its first use, and then holds what is still there.
//!
//! Killed here: the parent between its hooks: whoever finds it dead frees the slot. The child in its hook: the same, by its pid; before that
//! its parent, at its next fork or when it next cleans up (expected.rs).

use std::cell::RefCell;
use std::io::PipeWriter;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Once, OnceLock};

use forkyard_sys::{Errno, clone, robust};

use super::arena::{self, Arena};
use super::expected::{self, Fork, Forks};
use super::life::Id;
use super::local::{self, List};
use super::participant::{expect, joined, refused, settle, take_expected, take_slot};
use crate::error::{Error, Kind, Result};

/// How often a slot may be taken away again before it is an error.
const ATTEMPTS: usize = 10;

/// The slot that is kept for the fork that is being made (number and incarnation), and for whose; 0: none.
static EXPECTED: AtomicU64 = AtomicU64::new(0);
static EXPECTED_BY: AtomicU64 = AtomicU64::new(0);
/// A copy found that objects are gone which it has handles of.
static LOST: AtomicBool = AtomicBool::new(false);
/// Cleans up after the dead; true if there was something. It lies in the layer that knows how to repair what they held.
static REAPER: OnceLock<fn() -> bool> = OnceLock::new();

thread_local! {
    /// What is locked over a fork, and the one that is being made, if a slot is kept for it.
    static HELD: RefCell<Option<Held>> = const { RefCell::new(None) };
}

/// The list of handles, the list of forks, and the next one of these, with what its child keeps of it.
type Held = (List, Forks, Option<(Fork, PipeWriter)>);

/// Says who cleans up after the dead.
pub(crate) fn set_reaper(reaper: fn() -> bool) {
    let _ = REAPER.set(reaper);
}

/// Cleans up after the dead; true if there was something.
pub(super) fn reap() -> bool {
    REAPER.get().is_some_and(|reaper| reaper())
}

/// Makes this process a participant.
#[cold]
pub(super) fn join() -> Result<Id> {
    if LOST.load(Ordering::Relaxed) {
        return Err(lost());
    }
    let arena = arena::get()?;
    if arena.is_observed() {
        return Err(refused(Errno::ROFS));
    }
    robust::wipe_in_forks().map_err(refused)?;
    let _gate = Gate::lock();
    if let Some(id) = joined() {
        return Ok(id);
    }
    register_hooks()?;
    let pid = std::process::id();
    let (name, daemon) = local::introduction();
    for _ in 0..ATTEMPTS {
        let kept = take_kept(arena, pid);
        let (slot, incarnation) = match kept {
            Some(taken) => taken,
            None => take_any(arena, pid)?,
        };
        let Some(id) = settle(arena, slot, incarnation, (&name, daemon)).map_err(refused)? else { continue };
        if kept.is_none() {
            hold_inherited(id)?;
        }
        robust::identity().store(id.bits(), Ordering::Release);
        return Ok(id);
    }
    Err(refused(Errno::AGAIN))
}

fn take_any(arena: &'static Arena, pid: u32) -> Result<(u32, u32)> {
    match take_slot(arena, pid) {
        Err(Errno::NOSPC) if reap() => take_slot(arena, pid).map_err(refused),
        taken => taken.map_err(refused),
    }
}

/// In a fork: the slot that the parent has kept.
fn take_kept(arena: &'static Arena, pid: u32) -> Option<(u32, u32)> {
    let slot = EXPECTED.swap(0, Ordering::Relaxed);
    let parent = Id::of_word(EXPECTED_BY.load(Ordering::Relaxed) as u32)?;
    let (slot, incarnation) = ((slot as u32).checked_sub(1)?, (slot >> 32) as u32);
    take_expected(arena, parent, slot, incarnation, pid).then_some((slot, incarnation))
}

/// In a copy that nobody kept a slot for: holds what it has handles of, if all of it is still there.
fn hold_inherited(me: Id) -> Result<()> {
    let Some(arena) = arena::existing() else { return Ok(()) };
    let _visit = arena.visit(me);
    for held in local::list().values() {
        let there = arena.block_at(held.found.offset).filter(|found| found.size == held.found.size);
        if !there.is_some_and(|found| found.block.hold_if(me.slot(), held.generation)) {
            LOST.store(true, Ordering::Relaxed);
            return Err(lost());
        }
    }
    Ok(())
}

fn lost() -> Error {
    let why = "this process is a copy that was made without the C library's fork, and what it shared was freed meanwhile";
    Error::new("use shared objects in a fork", Kind::Gone(why.to_owned()))
}

fn register_hooks() -> Result<()> {
    static ONCE: Once = Once::new();
    let mut registered = Ok(());
    ONCE.call_once(|| registered = clone::at_fork(before, in_parent, in_child));
    registered.map_err(refused)
}

/// Runs the hooks around a copy that is made without the C library's fork.
pub(crate) fn copying<T>(make: impl FnOnce() -> (bool, T)) -> T {
    before();
    let (copy, made) = make();
    if copy {
        in_child()
    } else {
        in_parent()
    }
    made
}

extern "C" fn before() {
    if expected::any_over() {
        reap();
    }
    let list = local::list();
    let mut fork = None;
    if let (Some(me), Some(arena), false) = (joined(), arena::existing(), list.is_empty()) {
        // Without a free slot the child takes its chance.
        if let Some((slot, incarnation)) = expect(arena, me) {
            for held in list.values() {
                held.found.block.hold(slot);
                held.found.block.announce(held.generation, false);
            }
            EXPECTED_BY.store(me.bits().into(), Ordering::Relaxed);
            EXPECTED.store(u64::from(incarnation) << 32 | u64::from(slot + 1), Ordering::Relaxed);
            fork = expected::expecting(slot, incarnation);
        }
    }
    HELD.set(Some((list, expected::forks(), fork)));
}

extern "C" fn in_parent() {
    EXPECTED.store(0, Ordering::Relaxed);
    if let Some((_list, mut forks, Some((fork, _child)))) = HELD.take() {
        forks.push(fork);
    }
}

extern "C" fn in_child() {
    let mut held = HELD.take();
    if let Some((_, forks, _)) = &mut held {
        // They are the parent's.
        forks.clear();
    }
    let _coming = held.and_then(|(_, _, fork)| fork);
    if EXPECTED.load(Ordering::Relaxed) != 0 {
        // What fails here is told at the first use.
        let _ = join();
    }
}

/// A lock that no thread of a parent leaves locked in its fork: its word is wiped there.
struct Gate;

impl Gate {
    fn lock() -> Gate {
        while robust::gate().compare_exchange(0, 1, Ordering::Acquire, Ordering::Relaxed).is_err() {
            std::thread::yield_now();
        }
        Gate
    }
}

impl Drop for Gate {
    fn drop(&mut self) {
        robust::gate().store(0, Ordering::Release);
    }
}
