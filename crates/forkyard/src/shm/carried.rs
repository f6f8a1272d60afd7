//! Handles in messages: a message that carries some says which, behind its bytes, as long as it is one.
//!
//! A message outlives whoever put it, so an object may be known to nobody but a message. A count of messages could not be undone after
//! a death; so an object only notes that messages may carry it, and whoever lets go of it last looks at all messages. README.md beside
//! this file tells why none comes in between.
//!
//! Killed here: a message that was made or freed says that it carries something until that is looked after, or its owner's reaper does;
//! objects that nobody knows any more are found by the reaper of whoever was on the way to free them.

use std::cell::RefCell;
use std::collections::HashSet;
use std::mem::ManuallyDrop;

use super::allocate::{Found, HEADER};
use super::arena::Arena;
use super::block::Block;
use super::kind::Kind;
use super::life::Id;
use crate::primitive::{AtomicU64, Ordering};

/// Where an object's block begins, and its generation.
pub(super) type Name = (u64, u32);

/// Bytes of a name behind a message.
const NAME: u64 = 16;

/// Bytes of a message of so many that carries so many handles. `None`: nobody has so many.
pub(super) fn len_with(len: usize, count: usize) -> Option<usize> {
    if count == 0 {
        return Some(len);
    }
    len.checked_next_multiple_of(8)?.checked_add(count.checked_mul(NAME as usize)?)
}

impl Arena {
    /// Notes which objects a message carries that is the caller's and has room for it, and then has each of them know.
    pub(super) fn load(&self, message: Found, names: &[Name]) {
        if names.is_empty() {
            return;
        }
        let first = HEADER + message.block.len().saturating_sub(NAME * names.len() as u64);
        for (at, &(offset, generation)) in (0..).map(|index| message.offset + first + NAME * index).zip(names)
        {
            for (at, value) in [(at, offset), (at + 8, generation.into())] {
                if let Some(word) = self.at::<AtomicU64>(at) {
                    word.store(value, Ordering::Relaxed);
                }
            }
        }
        message.block.set_carries(names.len() as u64);
        for &(offset, generation) in names {
            if let Some(block) = self.at::<Block>(offset) {
                block.announce(generation, true);
            }
        }
    }

    /// Has a message that is the caller's carry nothing any more, and frees what nobody knows then.
    pub(super) fn unload(&'static self, message: Found, me: Id) {
        if message.block.carries() == 0 {
            return;
        }
        let names: Vec<_> = self.names_in(message.offset, message.size, message.block).collect();
        message.block.set_carries(0);
        self.settle(names, me);
    }

    /// The objects that a message carries; whatever they are if it is none any more.
    fn names_in(&self, offset: u64, size: u64, block: &Block) -> impl Iterator<Item = Name> {
        let (count, len) = (block.carries(), block.len().min(size.saturating_sub(HEADER)));
        let count = count.min(len / NAME);
        let first = offset + HEADER + len - NAME * count;
        (0..count).filter_map(move |index| {
            let word = |at: u64| Some(self.at::<AtomicU64>(at)?.load(Ordering::Relaxed));
            let at = first + NAME * index;
            Some((word(at)?, word(at + 8)? as u32))
        })
    }

    /// Frees each of these objects that nobody holds, and no message carries.
    fn settle(&'static self, names: Vec<Name>, me: Id) {
        thread_local! {
            /// What is left to do, while this is at work: an object may be a queue, with messages that carry others. (Without a
            /// destructor, so that exit hooks can use it; it is empty when this is done.)
            static LEFT: ManuallyDrop<RefCell<Option<Vec<Name>>>> = const { ManuallyDrop::new(RefCell::new(None)) };
        }
        let is_first = LEFT.with(|left| match &mut *left.borrow_mut() {
            Some(left) => {
                left.extend(&names);
                false
            }
            left @ None => {
                *left = Some(names);
                true
            }
        });
        if !is_first {
            return;
        }
        while let Some((offset, generation)) = LEFT.with(|left| left.borrow_mut().as_mut()?.pop()) {
            let _visit = self.visit(me);
            if let Some(found) = self.block_at(offset) {
                self.free_unknown(found, generation, me);
            }
        }
        LEFT.with(|left| left.take());
    }

    /// Frees an object if nobody knows it. The caller has let go of it, and is a visitor since it knew that it is there.
    pub(super) fn free_unknown(&'static self, found: Found, generation: u32, me: Id) {
        // The look comes first: whoever gets to know it meanwhile changes what is compared.
        let Some(look) = found.block.look(generation) else { return };
        let is_known =
            || found.block.is_held() || (look.travels() && self.is_carried((found.offset, generation)));
        if !is_known() && found.block.claim(look, me) {
            self.free(found, me);
        }
    }

    fn is_carried(&self, name: Name) -> bool {
        self.in_messages(|carried| (carried == name).then_some(())).is_some()
    }

    /// All that messages carry.
    pub(super) fn carried(&self) -> HashSet<Name> {
        let mut all = HashSet::new();
        self.in_messages(|name| {
            all.insert(name);
            None::<()>
        });
        all
    }

    fn in_messages<R>(&self, mut visit: impl FnMut(Name) -> Option<R>) -> Option<R> {
        self.find_taken(|offset, size, block| {
            if block.kind() != Kind::Message as u32 || block.carries() == 0 {
                return None;
            }
            self.names_in(offset, size, block).find_map(&mut visit)
        })
    }
}
