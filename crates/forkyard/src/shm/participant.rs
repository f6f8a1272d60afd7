//! The process table: who is in the family, who is dead, and what everybody's threads wait for.
//!
//! README.md beside this file has the phases. A page is written by its own process, but for `phase`, which changes by CAS, and `life`,
//! which the kernel marks. A sleeper sets a bit in `life` (see [`watch`](super::watch)).
//!
//! Killed here: before `life` names a thread, the slot names its maker's pid; from there on the kernel tells.

use forkyard_sys::{Errno, robust, thread};

use super::arena::{self, Arena};
use super::life::{Id, Life, Lives, OWNER_DIED};
use super::safe::ShmAtomic;
use super::{local, wait};
use crate::error::{Error, Kind, Result};
use crate::primitive::{AtomicU32, AtomicU64, Ordering};

/// The flag of a participant that ends with its parent.
const DAEMON: u64 = 1;
/// So many slots are used before one is used again.
const FEW: u32 = 16;
/// Bytes of a participant's name.
const NAME: usize = 64;

/// A participant's page.
#[repr(C, align(4096))]
pub(crate) struct Page {
    phase: AtomicU64,
    pid: AtomicU32,
    parent: AtomicU32,
    /// Since when it takes part: nanoseconds on the monotonic clock.
    since: AtomicU64,
    /// The pid namespace that `pid` counts in: its inode.
    namespace: AtomicU64,
    flags: AtomicU64,
    pub(super) visits: AtomicU64,
    unused: [AtomicU64; 2],
    name: [AtomicU64; NAME / 8],
    pub(super) waits: wait::Cells,
    unused_too: [AtomicU64; (robust::WORD - 128 - size_of::<wait::Cells>()) / 8],
    life: AtomicU32,
    /// glibc keeps a link of this process's list in the last eight bytes, and nobody reads it.
    unused_last: [AtomicU32; 7],
}

// SAFETY: atomics only, `repr(C)` without gaps, all-zero is a free slot.
#[allow(unsafe_code)]
unsafe impl ShmAtomic for Page {}
const _: () = assert!(size_of::<Page>() == 4096);
const _: () = assert!(std::mem::offset_of!(Page, life) == robust::WORD);

/// What a slot is used for; with the incarnation, which each process that takes the slot counts up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Free,
    /// The process of this pid is taking it.
    Joining(u32),
    /// This participant keeps it for a fork of it.
    Expected(Id),
    Live,
    /// Its process is dead, and this participant cleans up.
    Reaping(Id),
}

fn word(phase: Phase, incarnation: u32) -> u64 {
    let (kind, argument) = match phase {
        Phase::Free => (0, 0),
        Phase::Joining(pid) => (1, pid),
        Phase::Expected(id) => (2, id.bits()),
        Phase::Live => (3, 0),
        Phase::Reaping(id) => (4, id.bits()),
    };
    kind | u64::from(argument & Id::MASK) << 4 | u64::from(incarnation) << 32
}

/// `None` for a word that is none of ours: somebody scribbled, and the slot is lost.
fn of_word(word: u64) -> Option<(Phase, u32)> {
    let argument = (word >> 4) as u32 & Id::MASK;
    let phase = match (word & 15, Id::of_word(argument)) {
        (0, _) => Phase::Free,
        (1, _) => Phase::Joining(argument),
        (2, Some(id)) => Phase::Expected(id),
        (3, _) => Phase::Live,
        (4, Some(id)) => Phase::Reaping(id),
        _ => return None,
    };
    Some((phase, (word >> 32) as u32))
}

impl Page {
    fn phase(&self) -> Option<(Phase, u32)> {
        of_word(self.phase.load(Ordering::SeqCst))
    }

    fn change(&self, incarnation: u32, from: Phase, to: Phase, next: u32) -> bool {
        let (from, to) = (word(from, incarnation), word(to, next));
        self.phase.compare_exchange(from, to, Ordering::SeqCst, Ordering::SeqCst).is_ok()
    }

    /// True if whoever has the slot, or was about to have it, is dead.
    fn is_dead(&self, phase: Phase) -> bool {
        let marked = || self.life.load(Ordering::SeqCst) & OWNER_DIED != 0;
        match phase {
            Phase::Live => marked(),
            Phase::Reaping(id) | Phase::Expected(id) => Family.is_dead(id),
            Phase::Joining(pid) => marked() || is_gone(self, pid),
            Phase::Free => false,
        }
    }

    fn name(&self) -> String {
        let bytes: Vec<u8> =
            self.name.iter().flat_map(|cell| cell.load(Ordering::Relaxed).to_le_bytes()).collect();
        let text = bytes.split(|&byte| byte == 0).next().unwrap_or_default();
        String::from_utf8_lossy(text).into_owned()
    }

    fn set_name(&self, name: &str) {
        let mut end = name.len().min(NAME);
        while !name.is_char_boundary(end) {
            end -= 1;
        }
        let mut bytes = [0; NAME];
        bytes[..end].copy_from_slice(&name.as_bytes()[..end]);
        for (cell, part) in self.name.iter().zip(bytes.chunks(8)) {
            cell.store(part.try_into().map_or(0, u64::from_le_bytes), Ordering::Relaxed);
        }
    }
}

/// The calling thread, as the family knows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Me {
    /// Its process.
    pub(crate) id: Id,
    /// Its thread id.
    pub(crate) thread: u32,
}

/// The calling thread, in the family; its process joins now if it has not yet.
///
/// # Errors
/// The family has too many members; there is no memory for one more; or the arena is another build's.
#[inline]
pub(crate) fn me() -> Result<Me> {
    match known() {
        Some(me) => Ok(me),
        None => me_anew(),
    }
}

/// The calling thread, if it has been in the family before: for paths that are too short for an error.
#[inline]
pub(crate) fn known() -> Option<Me> {
    // Whom this thread last knew itself to be, and above that its thread id then.
    let (now, noted) = (robust::identity().load(Ordering::Acquire), thread::noted());
    if now == noted as u32 {
        // Of the note alone: so a lock's word is the note, as it is.
        Id::of_note(noted as u32).map(|id| Me { id, thread: (noted >> 32) as u32 })
    } else {
        None
    }
}

#[cold]
fn me_anew() -> Result<Me> {
    let id = match Id::of_word(robust::identity().load(Ordering::Acquire)) {
        Some(id) => id,
        None => super::join::join()?,
    };
    let thread = thread::own_tid().as_raw_nonzero().get().unsigned_abs();
    thread::note(u64::from(thread) << 32 | u64::from(id.bits()));
    Ok(Me { id, thread })
}

/// True if this is the process of that participant.
#[inline]
pub(crate) fn is_here(id: Id) -> bool {
    robust::identity().load(Ordering::Acquire) == id.bits()
}

/// This process's place in the family, if it takes part.
#[inline]
pub(crate) fn joined() -> Option<Id> {
    Id::of_word(robust::identity().load(Ordering::Acquire))
}

/// Who lives, as the process table has it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Family;

impl Lives for Family {
    fn life(&self, id: Id) -> Life<'_> {
        match arena::existing().and_then(|arena| living(arena, id)) {
            Some(page) => Life::Alive(&page.life),
            None => Life::Dead,
        }
    }

    fn suspect(&self, id: Id) {
        suspect(id);
    }

    fn tidy(&self) {
        if any_dead() {
            super::join::reap();
        }
    }
}

/// The page of a participant that lives.
fn living(arena: &'static Arena, id: Id) -> Option<&'static Page> {
    if id.slot() >= arena.pages() {
        return None;
    }
    let page = arena.page(id.slot())?;
    let (phase, incarnation) = page.phase()?;
    let alive = phase == Phase::Live && Id::new(id.slot(), incarnation) == Some(id);
    (alive && page.life.load(Ordering::Acquire) & OWNER_DIED == 0).then_some(page)
}

/// Who a participant is, for people.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Who {
    pub(crate) id: Id,
    pub(crate) name: String,
    pub(crate) pid: u32,
    pub(crate) parent: u32,
    /// True if it ends with its parent.
    pub(crate) daemon: bool,
}

/// Who this participant is, dead or alive, as long as nobody has taken its slot.
pub(crate) fn who(id: Id) -> Option<Who> {
    let page = page_of(id)?;
    let who = Who {
        id,
        name: page.name(),
        pid: page.pid.load(Ordering::Relaxed),
        parent: page.parent.load(Ordering::Relaxed),
        daemon: page.flags.load(Ordering::Relaxed) & DAEMON != 0,
    };
    Some(who)
}

/// The page of this participant, while the slot is its own.
pub(super) fn page_of(id: Id) -> Option<&'static Page> {
    let arena = arena::existing()?;
    if id.slot() >= arena.pages() {
        return None;
    }
    let page = arena.page(id.slot())?;
    let (_, incarnation) = page.phase()?;
    (Id::new(id.slot(), incarnation) == Some(id)).then_some(page)
}

/// Every participant that lives.
pub(crate) fn everybody() -> Vec<Id> {
    let Some(arena) = arena::existing() else { return Vec::new() };
    let ids = (0..arena.pages()).filter_map(|slot| {
        let (phase, incarnation) = arena.page(slot)?.phase()?;
        let id = Id::new(slot, incarnation)?;
        (phase == Phase::Live && living(arena, id).is_some()).then_some(id)
    });
    ids.collect()
}

/// The participant that lives and has this process id.
pub(crate) fn of_pid(pid: u32) -> Option<Id> {
    everybody().into_iter().find(|&id| who(id).is_some_and(|who| who.pid == pid))
}

/// How many slots are not free.
pub(super) fn taken_slots(arena: &'static Arena) -> usize {
    let taken = |page: &&Page| !matches!(page.phase(), Some((Phase::Free, _)));
    (0..arena.pages()).filter_map(|slot| arena.page(slot)).filter(taken).count()
}

/// Takes a slot for this process. `ENOSPC`: there is none.
pub(super) fn take_slot(arena: &'static Arena, pid: u32) -> forkyard_sys::Result<(u32, u32)> {
    let hint = &arena.header().next_slot;
    loop {
        let pages = arena.pages();
        // All in turn, and never the first few only: what the page says of a dead participant is told to whoever asks who had died.
        let start = hint.load(Ordering::Relaxed).min(pages);
        let again = if pages < FEW { start } else { 0 };
        for slot in (start..pages).chain(again..start) {
            let Some(page) = arena.page(slot) else { break };
            if let Some((Phase::Free, incarnation)) = page.phase() {
                let next = incarnation.wrapping_add(1);
                if page.change(incarnation, Phase::Free, Phase::Joining(pid), next) {
                    hint.store(slot + 1, Ordering::Relaxed);
                    return Ok((slot, next));
                }
            }
        }
        if pages >= Id::SLOTS {
            return Err(Errno::NOSPC);
        }
        arena.commit_page(pages)?;
    }
}

/// Keeps a slot for a fork of this participant; with its incarnation.
pub(super) fn expect(arena: &'static Arena, me: Id) -> Option<(u32, u32)> {
    let pid = std::process::id();
    let (slot, incarnation) = take_slot(arena, pid).ok()?;
    let page = arena.page(slot)?;
    page.change(incarnation, Phase::Joining(pid), Phase::Expected(me), incarnation)
        .then_some((slot, incarnation))
}

/// Takes the slot that the parent has kept; false if it is no longer kept.
pub(super) fn take_expected(
    arena: &'static Arena,
    parent: Id,
    slot: u32,
    incarnation: u32,
    pid: u32,
) -> bool {
    let page = arena.page(slot);
    page.is_some_and(|page| {
        page.change(incarnation, Phase::Expected(parent), Phase::Joining(pid), incarnation)
    })
}

/// A slot that this participant kept, and that nobody took: the caller cleans up now.
pub(super) fn claim_expected(arena: &'static Arena, me: Id, slot: u32, incarnation: u32) -> Option<Id> {
    let claimed = arena.page(slot)?.change(incarnation, Phase::Expected(me), Phase::Reaping(me), incarnation);
    if claimed { Id::new(slot, incarnation) } else { None }
}

/// Makes a slot that was taken the place of this process. `None`: somebody gave it away meanwhile, so take another.
pub(super) fn settle(
    arena: &'static Arena,
    slot: u32,
    incarnation: u32,
    (name, daemon): (&str, bool),
) -> forkyard_sys::Result<Option<Id>> {
    let pid = std::process::id();
    let (Some(page), Some(id)) = (arena.page(slot), Id::new(slot, incarnation)) else { return Ok(None) };
    page.pid.store(pid, Ordering::Relaxed);
    page.parent.store(
        forkyard_sys::prctl::parent().map_or(0, |pid| pid.as_raw_nonzero().get().unsigned_abs()),
        Ordering::Relaxed,
    );
    page.since.store(forkyard_sys::time::monotonic_ns(), Ordering::Relaxed);
    page.namespace.store(forkyard_sys::pidfd::namespace().unwrap_or(0), Ordering::Relaxed);
    page.set_name(name);
    page.flags.store(if daemon { DAEMON } else { 0 }, Ordering::Relaxed);
    page.waits.clear();
    page.visits.store(0, Ordering::SeqCst);
    let thread = robust::hold(arena.page_address(slot))?;
    let first = page.life.compare_exchange(0, thread, Ordering::SeqCst, Ordering::SeqCst);
    Ok((first.is_ok() && page.change(incarnation, Phase::Joining(pid), Phase::Live, incarnation))
        .then_some(id))
}

/// True if somebody has to be cleaned up after.
pub(crate) fn any_dead() -> bool {
    let Some(arena) = arena::existing() else { return false };
    (0..arena.pages()).any(|slot| {
        let Some(page) = arena.page(slot) else { return false };
        page.phase().is_some_and(|(phase, _)| page.is_dead(phase))
    })
}

/// A dead participant that the caller may clean up now, and nobody else does.
pub(crate) fn claim_dead(me: Id) -> Option<Id> {
    let arena = arena::existing()?;
    (0..arena.pages()).find_map(|slot| {
        let page = arena.page(slot)?;
        let (phase, incarnation) = page.phase()?;
        let claimed = page.is_dead(phase) && page.change(incarnation, phase, Phase::Reaping(me), incarnation);
        claimed.then(|| Id::new(slot, incarnation)).flatten()
    })
}

/// Gives back the slot of a participant that the caller has cleaned up.
pub(crate) fn bury(dead: Id, me: Id) {
    let Some(page) = page_of(dead) else { return };
    let Some((_, incarnation)) = page.phase() else { return };
    page.waits.clear();
    page.visits.store(0, Ordering::SeqCst);
    page.namespace.store(0, Ordering::Relaxed);
    page.life.store(0, Ordering::SeqCst);
    page.change(incarnation, Phase::Reaping(me), Phase::Free, incarnation);
}

/// True if the process that was taking a slot has ended; as far as its number says something here.
fn is_gone(page: &Page, pid: u32) -> bool {
    let there = page.namespace.load(Ordering::Relaxed);
    let same = there == 0 || forkyard_sys::pidfd::namespace() == Some(there);
    same && forkyard_sys::pidfd::is_gone(pid)
}

/// Marks a participant as dead if its process is gone and the kernel has not told: no list could be walked there.
fn suspect(id: Id) {
    let Some(page) = arena::existing().and_then(|arena| living(arena, id)) else { return };
    let pid = page.pid.load(Ordering::Relaxed);
    if is_gone(page, pid) {
        page.life.fetch_or(OWNER_DIED, Ordering::SeqCst);
        crate::primitive::wake(&page.life, u32::MAX);
    }
}

/// Why this process cannot take part.
pub(super) fn refused(errno: Errno) -> Error {
    let what = "take part in the family's shared memory";
    if errno == Errno::NOSPC {
        let why = format!("{} processes already do, which is the most; end some, or use fewer", Id::SLOTS);
        return Error::new(what, Kind::Full(why));
    }
    Error::os(what, errno)
}

/// Says what this process is called in the table, and whether it ends with its parent.
pub(crate) fn introduce(name: &str, daemon: bool) {
    if let Some(page) = joined().and_then(page_of) {
        page.set_name(name);
        page.flags.store(if daemon { DAEMON } else { 0 }, Ordering::Relaxed);
    }
    local::introduce(name, daemon);
}
