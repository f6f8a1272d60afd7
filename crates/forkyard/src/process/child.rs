//! The child's side: everything between the clone and the task, and from the task to the exit.
//!
//! README.md beside this file tells the whole story. Until the slot says `Running` the child is ours alone; any
//! failure before that ends it with [`EXIT_BEFORE_TASK`], and the requester tells it from the slot.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::atomic::Ordering;

use forkyard_sys::{Pid, clone, mask, pidfd, prctl};
use serde::{Deserialize, Serialize};

use super::board::{INLINE, Slot, State};
use super::builder::Attributes;
use super::context::{self, Parent};
use super::task::Answer;
use super::zygote::message;
use super::{exit, panic, task};
use crate::error::{Error, Kind, Panic, Result};
use crate::global::Global;
use crate::shm::{self, Keep};

/// Exit code of a child that could not reach its task; no task has run then.
pub(crate) const EXIT_BEFORE_TASK: i32 = 71;
/// Exit code after a panic, as Rust's own main has it.
const EXIT_PANICKED: i32 = 101;

/// Where a child tells its outcome.
pub(crate) struct Post {
    pub(crate) slot: &'static Slot,
    pub(crate) index: u32,
    pub(crate) parcels: BorrowedFd<'static>,
}

static POST: Global<Post> = Global::new();

/// An outcome that does not fit into a slot.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Parcel {
    /// The task's encoded result.
    Value(Vec<u8>),
    /// The task panicked.
    Panic(Panic),
    /// The arguments could not be decoded, or the result not be encoded.
    Failed(String),
}

/// Makes a child of this process: ties it to its parent, and says who it is. Its own code may run from here.
pub(crate) fn begin(post: Post, attributes: Attributes, parent: Parent, tie: impl FnOnce() -> bool) {
    let post = POST.set(post);
    let pid = pidfd::own_pid().as_raw_nonzero().get().unsigned_abs();
    post.slot.born.store(pid, Ordering::Relaxed);
    if attributes.guarded && !tie() {
        clone::exit_now(EXIT_BEFORE_TASK);
    }
    // The name is decoration: a process without /proc lives on under the old one.
    let _ = prctl::set_name(&attributes.name);
    context::enter(attributes, parent);
}

/// Ties this process to the thread that made its template: false if that has ended already.
pub(crate) fn die_with(requester: Pid) -> bool {
    prctl::die_with_parent().is_ok() && prctl::parent() == Some(requester)
}

/// Calls a registered task and tells its outcome; the exit code to end with.
pub(crate) fn call(name: &str, args: &[u8], fds: Vec<OwnedFd>) -> i32 {
    run(|| task::find(name).and_then(|invoke| crate::fd::incoming(fds, || invoke(args))))
}

/// Runs the task and ends the process with its outcome.
pub(crate) fn conclude(task: impl FnOnce() -> Result<Answer>) -> ! {
    exit::end_of_task(run(task))
}

/// Runs the task and tells its outcome; the exit code to end with.
fn run(task: impl FnOnce() -> Result<Answer>) -> i32 {
    let Some(post) = POST.get() else { clone::exit_now(EXIT_BEFORE_TASK) };
    post.slot.enter(State::Running);
    match panic::catch(|| {
        task().and_then(|answer| send_handles(post, &answer.handles).map(|()| answer.bytes))
    }) {
        Ok(Ok(value)) if value.len() <= INLINE => {
            post.slot.put(&value);
            0
        }
        Ok(Ok(value)) => send(post, Parcel::Value(value), State::ReturnedParcel, 0),
        Ok(Err(error)) => send(post, Parcel::Failed(error.to_string()), State::Panicked, EXIT_PANICKED),
        Err(panic) => send(post, Parcel::Panic(panic), State::Panicked, EXIT_PANICKED),
    }
}

/// Sends what keeps the objects alive whose handles are in the result to the parent.
fn send_handles(post: &Post, handles: &[Keep]) -> Result<()> {
    if handles.is_empty() {
        return Ok(());
    }
    let refused = |why: &str| Err(Error::new("return a shared object", Kind::Invalid(why.to_owned())));
    let parent = context::parent().filter(|parent| parent.is_alive());
    let Some(parent) =
        parent.and_then(|parent| shm::of_pid(parent.pid().as_raw_nonzero().get().unsigned_abs()))
    else {
        return refused("its parent shares nothing so far; have it make a shared object of any kind before");
    };
    match shm::Parcel::send(handles, parent, shm::me()?.id, |name| post.slot.note_carrier(name))? {
        true => Ok(()),
        false => refused("its parent is dead"),
    }
}

/// Takes back what [`begin`] made of a zygote that rehearses.
pub(crate) fn forget() {
    POST.clear();
    context::leave();
}

/// Sends a parcel, announces it, and returns the exit code to end with.
fn send(post: &Post, parcel: Parcel, announce: State, code: i32) -> i32 {
    let sent = message::encode(&(post.index, parcel))
        .and_then(|packet| message::send(post.parcels, &packet, &[], false));
    match sent {
        Ok(()) => {
            post.slot.enter(announce);
            code
        }
        // The requester is gone, or there is no memory left for the parcel: nobody to tell but the exit code.
        Err(_) => EXIT_PANICKED,
    }
}

/// Tells of a panic that will abort this process: called by the panic hook where panics do not unwind.
pub(crate) fn tell_of_abort(panic: &Panic) {
    if let Some(post) = POST.get().filter(|post| post.slot.state() == Some(State::Running)) {
        send(post, Parcel::Panic(panic.clone()), State::Panicked, EXIT_PANICKED);
    }
}

/// Notes that the task ended the process by exit(3); called as the first exit hook.
pub(crate) fn note_exit() {
    if let Some(post) = POST.get() {
        post.slot.advance(State::Running, State::Exited);
    }
}

/// Sets what a request says about the surroundings: directory, environment, signal mask.
pub(crate) fn surround(directory: Option<OwnedFd>, signals: u64) -> Result<()> {
    if let Some(directory) = directory {
        prctl::enter(directory.as_fd()).map_err(|errno| Error::os("enter the parent's directory", errno))?;
    }
    mask::replace(signals);
    Ok(())
}

/// Ends a child that could not reach its task, with a line about why.
pub(crate) fn fail(error: &Error) -> ! {
    eprintln!("forkyard: a child could not start: {error}");
    clone::exit_now(EXIT_BEFORE_TASK)
}
