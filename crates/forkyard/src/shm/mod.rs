//! Memory that processes share. README.md beside this file tells how it survives the death of whoever uses it.

mod allocate;
mod arena;
mod block;
mod carried;
mod census;
mod chunk;
mod entry;
mod expected;
mod hooks;
mod join;
mod kept;
mod kind;
mod life;
mod local;
mod named;
mod parcel;
mod participant;
mod safe;
mod shared;
mod shortage;
mod table;
#[cfg(test)]
mod tests;
mod view;
mod visit;
mod wait;

pub(crate) use arena::{attach, existing, get, observe, refuse};
pub use census::{Census, family_census};
pub(crate) use expected::{any_over as any_fork_over, claim_lost_fork};
pub(crate) use hooks::{Hooks, hooks, set_queue_hooks};
pub(crate) use join::{copying, set_reaper};
pub use kept::KeptMemory;
pub(crate) use kind::Kind;
pub(crate) use life::{Id, Life, Lives, watch};
pub use named::SharedMemory;
pub(crate) use named::repair as remove_name;
pub(crate) use parcel::{Parcel, ParcelName};
pub(crate) use participant::{
    Family, Me, Who, any_dead, bury, claim_dead, everybody, introduce, is_here, joined, known, me, of_pid,
    who,
};
pub(crate) use safe::ShmAtomic;
pub use safe::ShmSafe;
pub(crate) use shared::{Collecting, Keep, ObjectRef, Payload, Shared, for_each_object, object_at, outgoing};
pub(crate) use table::Table;
pub(crate) use view::View;
pub(crate) use wait::{WaitInfo, Waiting, waiting, waiting_at, waits_of};

/// Frees what a dead participant held, was making or was freeing. Only one reaper of it runs at a time.
pub(crate) fn reap_memory(dead: Id, me: Id) {
    if let Some(arena) = existing() {
        arena.reap_blocks(dead, me);
        arena.reap_chunks(dead, me);
    }
}
