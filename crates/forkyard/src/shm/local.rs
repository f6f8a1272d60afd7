//! What this process holds of the family's objects: how many handles of each, so that the last one gives up the process's bit.
//!
//! In a fork the list is inherited, and so are the handles: the child holds what its parent held (join.rs). The list is
//! locked over a fork, so that it is whole in the child.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard};

use super::allocate::Found;
use super::arena;
use super::life::Id;
use super::participant::joined;
use crate::sync_std::lock;

/// One object that this process holds.
#[derive(Clone, Copy)]
pub(super) struct Held {
    pub(super) found: Found,
    pub(super) generation: u32,
    handles: usize,
}

static LIST: Mutex<BTreeMap<u64, Held>> = Mutex::new(BTreeMap::new());
static NAME: Mutex<(String, bool)> = Mutex::new((String::new(), false));

/// The list, locked.
pub(super) type List = MutexGuard<'static, BTreeMap<u64, Held>>;

/// Locks the list.
pub(super) fn list() -> List {
    lock(&LIST)
}

/// Holds a new object, before others can find it.
pub(super) fn add(found: Found, generation: u32, me: Id) {
    let mut list = list();
    // Under the lock: another thread that finds its own object gone, which lay there, clears its bit.
    found.block.hold(me.slot());
    list.insert(found.offset, Held { found, generation, handles: 1 });
}

/// Takes one handle more of an object of this generation. `None`: there is no such object any more.
pub(super) fn attach(offset: u64, generation: u32, me: Id) -> Option<Found> {
    let arena = arena::existing()?;
    let mut list = list();
    if let Some(held) = list.get_mut(&offset).filter(|held| held.generation == generation) {
        held.handles += 1;
        return Some(held.found);
    }
    let _visit = arena.visit(me);
    let found = arena.block_at(offset)?;
    found.block.hold_if(me.slot(), generation).then(|| {
        list.insert(offset, Held { found, generation, handles: 1 });
        found
    })
}

/// Drops a handle; the last one lets go of the object, and the last holder frees it.
pub(super) fn detach(offset: u64, generation: u32) {
    let mut list = list();
    let Some(held) = list.get_mut(&offset).filter(|held| held.generation == generation) else { return };
    held.handles -= 1;
    if held.handles > 0 {
        return;
    }
    let found = held.found;
    list.remove(&offset);
    // A fork that has not joined holds nothing of its own.
    let (Some(me), Some(arena)) = (joined(), arena::existing()) else { return };
    let _visit = arena.visit(me);
    // Under the lock: another thread that attaches now must not find its bit cleared.
    found.block.let_go(me.slot());
    drop(list);
    arena.free_unknown(found, generation, me);
}

/// What this process calls itself when it joins, and whether it ends with its parent.
pub(super) fn introduction() -> (String, bool) {
    let (name, daemon) = lock(&NAME).clone();
    if name.is_empty() { (comm(), daemon) } else { (name, daemon) }
}

fn comm() -> String {
    std::fs::read_to_string("/proc/self/comm")
        .map_or_else(|_| "main".to_owned(), |comm| comm.trim_end().to_owned())
}

/// Says what this process calls itself, and whether it ends with its parent.
pub(super) fn introduce(name: &str, daemon: bool) {
    *lock(&NAME) = (name.to_owned(), daemon);
}
