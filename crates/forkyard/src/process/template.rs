//! A zygote that is there when it is needed: made at the first start, made again when it died.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use forkyard_sys::wait::{self, Doing};
use forkyard_sys::{Errno, Pid, pidfd};

use super::board::INLINE;
use super::builder::Attributes;
use super::runtime::{self, Runtime};
use super::spares::{self, Collected, Spares, is_dead};
use super::task::Call;
use super::unseen::{adopt_unseen, born, discard, is_gone};
use super::zygote::{self, Answer, Surroundings, Zygote};
use super::{limit, swarm};
use crate::error::{Error, Kind, Result};

/// How many zygotes in a row may be lost by one start before it is an error: somebody is killing them.
const ATTEMPTS: usize = 5;
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
    /// What the guarded children carry, so that any zygote of this template can find what they left; made with the first.
    token: Option<String>,
    zygote: Option<Zygote>,
    /// Those that have rights which this process has given up. They cannot be ended from here, and stand guard over what was
    /// started with those rights.
    retired: Vec<Zygote>,
    spares: Spares,
    starts: usize,
    /// There was a zygote, and it was lost: the keeper makes another, so that guarded children are guarded again.
    missing: bool,
    /// How many numbers a start needs free: more where it executes the program afresh.
    room: usize,
    /// Numbers that are kept free for a zygote, while there is none.
    reserve: Vec<OwnedFd>,
}

/// Numbers that [`Template::start_alone`] needs for a moment: two sockets, memory, and the process.
const ROOM_ALONE: usize = 6;
/// The same for a zygote, which keeps two of them, and a start after that.
const ROOM_FOR_ZYGOTE: usize = ROOM_ALONE + 2;

/// A program that has started so many is taken to start more, and gets a spare; and with each start after that one more.
const STARTS_BEFORE_SPARES: usize = 2;

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
        Template {
            anchor,
            preload,
            token: None,
            zygote: None,
            retired: Vec::new(),
            spares: Spares::default(),
            starts: 0,
            missing: false,
            room: 1,
            reserve: Vec::new(),
        }
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
            let token = self.token()?;
            self.reserve.clear();
            self.zygote = Some(match self.anchor {
                Anchor::Caller => Zygote::exec(&runtime.outfit()?, &token, self.preload.as_ref(), false)?,
                Anchor::Keeper => runtime.keeper.run(move || exec_for_keeper(runtime, &token))?,
            });
        }
        Ok(())
    }

    /// What guarded children carry in their environment.
    pub(crate) fn token(&mut self) -> Result<String> {
        let token = self.token.take().map_or_else(zygote::token, Ok)?;
        self.token = Some(token.clone());
        Ok(token)
    }

    /// On the keeper's own thread: replaces a zygote that has died.
    pub(crate) fn revive_on_keeper(&mut self, runtime: &'static Runtime) {
        if self.pidfd().is_some_and(is_dead) {
            self.lose();
        }
        self.end_retired();
        if self.zygote.is_none() && self.missing {
            self.missing = false;
            // A failure is told by the next start, which tries again.
            self.zygote = self.token().and_then(|token| exec_for_keeper(runtime, &token)).ok();
        }
    }

    /// Starts a child; exactly one, whatever happens to the zygote meanwhile.
    pub(crate) fn start(
        &mut self,
        runtime: &'static Runtime,
        call: &Call,
        attributes: &Attributes,
    ) -> Result<Started> {
        let now = Surroundings::now();
        for _ in 0..ATTEMPTS {
            self.ensure_for(runtime, &now)?;
            let started = match call.fds.is_empty() && call.args.len() <= INLINE {
                true => self.start_by_spare(runtime, &now, call, attributes)?,
                false => self.start_directly(runtime, &now, call, attributes)?,
            };
            if let Some(started) = started {
                return Ok(started);
            }
        }
        let why =
            format!("its zygote was lost {ATTEMPTS} times in a row (is something killing or stopping it?)");
        Err(Error::new(format!("start process \"{}\"", attributes.name), Kind::Protocol(why)))
    }

    /// `None` if the zygote or the spare was lost, and nothing was started.
    fn start_by_spare(
        &mut self,
        runtime: &'static Runtime,
        now: &Surroundings,
        call: &Call,
        attributes: &Attributes,
    ) -> Result<Option<Started>> {
        let was_ordered = !self.spares.is_empty();
        if !was_ordered {
            self.order(runtime)?;
        }
        if let Some(errno) = self.collect(runtime, Spares::collect_first) {
            if self.has_other_limits() {
                // It met limits of another time: the next one meets ours.
                self.lose();
                return Ok(None);
            }
            // What was refused to an order of another time may be had now.
            return if was_ordered { Ok(None) } else { Err(refused(attributes, errno)) };
        }
        let (Some(zygote), Some(slot)) = (&self.zygote, self.spares.first_slot()) else { return Ok(None) };
        let (request, directory) = zygote.request(now, slot, call, attributes)?;
        let encoded = postcard::to_stdvec(&request).unwrap_or_default();
        if directory.is_some() || encoded.is_empty() || encoded.len() > INLINE {
            return self.start_directly(runtime, now, call, attributes);
        }
        let Some((slot, pid, pidfd)) = self.spares.take_first() else { return Ok(None) };
        // A spare that was killed, or stopped, while it waited is nobody's loss; one that is killed from here on had its task.
        if wait::doing(pidfd.as_fd()) != Ok(Doing::Running) {
            discard(runtime, slot, Some((pid, pidfd)));
            return Ok(None);
        }
        if let Some(place) = runtime.board.slot(slot) {
            place.call(&encoded);
        }
        self.starts = self.starts.saturating_add(1);
        if self.anchor == Anchor::Keeper && self.starts >= STARTS_BEFORE_SPARES {
            let wanted = spares::MOST.min(1 + self.starts - STARTS_BEFORE_SPARES);
            // No room for a spare: the next start will say so, if there is none for it either.
            while self.spares.len() < wanted && self.order(runtime).is_ok() {}
        }
        Ok(Some(Started { pid, pidfd, slot }))
    }

    /// Starts a child that gets its task with the clone: one whose request does not fit into a slot. `None` if the zygote
    /// was lost, and nothing was started.
    fn start_directly(
        &mut self,
        runtime: &'static Runtime,
        now: &Surroundings,
        call: &Call,
        attributes: &Attributes,
    ) -> Result<Option<Started>> {
        // Answers come in the order of the requests.
        self.collect(runtime, Spares::collect_all);
        let Some(zygote) = &mut self.zygote else { return Ok(None) };
        let slot = runtime.board.offer()?;
        let answer = zygote.request(now, slot, call, attributes).and_then(|(request, directory)| {
            let fds: Vec<_> = call.fds.iter().chain(&directory).map(AsFd::as_fd).collect();
            zygote.start(request, &fds)
        });
        let made = match answer {
            Ok(Answer::Born(pid, pidfd)) => Ok(Some((pid, pidfd))),
            Ok(Answer::Refused(errno)) => match born(runtime, slot) {
                // A child for which there was no pidfd is there all the same.
                Some(pid) => adopt_unseen(pid, attributes).map(Some),
                // Those that have no task yet make room for one that has.
                None if !self.spares.is_empty() => {
                    self.spares.discard(runtime);
                    Ok(None)
                }
                // It met limits of another time: the next one meets ours.
                None if self.has_other_limits() => {
                    self.lose();
                    Ok(None)
                }
                None => Err(refused(attributes, errno)),
            },
            Ok(Answer::Lost) => {
                self.lose();
                // Its task may have run: it is not started again, whatever fails here.
                born(runtime, slot).map(|pid| adopt_unseen(pid, attributes)).transpose()
            }
            Err(error) => Err(error),
        };
        match made {
            Ok(Some((pid, pidfd))) => Ok(Some(Started { pid, pidfd, slot })),
            nothing => {
                // A child that runs, and could not be watched, still writes there: nobody else gets the slot.
                let errno = nothing.as_ref().err().and_then(Error::errno);
                if born(runtime, slot).is_none() || errno.is_some_and(is_gone) {
                    runtime.board.release(slot);
                }
                nothing.map(|_| None)
            }
        }
    }

    /// Asks for a spare.
    fn order(&mut self, runtime: &'static Runtime) -> Result<()> {
        match &mut self.zygote {
            Some(zygote) => self.spares.order(runtime, zygote),
            None => Err(Error::new("start a process", Kind::Protocol("there is no zygote".to_owned()))),
        }
    }

    /// Collects answers to orders. The kernel's refusal, if it refused; that spare is one no longer, and none is there if
    /// the zygote was lost.
    fn collect(
        &mut self,
        runtime: &'static Runtime,
        how: impl FnOnce(&mut Spares, &Runtime, &mut Zygote) -> Collected,
    ) -> Option<Errno> {
        match how(&mut self.spares, runtime, self.zygote.as_mut()?) {
            Collected::Done => None,
            Collected::Refused(errno) => Some(errno),
            Collected::Lost => {
                self.lose();
                None
            }
        }
    }

    /// Takes charge of the spares whose births have been announced. Called whenever a child has ended.
    pub(crate) fn look_after_spares(&mut self, runtime: &'static Runtime) {
        // A refusal is told by the next start.
        self.collect(runtime, Spares::collect_announced);
    }

    /// Reaps the spares that have died.
    pub(crate) fn bury_spares(&mut self, runtime: &'static Runtime) {
        self.look_after_spares(runtime);
        self.spares.bury(runtime);
    }

    /// Starts children of the enlisted swarm, one for each number. Fewer, with the reason, if the kernel refused.
    pub(crate) fn start_many(
        &mut self,
        runtime: &'static Runtime,
        numbers: &[u64],
    ) -> (Vec<Started>, Option<Error>) {
        let mut births = Vec::with_capacity(numbers.len());
        // Room for the pidfds first: a child that cannot be watched would have to be ended.
        let room = self.ensure(runtime).and_then(|()| match &mut self.zygote {
            Some(zygote) => zygote.fill_reserve(numbers.len()),
            None => Ok(()),
        });
        let mut failed = room.err();
        // With less room, fewer of them: some is better than none.
        let numbers = &numbers[..numbers.len().min(self.zygote.as_ref().map_or(0, Zygote::room))];
        for &number in numbers {
            match runtime.board.offer() {
                Ok(slot) => births.push((slot, number)),
                Err(error) => {
                    failed = Some(error);
                    break;
                }
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
            if self.has_other_limits() {
                self.lose();
            }
            failed = Some(Error::os_hint("start processes", errno, limit::hint(errno)));
        }
        let mut started = Vec::with_capacity(pids.len());
        let mut pids = pids.into_iter();
        for (slot, _) in births {
            let Some(pid) = pids.next() else {
                discard(runtime, slot, None);
                continue;
            };
            if let Some(zygote) = &mut self.zygote {
                zygote.spend_reserve();
            }
            match swarm::open(pid) {
                Ok(pidfd) => started.push(Started { pid, pidfd, slot }),
                Err(errno) => {
                    // Another thread took the number; or the host program's wait took the child.
                    self.end_unwatched(pid);
                    runtime.board.release(slot);
                    failed = Some(Error::os_hint("watch a process", errno, limit::hint(errno)));
                }
            }
        }
        (started, failed)
    }

    /// Keeps room for one start more, whatever else this process opens; and for a zygote, if there is none.
    pub(crate) fn keep_room(&mut self) -> Result<()> {
        if let Some(zygote) = &mut self.zygote {
            return zygote.fill_reserve(self.room);
        }
        let Some(runtime) = runtime::existing() else { return Ok(()) };
        while self.reserve.len() < ROOM_FOR_ZYGOTE {
            let refused = |errno| Error::os_hint("start a zygote", errno, limit::hint(errno));
            self.reserve.push(runtime.reserve().map_err(refused)?);
        }
        Ok(())
    }

    /// Gives up the room that is kept, for a start by other means.
    pub(crate) fn use_room(&mut self) {
        self.reserve.clear();
        if let Some(zygote) = &mut self.zygote {
            (0..zygote.room()).for_each(|_| zygote.spend_reserve());
        }
    }

    /// Ends a child for whose pidfd there was no room, with another of the numbers that are kept free.
    fn end_unwatched(&mut self, pid: Pid) {
        if let Some(zygote) = &mut self.zygote {
            zygote.spend_reserve();
        }
        if let Ok(pidfd) = swarm::open(pid) {
            // ESRCH: it has ended by itself.
            let _ = pidfd::send_signal(pidfd.as_fd(), SIGKILL);
            let _ = wait::reap(pidfd.as_fd());
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
        self.room = ROOM_ALONE;
        self.use_room();
        let zygote = self.token().and_then(|token| {
            let outfit = runtime.outfit()?;
            Zygote::exec(&outfit, &token, self.preload.as_ref(), true)
        });
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

    /// True if the keeper has something to do here.
    pub(crate) fn is_missing_a_zygote(&self) -> bool {
        self.zygote.is_none() && self.missing
    }

    fn has_other_limits(&self) -> bool {
        self.zygote.as_ref().is_some_and(Zygote::has_other_limits)
    }

    /// Ends the zygote, if there is one; the next start makes another.
    pub(crate) fn lose(&mut self) {
        if let Some(zygote) = self.zygote.take() {
            if let (Some(mut alive), Some(runtime)) = (zygote.end(), runtime::existing()) {
                self.spares.await_all(runtime, &mut alive);
                self.retired.push(alive);
            }
            self.missing = true;
        }
        // A spare belongs to its zygote: what it has of this process's surroundings is what that one had.
        if let Some(runtime) = runtime::existing() {
            self.spares.discard(runtime);
        }
    }

    /// Ends, or reaps, what can be.
    fn end_retired(&mut self) {
        self.retired = std::mem::take(&mut self.retired).into_iter().filter_map(Zygote::end).collect();
    }

    /// Ends the zygote after it has killed all that its guarded children have left behind.
    pub(crate) fn sweep(&mut self) {
        self.retired.drain(..).chain(self.zygote.take()).for_each(Zygote::sweep);
        self.lose();
    }

    /// In a fork of the requester: closes what belongs to the parent.
    pub(crate) fn abandon(&mut self) {
        self.retired.drain(..).chain(self.zygote.take()).for_each(Zygote::abandon);
        self.spares.abandon();
        self.reserve.clear();
    }
}

impl Drop for Template {
    fn drop(&mut self) {
        self.lose();
    }
}

fn exec_for_keeper(runtime: &'static Runtime, token: &str) -> Result<Zygote> {
    let zygote = Zygote::exec(&runtime.outfit()?, token, None, false)?;
    runtime.keeper.watch_zygote(zygote.pidfd());
    Ok(zygote)
}

fn refused(attributes: &Attributes, errno: Errno) -> Error {
    Error::os_hint(format!("start process \"{}\"", attributes.name), errno, limit::hint(errno))
}
