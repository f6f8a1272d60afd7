//! What an actor does on command: words are operations on the family's objects; those between two slashes lie between the
//! markers.

use std::os::unix::net::UnixDatagram;

use forkyard::channel::{ByteQueue, JoinableQueue, Queue, Work};
use forkyard::sync::{
    Array, ArrayGuard, Barrier, BoundedSemaphore, Condition, Event, Lock, Mutex, MutexGuard, Once, RLock,
    RwLock, RwLockReadGuard, RwLockWriteGuard, Semaphore, Value,
};
use serde::{Deserialize, Serialize};

use crate::channel::receive;
use crate::marker;
use crate::naive::Naive;
use crate::words::operation;

/// So many actors are forks, which inherit the objects; the others are spawned, and get them as arguments.
pub(crate) const FORKED: usize = 2;

/// As many victims can be killed in a `Once` of their own.
pub(crate) const ONCES: usize = 50;

/// As many victims can be killed closing a queue of their own.
pub(crate) const CLOSINGS: usize = 50;

/// One object of each kind.
#[derive(Clone, Serialize, Deserialize)]
pub(crate) struct Objects {
    pub(crate) lock: Lock,
    pub(crate) rlock: RLock,
    /// One for each victim.
    pub(crate) onces: Vec<Once>,
    pub(crate) mutex: Mutex<[u64; 2]>,
    pub(crate) rwlock: RwLock<[u64; 2]>,
    pub(crate) condition: Condition,
    pub(crate) value: Value<u64>,
    pub(crate) array: Array<u64>,
    /// No permits.
    pub(crate) semaphore: Semaphore,
    /// One permit, which comes back.
    pub(crate) undo: Semaphore,
    /// One permit.
    pub(crate) bounded: BoundedSemaphore,
    pub(crate) event: Event,
    pub(crate) two: Barrier,
    pub(crate) three: Barrier,
    /// For two messages.
    pub(crate) queue: ByteQueue,
    pub(crate) work: JoinableQueue<u64>,
    /// Numbers, for batches.
    pub(crate) many: Queue<u64>,
    /// Without a bound.
    pub(crate) growing: Queue<u64>,
    pub(crate) endless: JoinableQueue<u64>,
    /// One for each victim.
    pub(crate) closings: Vec<ByteQueue>,
    /// For two handles of objects that nobody else may know.
    pub(crate) handles: Queue<Mutex<u64>>,
}

impl Objects {
    pub(crate) fn new() -> Objects {
        Objects {
            lock: Lock::new().unwrap(),
            rlock: RLock::new().unwrap(),
            onces: (0..ONCES).map(|_| Once::new().unwrap()).collect(),
            mutex: Mutex::new([0; 2]).unwrap(),
            rwlock: RwLock::new([0; 2]).unwrap(),
            condition: Condition::new().unwrap(),
            value: Value::new(0).unwrap(),
            array: Array::zeroed(2).unwrap(),
            semaphore: Semaphore::new(0).unwrap(),
            undo: Semaphore::undo(1, 1).unwrap(),
            bounded: BoundedSemaphore::new(1).unwrap(),
            event: Event::new().unwrap(),
            two: Barrier::new(2).unwrap(),
            three: Barrier::new(3).unwrap(),
            queue: ByteQueue::bounded(2).unwrap(),
            work: JoinableQueue::bounded(2).unwrap(),
            many: Queue::bounded(8).unwrap(),
            growing: Queue::unbounded().unwrap(),
            endless: JoinableQueue::unbounded().unwrap(),
            closings: (0..CLOSINGS).map(|_| ByteQueue::bounded(1).unwrap()).collect(),
            handles: Queue::bounded(2).unwrap(),
        }
    }
}

pub(crate) struct Actor {
    pub(crate) objects: &'static Objects,
    pub(crate) naive: Option<&'static Naive>,
    pub(crate) guard: Option<MutexGuard<'static, [u64; 2]>>,
    pub(crate) array: Option<ArrayGuard<'static, u64>>,
    pub(crate) read: Option<RwLockReadGuard<'static, [u64; 2]>>,
    pub(crate) write: Option<RwLockWriteGuard<'static, [u64; 2]>>,
    /// What it got and has not finished.
    pub(crate) work: Option<Work<u64>>,
    pub(crate) works: Vec<Work<u64>>,
    /// The copy that it made of itself.
    pub(crate) fork: i32,
    /// Which victim's turn it is.
    pub(crate) round: usize,
    /// Objects that it has made, oldest first.
    pub(crate) made: Vec<Made>,
}

/// An object of some size.
#[allow(dead_code, reason = "it is held, and that is all")]
#[allow(clippy::large_enum_variant, reason = "there is one of it")]
pub(crate) enum Made {
    Small(Mutex<[u8; 8]>),
    Half(Mutex<[u8; 30_000]>),
    Large(Mutex<[u8; 200_000]>),
    Queue(ByteQueue),
    Shared(Mutex<u64>),
    Handles(Queue<Mutex<u64>>),
}

impl Actor {
    pub(crate) fn new(objects: Objects, naive: Option<&'static Naive>) -> Actor {
        let objects = Box::leak(Box::new(objects));
        Actor {
            objects,
            naive,
            guard: None,
            array: None,
            read: None,
            write: None,
            work: None,
            works: Vec::new(),
            fork: 0,
            round: 0,
            made: Vec::with_capacity(10),
        }
    }

    /// Obeys until there are no more commands.
    pub(crate) fn serve(mut self, channel: &UnixDatagram) {
        while let Some(command) = receive(channel) {
            // Everything is prepared before the markers but the operation itself.
            let (round, command) = command.split_once(' ').unwrap();
            self.round = round.parse().unwrap();
            let parts: Vec<Vec<Operation>> = command.split('/').map(operations).collect();
            let mut answers = Vec::with_capacity(20);
            match &parts[..] {
                [before, operation, after] => {
                    self.perform(before, &mut answers);
                    marker::between(|| self.perform(operation, &mut answers));
                    self.perform(after, &mut answers);
                }
                _ => self.perform(&parts[0], &mut answers),
            }
            channel.send(answers.join(" ").as_bytes()).unwrap();
        }
    }

    fn perform(&mut self, operations: &[Operation], answers: &mut Vec<&'static str>) {
        for operation in operations {
            answers.push(operation(self));
        }
    }
}

/// One word of a command; what it returns is its answer.
pub(crate) type Operation = fn(&mut Actor) -> &'static str;

fn operations(words: &str) -> Vec<Operation> {
    words.split_whitespace().map(operation).collect()
}
