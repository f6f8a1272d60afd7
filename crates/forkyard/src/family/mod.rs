//! A family seen from outside: its processes, what they hold and wait for, and its shared memory.
//!
//! [`observe`] reads the family's shared memory and `/proc`, and changes nothing. The family does not take part in it, so it may hang or be
//! stopped. What is read may change at the same time: a lock can have been released between two lines of one report.

mod memory;
#[doc(hidden)]
pub mod private;
mod proc;

use std::collections::BTreeMap;

use forkyard_sys::Pid;
use serde::Serialize;

use crate::error::{Error, Kind, Result};
use crate::shm::{self, ObjectRef, Who};
use crate::{channel, sync};

/// A family at one moment.
#[derive(Clone, Debug, Serialize)]
#[non_exhaustive]
pub struct Family {
    /// Its shared memory.
    pub arena: Arena,
    /// Its processes, by pid.
    pub processes: Vec<Process>,
    /// Its shared objects, in the order of their places.
    pub objects: Vec<Object>,
}

/// A family's shared memory.
#[derive(Clone, Debug, Serialize)]
#[non_exhaustive]
pub struct Arena {
    /// Bytes of address space that it has.
    pub size: u64,
    /// Bytes of memory that it has taken.
    pub used: u64,
    /// Objects in it.
    pub objects: usize,
    /// Processes that use shared objects.
    pub participants: usize,
    /// Most processes that can, at a time.
    pub most_participants: u32,
}

/// One process of a family.
#[derive(Clone, Debug, Serialize)]
#[non_exhaustive]
pub struct Process {
    /// Its process id.
    pub pid: u32,
    /// Its parent's.
    pub parent: u32,
    /// The name that it was started with; the kernel's name for it, where it has none.
    pub name: String,
    /// One letter, as proc(5) has it: R running, S sleeping, D in the kernel, T stopped, t traced, Z ended and not reaped.
    pub state: char,
    /// When it was started, in seconds since 1970.
    pub started: f64,
    /// Seconds since it was started.
    pub age_seconds: f64,
    /// Seconds of processor time that it has used.
    pub cpu_seconds: f64,
    /// Its proportional share of memory, in bytes (proc(5), `smaps_rollup`); `None` where that may not be read.
    pub pss: Option<u64>,
    /// Whether it ends with its parent; `None` if it uses no shared object, and so does not say.
    pub daemon: Option<bool>,
    /// What it holds.
    pub holds: Vec<Held>,
    /// What its threads wait for.
    pub waits: Vec<Wait>,
}

/// Something that a process holds.
#[derive(Clone, Debug, Serialize)]
#[non_exhaustive]
pub struct Held {
    /// Which object, by its place.
    pub object: u64,
    /// What it is: `Mutex`, `BoundedSemaphore` …
    pub kind: String,
    /// Where it was made: the end of `file:line`.
    pub made_at: String,
    /// Which thread has it, by its thread id; `None` where that is not known.
    pub thread: Option<u32>,
    /// How: `lock`, `read`, `write` or `permit`.
    pub how: &'static str,
    /// For how long at least, in seconds: since it was acquired, if others waited for it then, and otherwise since somebody began to wait.
    /// `None` where nobody waits, and of what several can hold, `read` and `permit`.
    pub seconds: Option<f64>,
}

/// Something that a thread of a process waits for.
#[derive(Clone, Debug, Serialize)]
#[non_exhaustive]
pub struct Wait {
    /// Which object, by its place.
    pub object: u64,
    /// What it is.
    pub kind: String,
    /// Where it was made.
    pub made_at: String,
    /// What it waits to do there, where there is a choice: `get`, `put` or `join`, at a queue.
    pub to: Option<&'static str>,
    /// Which thread waits.
    pub thread: u32,
    /// For how long, in seconds.
    pub seconds: f64,
}

/// A shared object.
#[derive(Clone, Debug, Serialize)]
#[non_exhaustive]
pub struct Object {
    /// Its place in the arena, which is its name.
    pub object: u64,
    /// What it is.
    pub kind: String,
    /// Where it was made.
    pub made_at: String,
    /// Bytes that it takes.
    pub bytes: u64,
    /// The processes that have handles of it, by pid.
    pub holders: Vec<u32>,
    /// Threads that wait for it.
    pub waiting: usize,
    /// What else there is to say: permits, parties of a barrier, the depth of a queue and its bytes, and with a bound how many messages were ever
    /// `put` into it and `got` …
    pub facts: BTreeMap<&'static str, u64>,
}

/// Looks at the family that this process belongs to.
///
/// A program can look at one family only, and not at one while it belongs to another.
///
/// # Errors
/// The process has no part in a family, or what is read belongs to somebody else (`EACCES`); its family was started by another
/// build of this library.
pub fn observe(pid: Pid) -> Result<Family> {
    let pid = pid.as_raw_nonzero().get().unsigned_abs();
    let file = memory::open(pid)?;
    memory::attach(&file)?;
    let mut seen = Seen::look();
    let mut processes: Vec<Process> =
        memory::members(&file).into_iter().filter_map(|pid| seen.process(pid)).collect();
    processes.sort_by_key(|process| process.pid);
    if processes.is_empty() {
        let why = "it ended while it was looked at".to_owned();
        return Err(Error::new(format!("observe the family of process {pid}"), Kind::Gone(why)));
    }
    let arena = Arena {
        size: file.metadata().map_or(0, |metadata| metadata.len()),
        used: memory::used(&file),
        objects: seen.objects.len(),
        participants: seen.participants.len(),
        most_participants: shm::Id::SLOTS,
    };
    Ok(Family { arena, processes, objects: seen.objects })
}

/// What the arena says.
struct Seen {
    participants: Vec<Who>,
    objects: Vec<Object>,
    holds: BTreeMap<u32, Vec<Held>>,
    waits: BTreeMap<u32, Vec<Wait>>,
}

impl Seen {
    fn look() -> Seen {
        let participants: Vec<Who> = shm::everybody().into_iter().filter_map(shm::who).collect();
        let mut seen =
            Seen { participants, objects: Vec::new(), holds: BTreeMap::new(), waits: BTreeMap::new() };
        let now = forkyard_sys::time::monotonic_ns();
        let mut waiting: BTreeMap<u64, Vec<u8>> = BTreeMap::new();
        for who in seen.participants.clone() {
            for wait in shm::waits_of(who.id) {
                let Some(object) = shm::object_at(wait.object) else { continue };
                waiting.entry(wait.object).or_default().push(wait.end);
                seen.waits.entry(who.pid).or_default().push(Wait {
                    object: wait.object,
                    kind: kind_of(&object),
                    made_at: object.made_at(),
                    to: channel::end_name(wait.end),
                    thread: wait.thread,
                    seconds: now.saturating_sub(wait.since_ns) as f64 / 1e9,
                });
            }
        }
        shm::for_each_object(|object| {
            seen.add(object, waiting.get(&object.offset()).map_or(&[], Vec::as_slice))
        });
        seen
    }

    /// `waiting`: what each thread that waits for it waits to do.
    fn add(&mut self, object: ObjectRef, waiting: &[u8]) {
        let described = sync::describe(object);
        let (offset, kind, made_at) = (object.offset(), kind_of(&object), object.made_at());
        for owner in described.owners {
            let Some(who) = self.participants.iter().find(|who| who.id == owner.id) else { continue };
            self.holds.entry(who.pid).or_default().push(Held {
                object: offset,
                kind: kind.clone(),
                made_at: made_at.clone(),
                thread: (owner.thread != 0).then_some(owner.thread),
                how: owner.how,
                seconds: owner.held_for.map(|held| f64::from(held) / 1e3),
            });
        }
        let of_slot = |slot| self.participants.iter().find(|who| who.id.slot() == slot).map(|who| who.pid);
        let holders = object.holders().filter_map(of_slot).collect();
        let mut facts: BTreeMap<_, _> =
            described.facts.into_iter().chain(channel::describe(object)).collect();
        for end in waiting {
            let name = match channel::end_name(*end) {
                Some("get") => "waiting_to_get",
                Some("put") => "waiting_to_put",
                Some("join") => "waiting_to_join",
                _ => continue,
            };
            *facts.entry(name).or_default() += 1;
        }
        self.objects.push(Object {
            object: offset,
            kind,
            made_at,
            bytes: object.size(),
            holders,
            waiting: waiting.len(),
            facts,
        });
    }

    fn process(&mut self, pid: u32) -> Option<Process> {
        let stat = proc::Stat::of(pid)?;
        let who = self.participants.iter().find(|who| who.pid == pid);
        Some(Process {
            pid,
            parent: stat.parent,
            name: who.map_or(stat.name, |who| who.name.clone()),
            state: stat.state,
            started: proc::now() - stat.age_seconds,
            age_seconds: stat.age_seconds,
            cpu_seconds: stat.cpu_seconds,
            pss: proc::pss(pid),
            daemon: who.map(|who| who.daemon),
            holds: self.holds.remove(&pid).unwrap_or_default(),
            waits: self.waits.remove(&pid).unwrap_or_default(),
        })
    }
}

fn kind_of(object: &ObjectRef) -> String {
    object.kind().map_or_else(|| "unknown".to_owned(), |kind| kind.to_string())
}
