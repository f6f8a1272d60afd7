//! The outcome board: one slot of shared memory per child, in which the child tells how far it came.
//!
//! README.md beside this file has the states and who writes what. `state` is stored with Release after what it
//! announces and loaded with Acquire before that is read. `born` is written by the kernel during the clone.
//!
//! Killed child: its slot stays in the state it reached. Killed requester: the board goes with its last mapping.

use std::sync::Mutex;
use std::sync::atomic::{AtomicU8, AtomicU32, Ordering};

use forkyard_sys::orphan::Waiting;
use forkyard_sys::{Errno, Pid, futex};

use super::limit;
use crate::error::{Error, Result};
use crate::shm::{ParcelName, ShmAtomic, Table};

/// Most children that one process has at a time; the kernel's own limits are lower by default.
const CAPACITY: usize = 64 * 1024;
/// Bytes of a request or a result that fit into a slot.
pub(crate) const INLINE: usize = 488;

/// How far a child came. The numbers are what lies in memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub(crate) enum State {
    /// Nobody's slot.
    Free = 0,
    /// A start was requested.
    Offered = 1,
    /// The child is about to call, or in, the task.
    Running = 2,
    /// The task returned, and the value lies in the slot.
    Returned = 3,
    /// The task returned, and the value was sent as a parcel.
    ReturnedParcel = 4,
    /// The task panicked, and the panic was sent as a parcel.
    Panicked = 5,
    /// The task ended the process by `exit`.
    Exited = 6,
    /// The requester has put its request here, for the spare that waits for it.
    Called = 7,
}

impl State {
    fn from_memory(number: u32) -> Option<State> {
        use State::{Called, Exited, Free, Offered, Panicked, Returned, ReturnedParcel, Running};
        [Free, Offered, Running, Returned, ReturnedParcel, Panicked, Exited, Called]
            .into_iter()
            .find(|s| *s as u32 == number)
    }
}

/// One child's slot.
#[repr(C, align(64))]
pub(crate) struct Slot {
    state: AtomicU32,
    /// The child's pid, from before it first runs.
    pub(crate) born: AtomicU32,
    len: AtomicU32,
    /// What carries the handles in the result: its generation, and where it lies; 0 if there are none.
    carrier: AtomicU32,
    value: [AtomicU8; INLINE],
    carrier_at: [AtomicU32; 2],
}

// SAFETY: atomics only, `repr(C)` without gaps (16 + 488 + 8 = 512), all-zero is `Free`.
#[allow(unsafe_code)]
unsafe impl ShmAtomic for Slot {}
const _: () = assert!(size_of::<Slot>() == 512);

impl Slot {
    /// The state; `None` for a number that is none, written by somebody who scribbles.
    pub(crate) fn state(&self) -> Option<State> {
        State::from_memory(self.state.load(Ordering::Acquire))
    }

    /// Announces a new state, and everything written before.
    pub(crate) fn enter(&self, state: State) {
        self.state.store(state as u32, Ordering::Release);
    }

    /// Goes from one state to another, unless the slot is in a third.
    pub(crate) fn advance(&self, from: State, to: State) -> bool {
        self.state.compare_exchange(from as u32, to as u32, Ordering::AcqRel, Ordering::Acquire).is_ok()
    }

    /// Puts a result of at most [`INLINE`] bytes, and announces it.
    pub(crate) fn put(&self, bytes: &[u8]) {
        self.write(bytes);
        self.enter(State::Returned);
    }

    /// Puts a request of at most [`INLINE`] bytes, and wakes the spare that waits for it.
    pub(crate) fn call(&self, request: &[u8]) {
        self.write(request);
        self.enter(State::Called);
        futex::wake_one(&self.state);
    }

    /// Waits until the requester has put a request, and takes it; `None` if its length is not one. Ends this process
    /// when the requester dies before.
    pub(crate) fn wait_for_call(&'static self, requester: Pid) -> Option<Vec<u8>> {
        let waiting = Waiting::begin(requester, &self.state, State::Offered as u32).ok()?;
        while self.state() == Some(State::Offered) {
            futex::wait(&self.state, State::Offered as u32);
        }
        waiting.end();
        self.take()
    }

    fn write(&self, bytes: &[u8]) {
        for (cell, byte) in self.value.iter().zip(bytes) {
            cell.store(*byte, Ordering::Relaxed);
        }
        self.len.store(bytes.len() as u32, Ordering::Relaxed);
    }

    /// What [`put`](Slot::put) or [`call`](Slot::call) announced; `None` if its length is not one.
    pub(crate) fn take(&self) -> Option<Vec<u8>> {
        let len = self.len.load(Ordering::Relaxed) as usize;
        let cells = self.value.get(..len)?;
        Some(cells.iter().map(|cell| cell.load(Ordering::Relaxed)).collect())
    }

    /// A slot of no board.
    pub(crate) const fn new() -> Slot {
        Slot {
            state: AtomicU32::new(State::Free as u32),
            born: AtomicU32::new(0),
            len: AtomicU32::new(0),
            carrier: AtomicU32::new(0),
            value: [const { AtomicU8::new(0) }; INLINE],
            carrier_at: [const { AtomicU32::new(0) }; 2],
        }
    }

    /// Notes what is about to carry the handles in the result: before it does, so it is found whatever becomes of the child.
    pub(crate) fn note_carrier(&self, name: ParcelName) {
        self.carrier.store(name.generation, Ordering::Relaxed);
        self.carrier_at[0].store(name.offset as u32, Ordering::Relaxed);
        self.carrier_at[1].store((name.offset >> 32) as u32, Ordering::Relaxed);
    }

    /// What carries the handles in the result, if there are any.
    pub(crate) fn carrier(&self) -> Option<ParcelName> {
        let generation = self.carrier.load(Ordering::Relaxed);
        let [low, high] = self.carrier_at.each_ref().map(|half| u64::from(half.load(Ordering::Relaxed)));
        let offset = low | high << 32;
        (offset != 0).then_some(ParcelName { offset, generation })
    }

    fn offer(&self) {
        self.carrier_at.iter().for_each(|half| half.store(0, Ordering::Relaxed));
        self.born.store(0, Ordering::Relaxed);
        self.len.store(0, Ordering::Relaxed);
        self.enter(State::Offered);
    }
}

/// The requester's side of the board: the slots, and which are free.
pub(crate) struct Board {
    pub(crate) table: Table<Slot>,
    free: Mutex<Free>,
}

struct Free {
    returned: Vec<u32>,
    /// Slots from here on have never been used; those below `committed` have memory.
    fresh: u32,
    committed: u32,
}

impl Board {
    pub(crate) fn create() -> Result<Board> {
        let table = Table::create("forkyard-outcomes", CAPACITY)
            .map_err(|errno| Error::os_hint("make the outcome board", errno, limit::hint(errno)))?;
        Ok(Board { table, free: Mutex::new(Free { returned: Vec::new(), fresh: 0, committed: 0 }) })
    }

    /// Takes a free slot for a new child.
    pub(crate) fn offer(&self) -> Result<u32> {
        let index = self.reserve()?;
        if let Some(slot) = self.table.get(index as usize) {
            slot.offer();
        }
        Ok(index)
    }

    fn reserve(&self) -> Result<u32> {
        let mut free = crate::sync_std::lock(&self.free);
        if let Some(index) = free.returned.pop() {
            return Ok(index);
        }
        let index = free.fresh;
        if index as usize >= self.table.capacity() {
            let hint =
                format!("this process has {CAPACITY} children that have not been joined or have not ended");
            return Err(Error::os_hint("start a process", Errno::AGAIN, hint));
        }
        if index >= free.committed {
            self.table
                .commit(index as usize)
                .map_err(|errno| Error::os_hint("keep room for an outcome", errno, limit::hint(errno)))?;
            free.committed = index + (64 * 1024 / size_of::<Slot>()) as u32;
        }
        free.fresh = index + 1;
        Ok(index)
    }

    /// Gives a slot back: its child has been reaped, or never was.
    pub(crate) fn release(&self, index: u32) {
        if let Some(slot) = self.table.get(index as usize) {
            // A parcel of that child which is still on its way finds that the slot is not its own.
            slot.born.store(0, Ordering::Relaxed);
            slot.enter(State::Free);
        }
        crate::sync_std::lock(&self.free).returned.push(index);
    }

    /// The slot of that number; the first one for a number that is none, which the board never gave out.
    pub(crate) fn slot(&self, index: u32) -> Option<&Slot> {
        self.table.get(index as usize)
    }
}
