//! What the family's memory is used for: for tests, which look for leaks.

use super::arena::{self, Arena};
use super::block::State;
use super::entry::Use;
use super::kind::Kind;
use super::participant::taken_slots;

/// How much of the arena is in use, dead users' parts included.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Census {
    /// Objects, whole ones.
    pub objects: usize,
    /// Those of them that are messages, or memory that a queue keeps for one.
    pub messages: usize,
    /// Blocks that somebody is making or freeing.
    pub unfinished: usize,
    /// Holders' bits, of all objects.
    pub holders: usize,
    /// Slots of the process table that are not free.
    pub participants: usize,
    /// Chunks that have memory.
    pub chunks: usize,
    /// Bytes that the kernel has given to the arena.
    pub memory: u64,
}

/// Counts what is in use now; others may change it meanwhile. All zero where this process has no arena.
#[must_use]
pub fn family_census() -> Census {
    let Some(arena) = arena::existing() else { return Census::default() };
    let mut census = Census {
        participants: taken_slots(arena),
        chunks: arena.table().iter().filter(|entry| !matches!(entry.get(), Use::Free | Use::Idle(_))).count(),
        memory: memory(arena),
        ..Census::default()
    };
    arena.for_each_block(|found| match found.block.state() {
        State::Live(_) | State::Sent(..) => {
            census.objects += 1;
            census.messages += usize::from(found.block.kind() == Kind::Message as u32);
            census.holders += found.block.holders().count();
        }
        _ => census.unfinished += 1,
    });
    census
}

fn memory(arena: &Arena) -> u64 {
    let copy = arena.fd().try_clone_to_owned().map(std::fs::File::from);
    copy.and_then(|file| file.metadata())
        .map_or(0, |data| std::os::unix::fs::MetadataExt::blocks(&data) * 512)
}
