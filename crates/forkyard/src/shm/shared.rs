//! Handles of objects in the arena: counted, and able to travel in arguments and results of tasks and in messages of queues.
//!
//! A handle is checked once, when it is made or arrives; then it has an address in private memory. The object stays where it is, with at least
//! the length that was checked, for as long as this process holds it.
//!
//! Killed here: a new object is `Building` until it is whole, and has its maker's bit before it is `Live`; so its maker's reaper frees it.
//!
//! # Safety
//! The address is of a block's payload in the arena, whose mapping is never undone; the block is of the payload's kind and has room
//! for it, aligned to 64; a [`Payload`] is made of atomics.
#![allow(unsafe_code)]

use std::cell::{Cell, RefCell};
use std::fmt;
use std::marker::PhantomData;
use std::mem::ManuallyDrop;
use std::ops::Deref;
use std::panic::Location;
use std::ptr::NonNull;
use std::sync::Arc;

use forkyard_sys::Errno;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de, ser};

use super::allocate::Found;
use super::arena::{self, Arena};
use super::block::State;
use super::carried::Name;
use super::join::reap;
use super::kind::Kind;
use super::life::Id;
use super::local;
use super::participant::me;
use super::safe::ShmAtomic;
use crate::codec;
use crate::error::{self, Error, Result};
use crate::primitive::Ordering;

/// Where a tail begins, and how it is aligned.
const ALIGN: usize = 64;

/// The shared part of an object: a structure of atomics at the start of its block.
///
/// # Safety
/// As [`ShmAtomic`], and its alignment is at most 64.
pub(crate) unsafe trait Payload: Sync + 'static {
    /// Which kind of object it is.
    const KIND: Kind;
}

/// What keeps an object alive: one of this process's handles of it.
#[derive(Debug)]
struct Ref {
    offset: u64,
    generation: u32,
}

impl Drop for Ref {
    fn drop(&mut self) {
        local::detach(self.offset, self.generation);
    }
}

/// Keeps an object alive whose handle is on its way to another process.
#[derive(Clone, Debug)]
pub(crate) struct Keep(Arc<Ref>);

impl Keep {
    /// Which object it is.
    pub(super) fn name(&self) -> Name {
        (self.0.offset, self.0.generation)
    }
}

/// A handle of a shared object, with a tail of bytes behind its payload.
pub(crate) struct Shared<T: 'static> {
    reference: Arc<Ref>,
    address: NonNull<u8>,
    tail: usize,
    payload: PhantomData<&'static T>,
}

// SAFETY: a payload is made of atomics, and what lies in the tail is its user's business.
unsafe impl<T: Payload> Send for Shared<T> {}
// SAFETY: as above.
unsafe impl<T: Payload> Sync for Shared<T> {}

impl<T: 'static> Clone for Shared<T> {
    fn clone(&self) -> Shared<T> {
        let reference = Arc::clone(&self.reference);
        Shared { reference, address: self.address, tail: self.tail, payload: PhantomData }
    }
}

impl<T: Payload> Shared<T> {
    /// Makes an object with a tail of so many bytes, all zero but for what `init` makes of it. `init` gets the payload and the
    /// start of the tail.
    pub(crate) fn new(
        tail: usize,
        made_at: &Location<'_>,
        init: impl FnOnce(&T, NonNull<u8>),
    ) -> Result<Shared<T>> {
        Shared::new_at(tail, &format!("{}:{}", made_at.file(), made_at.line()), init)
    }

    /// The same, made at a place that its caller knows.
    pub(crate) fn new_at(
        tail: usize,
        made_at: &str,
        init: impl FnOnce(&T, NonNull<u8>),
    ) -> Result<Shared<T>> {
        const { assert!(align_of::<T>() <= ALIGN) };
        let me = me()?.id;
        let arena = arena::get()?;
        let len = (tail as u64).saturating_add(tail_at::<T>() as u64);
        let full = || {
            let why = format!("no room for {len} bytes more of the {} that it has", arena.size());
            let kind =
                error::Kind::Full(format!("{why}; drop what is not needed, or set {}", arena::SIZE_VARIABLE));
            Error::new(format!("make {}", T::KIND), kind)
        };
        let found = match arena.take(len, me) {
            Err(_) if reap() => arena.take(len, me),
            taken => taken,
        };
        let found = found.map_err(|errno| match errno {
            Errno::NOSPC => full(),
            Errno::NOMEM => {
                let why = "this machine, or its control group, has no memory left for them";
                let kind = error::Kind::Full(format!("no room for {len} bytes more: {why}"));
                Error::new(format!("make {}", T::KIND), kind)
            }
            errno => Error::os(format!("make {}", T::KIND), errno),
        })?;
        found.block.describe(T::KIND as u32, len, made_at);
        let Some((address, _)) = found.payload(arena).filter(|&(_, room)| room as u64 >= len) else {
            arena.free(found, me);
            return Err(full());
        };
        // SAFETY: see the heading; the block is ours alone so far.
        init(unsafe { address.cast::<T>().as_ref() }, unsafe { address.add(tail_at::<T>()) });
        let generation = arena.header().generation.fetch_add(1, Ordering::Relaxed) as u32;
        // Known here before it can be found by others.
        local::add(found, generation, me);
        found.block.set(State::Live(generation));
        Ok(Shared::over(found.offset, generation, address, tail))
    }

    fn over(offset: u64, generation: u32, address: NonNull<u8>, tail: usize) -> Shared<T> {
        let reference = Arc::new(Ref { offset, generation });
        Shared { reference, address, tail, payload: PhantomData }
    }

    /// Takes a handle of what another process has told of.
    pub(crate) fn attach(offset: u64, generation: u32) -> Result<Shared<T>> {
        let me = me()?.id;
        let what = || format!("take over {}", T::KIND);
        let gone = || {
            let why =
                "it is gone: whoever held it has dropped it or died, or this is another program's handle";
            Error::new(what(), error::Kind::Gone(why.to_owned()))
        };
        let found = local::attach(offset, generation, me).ok_or_else(gone)?;
        // From here on dropping this lets go of it.
        let reference = Arc::new(Ref { offset, generation });
        let arena: &'static Arena = arena::get()?;
        if found.block.kind() != T::KIND as u32 {
            return Err(Error::new(
                what(),
                error::Kind::Protocol("it is an object of another kind".to_owned()),
            ));
        }
        match found.payload(arena) {
            Some((address, len)) if len >= tail_at::<T>() => {
                Ok(Shared { reference, address, tail: len - tail_at::<T>(), payload: PhantomData })
            }
            _ => Err(Error::new(
                what(),
                error::Kind::Protocol("it is shorter than what it says it is".to_owned()),
            )),
        }
    }

    /// The bytes behind the payload, aligned to 64.
    pub(crate) fn tail(&self) -> (NonNull<u8>, usize) {
        // SAFETY: inside the block: see the heading.
        (unsafe { self.address.add(tail_at::<T>()) }, self.tail)
    }

    /// The tail as a slice of atomics, as many as fit.
    pub(crate) fn cells<E: ShmAtomic>(&self) -> &[E] {
        const { assert!(align_of::<E>() <= ALIGN && size_of::<E>() > 0) };
        let (address, len) = self.tail();
        // SAFETY: inside the block, aligned, and any bit pattern is an `E`.
        unsafe { std::slice::from_raw_parts(address.cast().as_ptr(), len / size_of::<E>()) }
    }

    /// Where its block begins: its name in the family.
    pub(crate) fn offset(&self) -> u64 {
        self.reference.offset
    }

    /// Where its block begins, and which of the objects that lay there it is.
    pub(crate) fn name(&self) -> (u64, u32) {
        (self.reference.offset, self.reference.generation)
    }

    fn found(&self) -> Option<Found> {
        arena::existing().and_then(|arena| arena.block_at(self.offset()))
    }

    /// Keeps it alive until somebody lets go of it, whoever dies.
    pub(crate) fn keep(&self) {
        if let Some(found) = self.found() {
            found.block.hold(Id::SLOTS);
            found.block.announce(self.reference.generation, false);
        }
    }

    /// Undoes [`keep`](Shared::keep): it goes with its last handle. May be done again.
    pub(crate) fn let_go(&self) {
        // This handle's bit is still there, so this is not the last one.
        if let Some(found) = self.found() {
            found.block.let_go(Id::SLOTS);
        }
    }

    /// Where it was made.
    pub(crate) fn made_at(&self) -> String {
        self.found().map_or_else(String::new, |found| found.block.made_at())
    }
}

/// Where the tail begins, from the payload's start.
pub(super) const fn tail_at<T>() -> usize {
    size_of::<T>().next_multiple_of(ALIGN)
}

impl<T: Payload> Deref for Shared<T> {
    type Target = T;

    #[inline]
    fn deref(&self) -> &T {
        // SAFETY: see the heading.
        unsafe { self.address.cast::<T>().as_ref() }
    }
}

impl<T: Payload> fmt::Debug for Shared<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} made at {}", T::KIND, self.made_at())
    }
}

thread_local! {
    /// How many handles were encoded for whoever is collecting them; `None`: nobody is.
    static COLLECTED: Cell<Option<usize>> = const { Cell::new(None) };
    /// These, behind those of whoever collected before. (Without a destructor, so that exit hooks can use it; whoever collects
    /// takes them out.)
    static OUTGOING: ManuallyDrop<RefCell<Vec<Keep>>> = const { ManuallyDrop::new(RefCell::new(Vec::new())) };
}

/// Runs `encode` and collects what keeps the objects alive whose handles it met.
pub(crate) fn outgoing<R>(encode: impl FnOnce() -> R) -> (R, Vec<Keep>) {
    let collecting = Collecting::begin();
    let result = encode();
    (result, collecting.end().unwrap_or_default())
}

/// From when to when this thread collects what keeps the objects alive whose handles are encoded.
pub(crate) struct Collecting {
    before: Option<usize>,
}

impl Collecting {
    #[inline]
    pub(crate) fn begin() -> Collecting {
        Collecting { before: COLLECTED.replace(Some(0)) }
    }

    /// What was met, if anything was.
    #[inline]
    pub(crate) fn end(self) -> Option<Vec<Keep>> {
        match COLLECTED.get() {
            None | Some(0) => None,
            Some(count) => Some(taken(count)),
        }
    }
}

impl Drop for Collecting {
    #[inline]
    fn drop(&mut self) {
        if let Some(count @ 1..) = COLLECTED.get() {
            drop(taken(count));
        }
        COLLECTED.set(self.before);
    }
}

#[cold]
fn taken(count: usize) -> Vec<Keep> {
    COLLECTED.set(Some(0));
    OUTGOING.with(|all| {
        let mut all = all.borrow_mut();
        let first = all.len().saturating_sub(count);
        all.split_off(first)
    })
}

impl<T: Payload> Serialize for Shared<T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> std::result::Result<S::Ok, S::Error> {
        let Some(count) = COLLECTED.get() else {
            let why = "a shared object travels only in the arguments of a task and in a queue's messages";
            return Err(ser::Error::custom(codec::refuse(why)));
        };
        OUTGOING.with(|all| all.borrow_mut().push(Keep(Arc::clone(&self.reference))));
        COLLECTED.set(Some(count + 1));
        self.name().serialize(serializer)
    }
}

impl<'de, T: Payload> Deserialize<'de> for Shared<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> std::result::Result<Shared<T>, D::Error> {
        let (offset, generation) = Deserialize::deserialize(deserializer)?;
        Shared::attach(offset, generation).map_err(|error| de::Error::custom(codec::refuse(error)))
    }
}

/// An object of the family, for whoever looks at all of them: the reaper, the search for deadlocks, people.
#[derive(Clone, Copy)]
pub(crate) struct ObjectRef {
    found: Found,
}

impl ObjectRef {
    /// An object that is being freed.
    pub(super) fn of(found: Found) -> ObjectRef {
        ObjectRef { found }
    }

    /// Where its block begins.
    pub(crate) fn offset(&self) -> u64 {
        self.found.offset
    }

    /// Where its block begins, and which of the objects that lay there it is.
    pub(crate) fn name(&self) -> Option<(u64, u32)> {
        match self.found.block.state() {
            State::Live(generation) => Some((self.offset(), generation)),
            _ => None,
        }
    }

    /// What it is; `None` if somebody scribbled.
    pub(crate) fn kind(&self) -> Option<Kind> {
        Kind::of_number(self.found.block.kind())
    }

    /// Where it was made.
    pub(crate) fn made_at(&self) -> String {
        self.found.block.made_at()
    }

    /// The slots of the participants that hold it.
    pub(crate) fn holders(&self) -> impl Iterator<Item = u32> {
        self.found.block.holders()
    }

    /// True if that participant holds it.
    pub(crate) fn is_held_by(&self, id: Id) -> bool {
        self.found.block.is_held_by(id.slot())
    }

    /// Bytes of memory that it takes.
    pub(crate) fn size(&self) -> u64 {
        self.found.size
    }

    /// Its payload and the cells of its tail, if it is of that kind and has room for it. The object may be freed at any time, and
    /// another may lie there: what is read is a hint.
    pub(crate) fn get<T: Payload, E: ShmAtomic>(&self) -> Option<(&'static T, &'static [E])> {
        let arena = arena::existing()?;
        let (address, len) = self.found.payload(arena)?;
        let tail = len.checked_sub(tail_at::<T>())?;
        if self.found.block.kind() != T::KIND as u32 {
            return None;
        }
        // SAFETY: see the heading: inside the arena and aligned, of atomics, whatever lies there by now.
        let payload = unsafe { address.cast::<T>().as_ref() };
        // SAFETY: the same.
        let cells = unsafe {
            std::slice::from_raw_parts(address.add(tail_at::<T>()).cast().as_ptr(), tail / size_of::<E>())
        };
        Some((payload, cells))
    }
}

/// The object whose block begins there, if there is one.
pub(crate) fn object_at(offset: u64) -> Option<ObjectRef> {
    let found = arena::existing()?.block_at(offset)?;
    match found.block.state() {
        State::Live(_) => Some(ObjectRef { found }),
        _ => None,
    }
}

/// Calls `visit` with every object.
pub(crate) fn for_each_object(mut visit: impl FnMut(ObjectRef)) {
    let Some(arena) = arena::existing() else { return };
    arena.for_each_block(|found| {
        if let State::Live(_) = found.block.state() {
            visit(ObjectRef { found });
        }
    });
}
