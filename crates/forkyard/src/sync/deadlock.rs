//! Who waits for whom, and circles of that.
//!
//! Each waiting thread stands in the process table, and each lock knows the thread that has it. What is read there is a hint, so the
//! search is done twice: threads that began no other wait in between (each wait has a ticket) have waited all the time, and a waiting
//! thread releases nothing. So a circle that is found twice has existed in between, and only somebody outside could undo it: by releasing
//! a `Lock` that is not its own, or by giving up.
//!
//! All that wait for each other find each other, and the one that began to wait last is told. Killed here: nothing is written.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::fmt;

use super::raw::Holder;
use super::{bounded, owned, rwlock};
use crate::shm::{self, Family, Kind, Lives, Me, ObjectRef, WaitInfo};
use std::sync::atomic::AtomicU64;

/// Most waiting threads that a search looks at.
const MOST: usize = 4096;

/// A circle of threads that wait for each other's locks, one of which has been told, by this.
///
/// The caller gets out of it by releasing what it has. The others just go on waiting.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Deadlock {
    circle: Box<[Blocked]>,
}

/// A thread in a [`Deadlock`].
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Blocked {
    /// Its process's name.
    pub process: String,
    /// Its process.
    pub pid: u32,
    /// The thread, as the kernel numbers it: the first one of a process has the process's pid.
    pub thread: u32,
    /// What it has, and the one before it in the circle waits for.
    pub holds: LockName,
    /// What it waits for, and the next one in the circle has.
    pub waits_for: LockName,
}

/// What is known of a lock.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct LockName {
    /// `Mutex`, `RwLock`, `Lock`, `RLock`, `BoundedSemaphore` or `Once`.
    pub kind: String,
    /// The file and line where it was made.
    pub made_at: String,
}

impl Deadlock {
    /// The threads of the circle; the first is the caller's. Each waits for a lock that the next one has, and the last one for the first
    /// one's.
    #[must_use]
    pub fn circle(&self) -> &[Blocked] {
        &self.circle
    }
}

impl fmt::Display for LockName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the {} made at {}", self.kind, self.made_at)
    }
}

impl fmt::Display for Blocked {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?} (pid {}", self.process, self.pid)?;
        if self.thread != self.pid {
            write!(f, ", thread {}", self.thread)?;
        }
        write!(f, ") has {} and waits for {}", self.holds, self.waits_for)
    }
}

impl fmt::Display for Deadlock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("it would wait for itself: ")?;
        for (at, blocked) in self.circle.iter().enumerate() {
            if at > 0 {
                f.write_str("; ")?;
            }
            write!(f, "{blocked}")?;
        }
        Ok(())
    }
}

impl std::error::Error for Deadlock {}

/// Whom a waiting thread waits for.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Blockers {
    /// The threads that have what it wants.
    pub(super) threads: Vec<Holder>,
    /// It has to wait for one of them only, and for any that is not known.
    pub(super) any: bool,
    /// It may be told of a deadlock.
    pub(super) told: bool,
}

/// A thread that waits.
#[derive(Debug, PartialEq, Eq)]
struct Wait {
    info: WaitInfo,
    blockers: Blockers,
}

/// Thread (participant's id and thread id) → what it waits for.
type Graph = BTreeMap<(u32, u32), Wait>;

/// The circle of waits that the calling thread is in, if it is the one to be told.
pub(super) fn search(me: Me) -> Option<Deadlock> {
    let start = key(me.into());
    let first = blocked(start);
    if !first.contains_key(&start) || first != blocked(start) {
        return None;
    }
    // All that wait for each other choose the same one, also where there are several circles.
    let together = together(&first, start);
    let told = together.iter().filter(|thread| first[thread].blockers.told);
    if told.max_by_key(|thread| first[thread].info.ticket) != Some(&start) {
        return None;
    }
    let circle = circle(&first, start)?;
    let names: Vec<LockName> = circle.iter().map(|thread| name(first[thread].info.object)).collect();
    let blocked = circle.iter().enumerate().map(|(at, thread)| {
        let who = shm::Id::of_word(thread.0).and_then(shm::who);
        let (process, pid) = who.map_or_else(Default::default, |who| (who.name, who.pid));
        // The one before it waits for what it has.
        let before = (at + circle.len() - 1) % circle.len();
        let (holds, waits_for) = (names[before].clone(), names[at].clone());
        Blocked { process, pid, thread: thread.1, holds, waits_for }
    });
    Some(Deadlock { circle: blocked.collect() })
}

fn key(holder: Holder) -> (u32, u32) {
    (holder.id.bits(), holder.thread)
}

/// The threads that this one waits for, directly or not, and that cannot go on unless one of them gives up.
fn blocked(start: (u32, u32)) -> Graph {
    let mut graph = Graph::new();
    let mut next = VecDeque::from([start]);
    while let Some(thread) = next.pop_front() {
        if graph.len() >= MOST || graph.contains_key(&thread) {
            continue;
        }
        if let Some(wait) = wait(thread) {
            next.extend(wait.blockers.threads.iter().map(|blocker| key(*blocker)));
            graph.insert(thread, wait);
        }
    }
    loop {
        let goes_on = |wait: &Wait| {
            let stuck = |blocker: &Holder| graph.contains_key(&key(*blocker));
            let blockers = &wait.blockers;
            if blockers.any {
                !blockers.threads.iter().all(stuck)
            } else {
                !blockers.threads.iter().any(stuck)
            }
        };
        let free: Vec<_> =
            graph.iter().filter(|(_, wait)| goes_on(wait)).map(|(thread, _)| *thread).collect();
        if free.is_empty() {
            return graph;
        }
        free.iter().for_each(|thread| drop(graph.remove(thread)));
    }
}

/// What a thread waits for, if it does.
fn wait(thread: (u32, u32)) -> Option<Wait> {
    let id = shm::Id::of_word(thread.0).filter(|id| !Family.is_dead(*id))?;
    let info = shm::waits_of(id).find(|info| info.thread == thread.1)?;
    let blockers = blockers(shm::object_at(info.object)?, Holder { id, thread: thread.1 })?;
    Some(Wait { info, blockers })
}

/// Who waits for this thread, of those that it waits for: all that are in a circle with it.
fn together(graph: &Graph, start: (u32, u32)) -> BTreeSet<(u32, u32)> {
    let mut together = BTreeSet::new();
    let mut next = VecDeque::from([start]);
    while let Some(thread) = next.pop_front() {
        let waits = |wait: &Wait| wait.blockers.threads.iter().any(|blocker| key(*blocker) == thread);
        let waiters = graph.iter().filter(|(_, wait)| waits(wait)).map(|(waiter, _)| *waiter);
        next.extend(waiters.filter(|waiter| together.insert(*waiter)));
    }
    together
}

/// The shortest circle from a thread to itself.
fn circle(graph: &Graph, start: (u32, u32)) -> Option<Vec<(u32, u32)>> {
    let mut from = BTreeMap::new();
    let mut next = VecDeque::from([start]);
    while let Some(thread) = next.pop_front() {
        for blocker in graph.get(&thread).into_iter().flat_map(|wait| &wait.blockers.threads) {
            let blocker = key(*blocker);
            if blocker == start {
                let mut circle = vec![thread];
                while let Some(before) = circle.last().and_then(|thread| from.get(thread)) {
                    circle.push(*before);
                }
                circle.reverse();
                return Some(circle);
            }
            if graph.contains_key(&blocker) && !from.contains_key(&blocker) {
                from.insert(blocker, thread);
                next.push_back(blocker);
            }
        }
    }
    None
}

fn name(object: u64) -> LockName {
    let object = shm::object_at(object);
    LockName {
        kind: object.and_then(|object| object.kind()).map_or_else(String::new, |kind| kind.to_string()),
        made_at: object.map_or_else(String::new, |object| object.made_at()),
    }
}

/// Whom this thread waits for if it waits for this object. `None`: it waits for something else than a lock.
fn blockers(object: ObjectRef, waiter: Holder) -> Option<Blockers> {
    let kind = object.kind()?;
    if let Some(lock) = owned::lock_of(object) {
        let holder = lock.raw.holder();
        // Somebody else may release the `Lock` that it has itself.
        let holder = holder.filter(|holder| kind != Kind::Lock || *holder != waiter);
        return Some(Blockers::one(holder, lock.reports()));
    }
    match kind {
        Kind::RwLock => {
            let (state, cells) = object.get::<rwlock::State, AtomicU64>()?;
            let threads = state.with(cells, |readers| readers.blockers(waiter));
            Some(Blockers { threads, any: false, told: state.reports() })
        }
        Kind::BoundedSemaphore => {
            let (shared, cells) = object.get::<bounded::BoundedShared, AtomicU64>()?;
            let threads = bounded::holders(shared, cells);
            // Somebody else may give back what it has itself.
            if threads.len() < cells.len() || threads.contains(&waiter) {
                return None;
            }
            Some(Blockers { threads, any: true, told: bounded::reports(shared) })
        }
        _ => None,
    }
}

impl Blockers {
    /// A lock's one owner, if it is known.
    fn one(holder: Option<Holder>, told: bool) -> Blockers {
        Blockers { threads: holder.into_iter().collect(), any: false, told }
    }
}
