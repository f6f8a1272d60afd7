//! A zygote that is there when it is needed: made at the first start, made again when it died.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::atomic::Ordering;

use forkyard_sys::{Errno, Pid, pidfd, wait};

use super::builder::Attributes;
use super::runtime::Runtime;
use super::task::Call;
use super::zygote::{ATTEMPTS, Answer, Surroundings, Zygote};
use super::{limit, swarm};
use crate::error::{Error, Kind, Result};

const SIGKILL: i32 = 9;

/// The thread that guarded children's lives are tied to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Anchor {
    /// The keeper, which lives as long as the process.
    Keeper,
    /// Whoever makes and revives the template; it has to outlive the children.
    Caller,
}

/// A zygote, or the means to make one.
pub(crate) struct Template {
    anchor: Anchor,
    preload: Option<Call>,
    zygote: Option<Zygote>,
}

/// A child that was just born.
#[derive(Debug)]
pub(crate) struct Started {
    pub(crate) pid: Pid,
    /// The zygote may keep a duplicate for a while, so take it out of an epoll set explicitly.
    pub(crate) pidfd: OwnedFd,
    /// Its slot of the outcome board; to be released after it has been reaped.
    pub(crate) slot: u32,
}

impl Template {
    /// Not made yet.
    pub(crate) fn unmade(anchor: Anchor, preload: Option<Call>) -> Template {
        Template { anchor, preload, zygote: None }
    }

    /// Makes the zygote if there is none that fits.
    pub(crate) fn ensure(&mut self, runtime: &'static Runtime) -> Result<()> {
        self.ensure_for(runtime, &Surroundings::now())
    }

    fn ensure_for(&mut self, runtime: &'static Runtime, now: &Surroundings) -> Result<()> {
        if self.zygote.as_ref().is_some_and(|zygote| zygote.is_foreign(now)) {
            self.lose();
        }
        if self.zygote.is_none() {
            self.zygote = Some(match self.anchor {
                Anchor::Caller => Zygote::exec(&runtime.outfit()?, self.preload.as_ref(), false)?,
                Anchor::Keeper => runtime.keeper.run(move || exec_for_keeper(runtime))?,
            });
        }
        Ok(())
    }

    /// The same on the keeper's own thread.
    pub(crate) fn ensure_on_keeper(&mut self, runtime: &'static Runtime) -> Result<()> {
        if self.zygote.is_none() {
            self.zygote = Some(exec_for_keeper(runtime)?);
        }
        Ok(())
    }

    /// Starts a child; exactly one, whatever happens to the zygote meanwhile.
    pub(crate) fn start(
        &mut self,
        runtime: &'static Runtime,
        call: &Call,
        attributes: &Attributes,
    ) -> Result<Started> {
        let slot = runtime.board.offer()?;
        match self.start_in(runtime, slot, call, attributes) {
            Ok((pid, pidfd)) => Ok(Started { pid, pidfd, slot }),
            Err(error) => {
                runtime.board.release(slot);
                Err(error)
            }
        }
    }

    fn start_in(
        &mut self,
        runtime: &'static Runtime,
        slot: u32,
        call: &Call,
        attributes: &Attributes,
    ) -> Result<(Pid, OwnedFd)> {
        let now = Surroundings::now();
        for _ in 0..ATTEMPTS {
            self.ensure_for(runtime, &now)?;
            let Some(zygote) = &mut self.zygote else { continue };
            match zygote.start(&now, slot, call, attributes)? {
                Answer::Born(pid, pidfd) => return Ok((pid, pidfd)),
                Answer::Refused(errno) => {
                    return Err(Error::os_hint(
                        format!("start process \"{}\"", attributes.name),
                        errno,
                        limit::hint(errno),
                    ));
                }
                Answer::Lost => {
                    self.lose();
                    if let Some(pid) = born(runtime, slot) {
                        return adopt_unseen(pid, attributes);
                    }
                }
            }
        }
        let why =
            format!("its zygote was lost {ATTEMPTS} times in a row (is something killing or stopping it?)");
        Err(Error::new(format!("start process \"{}\"", attributes.name), Kind::Protocol(why)))
    }

    /// Starts children of the enlisted swarm, one for each number. Fewer, with the reason, if the kernel refused.
    pub(crate) fn start_many(
        &mut self,
        runtime: &'static Runtime,
        numbers: &[u64],
    ) -> (Vec<Started>, Option<Error>) {
        let mut births = Vec::with_capacity(numbers.len());
        let mut failed = self.ensure(runtime).err();
        for &number in numbers {
            if failed.is_some() {
                break;
            }
            match runtime.board.offer() {
                Ok(slot) => births.push((slot, number)),
                Err(error) => failed = Some(error),
            }
        }
        let Some(zygote) = self.zygote.as_mut().filter(|_| !births.is_empty()) else {
            return (Vec::new(), failed);
        };
        let (pids, refused) = match zygote.start_many(&births) {
            Some(answer) => answer,
            None => {
                self.lose();
                // What was born has written itself down; the rest is for another try.
                let pids = births.iter().map(|&(slot, _)| born(runtime, slot));
                (pids.map_while(|pid| pid).collect(), None)
            }
        };
        if let Some(errno) = refused {
            failed = Some(Error::os_hint("start processes", errno, limit::hint(errno)));
        }
        let mut started = Vec::with_capacity(pids.len());
        let mut pids = pids.into_iter();
        for (slot, _) in births {
            match pids.next().map(|pid| (pid, swarm::open(pid))) {
                Some((pid, Ok(pidfd))) => started.push(Started { pid, pidfd, slot }),
                Some((pid, Err(errno))) => {
                    self.end_unwatched(pid);
                    runtime.board.release(slot);
                    failed = Some(Error::os_hint("watch a process", errno, limit::hint(errno)));
                }
                None => runtime.board.release(slot),
            }
        }
        (started, failed)
    }

    /// Ends a child for whose pidfd there was no room, with the number that is kept free for this.
    fn end_unwatched(&mut self, pid: Pid) {
        if let Some(zygote) = &mut self.zygote {
            zygote.with_reserve(|| {
                if let Ok(pidfd) = swarm::open(pid) {
                    // ESRCH: it has ended by itself.
                    let _ = pidfd::send_signal(pidfd.as_fd(), SIGKILL);
                    let _ = wait::reap(pidfd.as_fd());
                }
            });
        }
    }

    /// Starts a child by executing this program afresh: where siblings are refused.
    pub(crate) fn start_alone(
        &mut self,
        runtime: &'static Runtime,
        call: &Call,
        attributes: &Attributes,
    ) -> Result<Started> {
        let slot = runtime.board.offer()?;
        let zygote = Zygote::exec(&runtime.outfit()?, self.preload.as_ref(), true);
        match zygote.and_then(|zygote| zygote.become_child(slot, call, attributes)) {
            Ok((pid, pidfd)) => Ok(Started { pid, pidfd, slot }),
            Err(error) => {
                runtime.board.release(slot);
                Err(error)
            }
        }
    }

    /// The zygote's pid. `None` while there is no zygote.
    pub(crate) fn pid(&self) -> Option<Pid> {
        self.zygote.as_ref().map(Zygote::pid)
    }

    /// The zygote's pidfd: readable once it has died. `None` while there is no zygote.
    pub(crate) fn pidfd(&self) -> Option<BorrowedFd<'_>> {
        self.zygote.as_ref().map(Zygote::pidfd)
    }

    /// Ends the zygote, if there is one; the next start makes another.
    pub(crate) fn lose(&mut self) {
        if let Some(zygote) = self.zygote.take() {
            zygote.end();
        }
    }

    /// In a fork of the requester: closes what belongs to the parent.
    pub(crate) fn abandon(&mut self) {
        if let Some(zygote) = self.zygote.take() {
            zygote.abandon();
        }
    }
}

impl Drop for Template {
    fn drop(&mut self) {
        self.lose();
    }
}

fn exec_for_keeper(runtime: &'static Runtime) -> Result<Zygote> {
    let zygote = Zygote::exec(&runtime.outfit()?, None, false)?;
    runtime.keeper.watch_zygote(zygote.pidfd());
    Ok(zygote)
}

/// The child that a lost zygote had made before it could say so. The zygote is dead and reaped, so nothing changes any
/// more; the child is ours and unreaped, so its number is its own. Whatever fails here, it is not started again: its
/// task may have run.
fn adopt_unseen(pid: Pid, attributes: &Attributes) -> Result<(Pid, OwnedFd)> {
    swarm::open(pid).map(|pidfd| (pid, pidfd)).map_err(|errno| {
        let hint = match errno {
            Errno::CHILD | Errno::SRCH => "it has ended, and somebody else took its status".to_owned(),
            errno => limit::hint(errno),
        };
        let number = pid.as_raw_nonzero();
        Error::os_hint(format!("watch process \"{}\" (pid {number})", attributes.name), errno, hint)
    })
}

/// The child that the kernel wrote into this slot.
fn born(runtime: &Runtime, slot: u32) -> Option<Pid> {
    let born = runtime.board.slot(slot)?.born.load(Ordering::Acquire);
    Pid::from_raw(i32::try_from(born).ok()?)
}
