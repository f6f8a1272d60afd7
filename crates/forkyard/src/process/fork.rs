//! Children that are copies of this process.
//!
//! README.md beside this file has the rules. The parent holds the template, the keeper's gate and the list of children
//! while the copy is made, so the copy finds them unlocked by its own hand, and closes in them what belongs to the
//! parent.
//!
//! # Safety
//! fork(2) itself. A checked fork happens in a process whose only other threads are the library's own, none of which
//! holds a lock then; an unchecked one is its caller's promise.
#![allow(unsafe_code)]

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use forkyard_sys::{Errno, Pid, clone, pidfd, poll, prctl, socket, wait};
use serde::Serialize;

use super::builder::Attributes;
use super::child::{self, Post};
use super::context::{self, Parent};
use super::handle::Child;
use super::runtime::Runtime;
use super::task::{self, Answer, Call};
use super::template::Template;
use super::{exit, limit, panic, signal, zygote};
use crate::error::{Error, Kind, Result};
use crate::sync_std::lock;

/// Forks, if this process has no other threads of its own, and calls the closure in the copy.
pub(crate) fn start<R, C>(runtime: &'static Runtime, attributes: Attributes, closure: C) -> Result<Arc<Child>>
where
    C: FnOnce() -> R,
    R: Serialize,
{
    refuse_other_threads(runtime, &attributes)?;
    flush();
    let join_family = joiner(runtime, &attributes)?;
    let closure = || {
        join_family();
        closure()
    };
    // SAFETY: just checked.
    unsafe { start_unchecked(runtime, attributes, closure) }
}

/// Forks, and calls the task in the copy.
pub(crate) fn start_call(
    runtime: &'static Runtime,
    call: Call,
    attributes: Attributes,
) -> Result<Arc<Child>> {
    refuse_other_threads(runtime, &attributes)?;
    flush();
    let join_family = joiner(runtime, &attributes)?;
    let task = || {
        join_family();
        task::find(call.task).and_then(|invoke| crate::fd::incoming(call.fds, || invoke(&call.args)))
    };
    // SAFETY: just checked.
    unsafe { copy(runtime, attributes, task) }
}

/// Forks, and calls the closure in the copy.
///
/// # Safety
/// As [`clone::fork`]: what other threads hold locked stays locked in the copy.
pub(crate) unsafe fn start_unchecked<R, C>(
    runtime: &'static Runtime,
    attributes: Attributes,
    closure: C,
) -> Result<Arc<Child>>
where
    C: FnOnce() -> R,
    R: Serialize,
{
    // SAFETY: the caller's promise.
    unsafe { copy(runtime, attributes, || task::encode_result(&closure())) }
}

/// What a guarded copy does first: programs that it executes carry the token, so that they are found when it is gone.
/// (In a copy of many threads the environment may be locked for ever; there only the copy itself is guarded.)
fn joiner(runtime: &'static Runtime, attributes: &Attributes) -> Result<impl FnOnce() + use<>> {
    let token = if attributes.guarded { Some(runtime.with_template(Template::token)?) } else { None };
    Ok(move || token.iter().for_each(|token| zygote::join_family(token)))
}

/// Writes out half a line that was printed; the copy's end would print it again.
fn flush() {
    use std::io::Write;
    // What cannot be written now will be tried twice.
    let _ = std::io::stdout().flush();
}

fn refuse_other_threads(runtime: &Runtime, attributes: &Attributes) -> Result<()> {
    let ours = 1 + runtime.keeper.threads() + signal::own_threads();
    // The kernel lists a thread for a while after a join of it has returned.
    if thread_count(|_| true)? <= ours {
        return Ok(());
    }
    let others = thread_count(|thread| !is_exiting(thread))?.saturating_sub(ours);
    if others == 0 {
        return Ok(());
    }
    Err(Error::new(format!("fork process \"{}\"", attributes.name), Kind::OtherThreads(others)))
}

/// Threads of this process that `counts` holds for.
fn thread_count(counts: impl Fn(&Path) -> bool) -> Result<usize> {
    let threads = std::fs::read_dir("/proc/self/task").map_err(|error| {
        let errno = Errno::from_io_error(&error).unwrap_or(Errno::IO);
        Error::os_hint("count this process's threads in /proc/self/task", errno, limit::hint(errno))
    })?;
    Ok(threads.filter(|thread| thread.as_ref().map_or(true, |thread| counts(&thread.path()))).count())
}

/// True for a thread that has left the program for good: it is gone, or ending in the kernel (proc_pid_stat(5)).
fn is_exiting(thread: &Path) -> bool {
    const PF_EXITING: u64 = 4;
    let stat = match std::fs::read_to_string(thread.join("stat")) {
        Ok(stat) => stat,
        // ESRCH: it went while its line was read.
        Err(error) => return matches!(Errno::from_io_error(&error), Some(Errno::NOENT | Errno::SRCH)),
    };
    // The name, in parentheses, may contain anything.
    let fields = stat.rsplit(')').next().unwrap_or_default();
    let flags = fields.split_whitespace().nth(6).and_then(|flags| flags.parse::<u64>().ok());
    flags.is_some_and(|flags| flags & PF_EXITING != 0)
}

/// What a new copy is told: to call its task, or, because it cannot be watched, to end.
const GO: u8 = 1;
const STOP: u8 = 0;

unsafe fn copy<C>(runtime: &'static Runtime, attributes: Attributes, task: C) -> Result<Arc<Child>>
where
    C: FnOnce() -> Result<Answer>,
{
    let failed = |errno: Errno| {
        Error::os_hint(format!("fork process \"{}\"", attributes.name), errno, limit::hint(errno))
    };
    if attributes.guarded {
        runtime.with_template(|template| template.ensure(runtime))?;
    }
    let lifeline = if attributes.guarded { Some(socket::pair().map_err(failed)?) } else { None };
    let reserve = runtime.reserve().map_err(failed)?;
    let (wait_here, go) = socket::pair().map_err(failed)?;
    // What the copy needs is looked up before it exists.
    let parent_name: &'static str = context::current().name().leak();
    panic::install();
    let slot = runtime.board.offer()?;

    let mut template = lock(&runtime.template);
    let gate = runtime.keeper.hold();
    let children = lock(&runtime.children);
    // SAFETY: the caller's promise.
    let forked = unsafe { clone::fork() };
    match forked {
        Ok(None) => {
            template.abandon();
            children.values().for_each(|child| child.drop_lifeline());
            drop((children, gate, template, go));
            exit::forget_inherited();
            // Until the parent has the pidfd, or is dead: whatever follows may end this process, and its number must not
            // be free before.
            let mut answer = [GO];
            let _ = socket::receive(&wait_here, &mut answer, &mut Vec::new(), false);
            if answer != [GO] {
                clone::exit_now(child::EXIT_BEFORE_TASK);
            }
            drop(wait_here);
            let theirs = lifeline.map(|(ours, theirs)| {
                drop(ours);
                &*Box::leak(Box::new(theirs))
            });
            become_child(runtime, slot, attributes, parent_name, theirs.map(AsFd::as_fd), task)
        }
        Ok(Some(pid)) => {
            drop((children, gate));
            runtime.release(template);
            drop(reserve);
            let (pidfd, lifeline) = (opened(pid), lifeline.map(|(ours, _)| ours));
            // EPIPE: somebody killed it.
            let _ = socket::send(&go, &[if pidfd.is_ok() { GO } else { STOP }], &[], true);
            drop((go, wait_here));
            match pidfd {
                Ok(pidfd) => runtime.adopt(pid, pidfd, slot, attributes, lifeline),
                Err(errno) => {
                    drop(lifeline);
                    // Another thread took the number that was kept free. There are more now; if those are gone as well,
                    // a zombie stays, and the slot with it.
                    if opened(pid).is_ok_and(|pidfd| wait::reap(pidfd.as_fd()).is_ok()) {
                        runtime.board.release(slot);
                    }
                    Err(failed(errno))
                }
            }
        }
        Err(errno) => {
            drop((children, gate));
            runtime.release(template);
            runtime.board.release(slot);
            Err(failed(errno))
        }
    }
}

/// The pidfd of a child that was just forked. glibc's fork gives none, and a raw clone would not put glibc's locks in
/// order; the number is the child's own until it is reaped, which is the library's to do.
fn opened(pid: Pid) -> forkyard_sys::Result<OwnedFd> {
    pidfd::open(pid)
}

fn become_child(
    runtime: &'static Runtime,
    slot: u32,
    attributes: Attributes,
    parent_name: &'static str,
    lifeline: Option<BorrowedFd<'static>>,
    task: impl FnOnce() -> Result<Answer>,
) -> ! {
    let (requester, parcels) = runtime.inheritance();
    let Some(place) = runtime.board.slot(slot) else { clone::exit_now(1) };
    let post = Post { slot: place, index: slot, parcels };
    let parent_pid = runtime.owner();
    let parent = Parent::new(parent_pid, parent_name, requester);
    child::begin(post, attributes, parent, || lifeline.is_some_and(tie));
    // Handlers are inherited; without an fd or a thread for them they wait for the next use of the module.
    let _ = signal::resume_after_fork();
    child::conclude(task)
}

/// Ties this process to whoever holds the other end of the lifeline; false if that is closed already.
fn tie(lifeline: BorrowedFd<'static>) -> bool {
    prctl::die_with_peer(lifeline).is_ok()
        && matches!(poll::readable([lifeline], Some(Instant::now())), Ok([false]))
}
