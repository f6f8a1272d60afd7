//! What lies in a block: a number in shared memory.

use std::fmt;

/// A kind of object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub(crate) enum Kind {
    /// [`Mutex`](crate::sync::Mutex).
    Mutex = 1,
    /// [`RwLock`](crate::sync::RwLock).
    RwLock = 2,
    /// [`Lock`](crate::sync::Lock).
    Lock = 3,
    /// [`RLock`](crate::sync::RLock).
    RLock = 4,
    /// [`Semaphore`](crate::sync::Semaphore).
    Semaphore = 5,
    /// [`BoundedSemaphore`](crate::sync::BoundedSemaphore).
    BoundedSemaphore = 6,
    /// [`Condition`](crate::sync::Condition).
    Condition = 7,
    /// [`Event`](crate::sync::Event).
    Event = 8,
    /// [`Barrier`](crate::sync::Barrier).
    Barrier = 9,
    /// [`Once`](crate::sync::Once).
    Once = 10,
    /// [`Value`](crate::sync::Value).
    Value = 11,
    /// [`Array`](crate::sync::Array).
    Array = 12,
    /// A queue.
    Queue = 13,
    /// A name of [`SharedMemory`](super::SharedMemory).
    SharedMemory = 14,
    /// A message of a queue, or one that is being made.
    Message = 15,
    /// A part of a queue without a bound.
    Segment = 16,
    /// Bytes, in tests.
    #[cfg(test)]
    Bytes = 999,
}

impl Kind {
    const ALL: [Kind; 16] = [
        Kind::Mutex,
        Kind::RwLock,
        Kind::Lock,
        Kind::RLock,
        Kind::Semaphore,
        Kind::BoundedSemaphore,
        Kind::Condition,
        Kind::Event,
        Kind::Barrier,
        Kind::Once,
        Kind::Value,
        Kind::Array,
        Kind::Queue,
        Kind::SharedMemory,
        Kind::Message,
        Kind::Segment,
    ];

    /// The kind of this number.
    pub(crate) fn of_number(number: u32) -> Option<Kind> {
        Kind::ALL.into_iter().find(|kind| *kind as u32 == number)
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, f)
    }
}
