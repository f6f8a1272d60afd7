//! Many children at once from a template, all alike: the requester names a number for each and nothing else.
//!
//! A preload enlists one function; a clone calls it with its number. A **bare** swarm runs code of this library alone:
//! such a child does not become a process that the program could ask about itself, has no outcome but its exit code,
//! ends without exit hooks, and is not put in order for glibc's locks and threads, which it does not use. Every page that is not touched is a page that need not be copied.
//!
//! Children are born as in `template.rs`: the kernel writes each pid into its slot of the outcome board, so a zygote that
//! is killed half-way through leaves no child that nobody knows of. Pids come back without pidfds, which the requester
//! opens itself: the children are its own and unreaped, so their numbers cannot belong to anybody else.

use std::os::fd::{AsFd, OwnedFd};

use forkyard_sys::{Errno, Pid, clone, pidfd, wait};

use super::builder::Attributes;
use super::child::{self, Post};
use super::context::Parent;
use super::task::{self, Answer};
use crate::global::Global;

/// What every child of a swarm does.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Swarm {
    /// Called with the child's number; its result is the exit code.
    pub(crate) run: fn(u64) -> i32,
    /// Nothing of the user's program runs in it.
    pub(crate) bare: bool,
    /// What its children are called.
    pub(crate) name: &'static str,
}

/// Most children of one request.
pub(crate) const MOST_AT_ONCE: usize = 64;

static SWARM: Global<Swarm> = Global::new();

/// Says, in a preload, what the children will do.
pub(crate) fn enlist(swarm: Swarm) {
    SWARM.set(swarm);
}

/// What was enlisted in this zygote.
pub(super) fn enlisted() -> Option<Swarm> {
    SWARM.get().copied()
}

/// Becomes a child of a bare swarm.
pub(super) fn become_bare(swarm: Swarm, number: u64, requester: Pid) -> ! {
    if !child::die_with(requester) {
        clone::exit_now(child::EXIT_BEFORE_TASK);
    }
    // The name is decoration.
    let _ = forkyard_sys::prctl::set_name(swarm.name);
    forkyard_sys::mask::replace(0);
    clone::exit_now((swarm.run)(number))
}

/// Brings what a bare child does before its function into a zygote's memory.
pub(crate) fn rehearse_bare() {
    task::touch(become_bare as *const u8);
    let _ = forkyard_sys::prctl::set_name(super::zygote::NAME);
    forkyard_sys::mask::replace(forkyard_sys::mask::current());
}

/// Becomes a child of a swarm that is not bare.
pub(super) fn become_one(
    swarm: Swarm,
    number: u64,
    requester: Pid,
    identity: impl FnOnce() -> (Post, Parent),
) -> ! {
    let (post, parent) = identity();
    let attributes =
        Attributes { name: swarm.name.to_owned(), daemon: true, allow_children: true, guarded: true };
    child::begin(post, attributes, parent, || child::die_with(requester));
    forkyard_sys::mask::replace(0);
    child::conclude(|| match (swarm.run)(number) {
        0 => Ok(Answer::default()),
        code => std::process::exit(code),
    })
}

/// Opens a child by its number. It is this process's own; if a wait of the host program has taken it meanwhile, its
/// end is all that can be told.
pub(super) fn open(pid: Pid) -> Result<OwnedFd, Errno> {
    let pidfd = pidfd::open(pid)?;
    wait::has_ended(pidfd.as_fd())?;
    Ok(pidfd)
}
