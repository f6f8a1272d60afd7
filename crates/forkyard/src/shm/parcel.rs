//! Blocks of bytes without handles: handed from one participant to a place in an object, and from there to another.
//!
//! A parcel belongs to the participant that its state names, or, while it is `Live`, to whatever knows its offset and generation; channel/README.md
//! tells how it changes hands. Every step is one exchange on the state, and a generation is never used again.
//!
//! Killed here: a participant's parcels are freed by its reaper; so a parcel is handed over only when the place that takes it knows it.
//!
//! # Safety
//! The bytes are a block's payload in the arena, whose mapping is never undone, with a length that was checked against the block and is kept
//! in private memory. They belong to this participant alone while the state names it.
#![allow(unsafe_code)]

use std::fmt;
use std::ptr::NonNull;

use super::allocate::{Found, HEADER};
use super::arena::{self, Arena};
use super::block::State;
use super::carried;
use super::join::reap;
use super::kind::Kind;
use super::life::{Id, Lives};
use super::participant::{Family, joined};
use super::shared::Keep;
use crate::error::{self, Error, Result};
use crate::primitive::Ordering;

/// The holder's bit of whatever a parcel is handed to: no participant's, so no death clears it.
pub(super) const CONTAINER: u32 = Id::SLOTS;

/// Which parcel it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ParcelName {
    pub(crate) offset: u64,
    pub(crate) generation: u32,
}

/// Bytes in the arena that belong to this process, which frees them when it drops this.
pub(crate) struct Parcel {
    found: Found,
    generation: u32,
    owner: Id,
    address: NonNull<u8>,
    len: usize,
}

// SAFETY: it owns its bytes, as a Vec does.
unsafe impl Send for Parcel {}
// SAFETY: as above; a shared reference only reads.
unsafe impl Sync for Parcel {}

impl Parcel {
    /// A parcel of so many zero bytes.
    pub(crate) fn new(len: usize, me: Id) -> Result<Parcel> {
        let arena = arena::get()?;
        let found = match arena.take(len as u64, me) {
            Err(_) if reap() => arena.take(len as u64, me),
            taken => taken,
        };
        let full = || {
            let why = format!("no room for {len} bytes more of the {} that it has", arena.size());
            let what = format!("make {}", Kind::Message);
            let advice = format!("{why}; take messages out, or set {}", arena::SIZE_VARIABLE);
            Error::new(what, error::Kind::Full(advice))
        };
        let found = found.map_err(|_| full())?;
        found.block.describe(Kind::Message as u32, len as u64, "");
        found.block.hold(CONTAINER);
        let generation = arena.header().generation.fetch_add(1, Ordering::Relaxed) as u32;
        match found.payload(arena) {
            Some((address, room)) if room >= len => Ok(Parcel { found, generation, owner: me, address, len }),
            _ => {
                arena.free(found, me);
                Err(full())
            }
        }
    }

    /// Bytes of its block.
    pub(crate) fn size(&self) -> u64 {
        self.found.size
    }

    /// True unless this is a fork of whose it is.
    pub(crate) fn is_own(&self) -> bool {
        joined() == Some(self.owner)
    }

    /// Whose it is.
    pub(crate) fn owner(&self) -> Id {
        self.owner
    }

    /// Bytes that a message of so many needs which carries so many handles.
    pub(crate) fn len_carrying(len: usize, handles: usize) -> usize {
        carried::len_with(len, handles).unwrap_or(usize::MAX)
    }

    /// Lets the end of it say that it carries these handles, which the caller holds until it is handed over; so many bytes are left.
    pub(crate) fn carry(&mut self, handles: &[Keep], left: usize) {
        let names: Vec<_> = handles.iter().map(Keep::name).collect();
        if let Some(arena) = arena::existing().filter(|_| self.is_own()) {
            self.len = self.len.min(left);
            arena.load(self.found, &names);
        }
    }

    /// Lets it carry no handles any more: it has been read.
    pub(crate) fn unload(&self) {
        if let Some(arena) = arena::existing().filter(|_| self.is_own()) {
            arena.unload(self.found, self.owner);
        }
    }

    /// Gives it a fresh name: whoever knows the last one does not mean it.
    pub(crate) fn renew(&mut self) -> ParcelName {
        if let Some(arena) = arena::existing() {
            self.generation = arena.header().generation.fetch_add(1, Ordering::Relaxed) as u32;
        }
        self.name()
    }

    /// Takes the parcel of this name for a message of so many bytes, of which it may have `sparse` times as many; under a fresh name.
    pub(crate) fn reuse(name: ParcelName, len: usize, sparse: u64, me: Id) -> Option<Parcel> {
        let arena = arena::existing()?;
        let found = find(arena, name)?;
        let room = found.size.checked_sub(HEADER)?;
        if room < len as u64 || room / sparse > len as u64 {
            return None;
        }
        let address = arena.range(found.offset + HEADER, len as u64)?;
        if !found.block.change(State::Live(name.generation), State::Building(me)) {
            return None;
        }
        let mut parcel = Parcel { found, generation: name.generation, owner: me, address, len };
        found.block.describe(Kind::Message as u32, len as u64, "");
        parcel.renew();
        Some(parcel)
    }

    /// True if it is there, or in the hands of somebody who lives.
    pub(crate) fn is_somebodys(name: ParcelName) -> bool {
        let Some(found) = arena::existing().and_then(|arena| find(arena, name)) else { return false };
        match found.block.state() {
            State::Live(generation) => generation == name.generation,
            State::Building(id) | State::Freeing(id) => !Family.is_dead(id),
            _ => false,
        }
    }

    /// Its name, for whatever it is handed over to.
    pub(crate) fn name(&self) -> ParcelName {
        ParcelName { offset: self.found.offset, generation: self.generation }
    }

    /// The bytes; none in a fork, which the parcel does not belong to.
    pub(crate) fn bytes(&self) -> &[u8] {
        if !self.is_own() {
            return &[];
        }
        // SAFETY: see the heading.
        unsafe { std::slice::from_raw_parts(self.address.as_ptr(), self.len) }
    }

    /// The bytes, to write them; none in a fork.
    pub(crate) fn bytes_mut(&mut self) -> &mut [u8] {
        if !self.is_own() {
            return &mut [];
        }
        // SAFETY: see the heading; this is the only reference in this process.
        unsafe { std::slice::from_raw_parts_mut(self.address.as_ptr(), self.len) }
    }

    fn own(&self) -> [State; 2] {
        [State::Building(self.owner), State::Freeing(self.owner)]
    }

    /// Lets it belong to whatever has its name. [`recall`](Parcel::recall) or [`forget`](Parcel::forget) it then.
    pub(crate) fn hand_over(&self) {
        // Once it is live, another thread of this process may have taken it: only one of these changes is ours.
        let _ =
            self.own().into_iter().any(|state| self.found.block.change(state, State::Live(self.generation)));
    }

    /// Has it back after nobody wanted it.
    pub(crate) fn recall(&self) {
        self.found.block.change(State::Live(self.generation), State::Building(self.owner));
    }

    /// It was handed over, and is somebody else's.
    pub(crate) fn forget(self) {
        std::mem::forget(self);
    }

    /// Sends these handles to one participant, whose they are then. `note` is told the name before that, under which
    /// [`receive`](Parcel::receive) finds what carries them. False: it is dead.
    ///
    /// Killed here: what carries them is one's or the other's, whose reaper frees it.
    pub(crate) fn send(handles: &[Keep], to: Id, me: Id, note: impl FnOnce(ParcelName)) -> Result<bool> {
        let mut parcel = Parcel::new(Parcel::len_carrying(0, handles.len()), me)?;
        parcel.carry(handles, 0);
        note(parcel.name());
        let (block, sent) = (parcel.found.block, State::Sent(to, parcel.generation));
        block.change(State::Building(me), sent);
        // Its reaper may have been here before.
        if Family.is_dead(to) && block.change(sent, State::Freeing(me)) {
            return Ok(false);
        }
        parcel.forget();
        Ok(true)
    }

    /// What was sent to the caller under this name.
    pub(crate) fn receive(name: ParcelName, me: Id) -> Option<Parcel> {
        Parcel::take_in(State::Sent(me, name.generation), name, 0, me)
    }

    /// Takes over the parcel of this name, of this length. `None`: there is none.
    pub(crate) fn take(name: ParcelName, len: u64, me: Id) -> Option<Parcel> {
        Parcel::take_in(State::Live(name.generation), name, len, me)
    }

    fn take_in(state: State, name: ParcelName, len: u64, me: Id) -> Option<Parcel> {
        let arena = arena::existing()?;
        let found = find(arena, name)?;
        // While it is nobody's to write its length is not changed, unless somebody scribbles.
        let (address, room) = found.payload(arena)?;
        let len = usize::try_from(len).ok().filter(|&len| len <= room)?;
        let taken = found.block.change(state, State::Freeing(me));
        // Not made before that is known: what is made is freed, and it may be another thread's of this process.
        taken.then(|| Parcel { found, generation: name.generation, owner: me, address, len })
    }

    /// Gives the parcel that a dead participant had taken over back to whatever has its name.
    pub(crate) fn restore(name: ParcelName, dead: Id) {
        if let Some(found) = arena::existing().and_then(|arena| find(arena, name)) {
            found.block.change(State::Freeing(dead), State::Live(name.generation));
        }
    }
}

impl fmt::Debug for Parcel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} bytes in shared memory", self.len)
    }
}

pub(super) fn find(arena: &'static Arena, name: ParcelName) -> Option<Found> {
    arena.block_at(name.offset).filter(|found| found.block.kind() == Kind::Message as u32)
}

impl Drop for Parcel {
    fn drop(&mut self) {
        if !self.is_own() {
            return;
        }
        if let Some(arena) = arena::existing()
            && self.own().contains(&self.found.block.state())
        {
            self.unload();
            arena.free(self.found, self.owner);
        }
    }
}
