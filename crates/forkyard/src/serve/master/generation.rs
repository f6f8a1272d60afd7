//! A generation: a zygote, the children cloned from it, and the lane they share.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use forkyard_sys::epoll::EventFd;
use forkyard_sys::exec::SpawnError;
use forkyard_sys::{Errno, socket, wait};

use super::super::child::{self, Settings, Setup};
use super::super::handoff::{self, Handed, Packet};
use super::super::scoreboard::Board;
use super::super::small::Small;
use super::children::Child;
use crate::error::{Error, Result};
use crate::process::Fd;
use crate::process::builder::Attributes;
use crate::process::runtime::{self, Runtime};
use crate::process::swarm;
use crate::process::task::Call;
use crate::process::template::{Anchor, Started, Template};

/// A generation of children. Dropping the sending end of its lane retires them all, without a race.
pub(super) struct Generation {
    pub(super) id: u64,
    template: Template,
    /// What children execute, if they are no clones of the zygote.
    small: Option<Small>,
    shared: bool,
    to: Option<OwnedFd>,
    from: OwnedFd,
    /// Children that live.
    pub(super) living: usize,
    /// Connections handed to children through the common lane and not over.
    pub(super) unfinished: usize,
    /// Children that are about to be started: what is sent for them lies in the lane when they look into it.
    pub(super) coming: usize,
    /// `QUIT`s that no child is known to have taken.
    pub(super) quits: usize,
}

impl Generation {
    /// Makes the zygote and has it prepared. `shared`: the children share one lane.
    pub(super) fn new(
        id: u64,
        board: &Board,
        bell: &EventFd,
        settings: &Settings,
        shared: bool,
    ) -> Result<Generation> {
        let what = "set up a server's children";
        let os = |errno: Errno| Error::os(what, errno);
        let (to, from) = socket::pair().map_err(os)?;
        let copy = |fd: BorrowedFd<'_>| {
            fd.try_clone_to_owned()
                .map_err(|e| Error::os(what, Errno::from_io_error(&e).unwrap_or(Errno::IO)))
        };
        let setup = Setup {
            board: copy(board.fd().ok_or_else(|| os(Errno::BADF))?)?.into(),
            bell: copy(bell.as_fd())?.into(),
            lane: if shared { Some(copy(from.as_fd())?.into()) } else { None },
            settings: settings.clone(),
        };
        let call = child::prepare.call(&(setup,))?;
        let mut template = Template::unmade(Anchor::Caller, Some(call));
        template.ensure(runtime::get()?)?;
        let small = board.fd().and_then(|fd| Small::prepare(settings, (fd, board.len()), bell.as_fd()));
        Ok(Generation {
            id,
            template,
            small: small.filter(|_| shared),
            shared,
            to: Some(to),
            from,
            living: 0,
            unfinished: 0,
            coming: 0,
            quits: 0,
        })
    }

    /// Starts a worker with a lane of its own for a slot of the scoreboard.
    pub(super) fn start_with_lane(&mut self, slot: u32, lane: OwnedFd) -> Result<Started> {
        let call = child::serve_slot.call(&(slot, 0u64, Some(Fd::from(lane))))?;
        let started = self.start_other(&call, child::NAME)?;
        self.living += 1;
        Ok(started)
    }

    /// The same on the common lane, where the kernel refuses clones.
    fn start_alone(&mut self, runtime: &'static Runtime, slot: u32, most: u64) -> Result<Started> {
        let call = child::serve_slot.call(&(slot, most, None::<Fd>))?;
        self.template.start_alone(runtime, &call, &attributes())
    }

    /// Starts children on the common lane: for each a slot of the scoreboard, and how many connections it serves
    /// (0: any number). Fewer, with the reason, if not all could be started.
    pub(super) fn start_many(&mut self, children: &[(u32, u64)]) -> (Vec<Child>, Option<Error>) {
        let (started, error) = match &self.small {
            Some(small) => execute_many(small, &mut self.template, self.from.as_fd(), self.id, children),
            None => {
                let (started, error) = self.clone_many(children);
                let child = |(started, &(_, most))| Child::new(started, self.id, None, most);
                (started.into_iter().zip(children).map(child).collect(), error)
            }
        };
        self.living += started.len();
        (started, error)
    }

    /// True if a connection can have a child of its own started with it.
    pub(super) fn executes(&self) -> bool {
        self.small.is_some() && self.is_open()
    }

    /// Starts a child with this connection, which is claimed for it.
    pub(super) fn start_with(
        &mut self,
        slot: u32,
        handed: &Handed,
    ) -> Option<std::result::Result<Child, SpawnError>> {
        let mut started = self.small.as_ref()?.serve(slot, handed);
        if started.as_ref().is_err_and(is_out_of_descriptors) {
            self.template.use_room();
            started = self.small.as_ref()?.serve(slot, handed);
        }
        Some(started.map(|(spawned, launch)| {
            self.living += 1;
            self.unfinished += 1;
            Child::executed(spawned, Some(launch), self.id)
        }))
    }

    fn clone_many(&mut self, children: &[(u32, u64)]) -> (Vec<Started>, Option<Error>) {
        let runtime = match runtime::get() {
            Ok(runtime) => runtime,
            Err(error) => return (Vec::new(), Some(error)),
        };
        let numbers: Vec<u64> = children.iter().map(|&(slot, most)| child::number(slot, most)).collect();
        let (mut started, mut error) = (Vec::with_capacity(numbers.len()), None);
        for some in numbers.chunks(swarm::MOST_AT_ONCE) {
            let (more, failed) = self.template.start_many(runtime, some);
            let all = more.len() == some.len();
            started.extend(more);
            error = failed;
            if !all {
                break;
            }
        }
        if error.as_ref().and_then(Error::errno).is_some_and(runtime::is_refusal_of_siblings) {
            error = None;
            for &(slot, most) in &children[started.len()..] {
                match self.start_alone(runtime, slot, most) {
                    Ok(one) => started.push(one),
                    Err(refused) => {
                        error = Some(refused);
                        break;
                    }
                }
            }
        }
        (started, error)
    }

    /// Starts something else than a child that serves.
    pub(super) fn start_other(&mut self, call: &Call, name: &str) -> Result<Started> {
        let attributes = Attributes { name: name.to_owned(), ..attributes() };
        let runtime = runtime::get()?;
        match self.template.start(runtime, call, &attributes) {
            Err(error) if error.errno().is_some_and(runtime::is_refusal_of_siblings) => {
                self.template.start_alone(runtime, call, &attributes)
            }
            result => result,
        }
    }

    /// Keeps room for one child more, whatever else is opened.
    pub(super) fn keep_room(&mut self) -> Result<()> {
        self.template.keep_room()
    }

    /// What the descendants of this generation carry in their environment.
    pub(super) fn token(&mut self) -> Result<String> {
        self.template.token()
    }

    /// The zygote's pid, while there is one.
    pub(super) fn zygote(&self) -> Option<u32> {
        self.template.pid().map(|pid| pid.as_raw_nonzero().get().unsigned_abs())
    }

    /// The zygote's pidfd, while there is one.
    pub(super) fn pidfd(&self) -> Option<BorrowedFd<'_>> {
        self.template.pidfd()
    }

    /// Gives up that room: something is started that the zygote does not start.
    pub(super) fn use_room(&mut self) {
        self.template.use_room();
    }

    /// Starts the zygote again after its death.
    pub(super) fn revive(&mut self) -> Result<()> {
        self.template.ensure(runtime::get()?)
    }

    /// Puts the zygote away if it has died.
    pub(super) fn lose_dead_zygote(&mut self) -> bool {
        let dead =
            self.template.pidfd().is_some_and(|pidfd| matches!(wait::has_ended(pidfd), Ok(true) | Err(_)));
        if dead {
            self.template.lose();
        }
        dead
    }

    /// How many packets more the common lane's children can take.
    pub(super) fn idle(&self) -> usize {
        if !self.shared || self.to.is_none() {
            return 0;
        }
        (self.living + self.coming).saturating_sub(self.unfinished + self.quits)
    }

    /// Sends a connection down the common lane.
    pub(super) fn send(&mut self, handed: &Handed) -> forkyard_sys::Result<()> {
        let Some(to) = &self.to else { return Err(Errno::PIPE) };
        handoff::send(to.as_fd(), handed)?;
        self.unfinished += 1;
        Ok(())
    }

    /// Asks one child to leave.
    pub(super) fn send_quit(&mut self) {
        if self.to.as_ref().is_some_and(|to| handoff::send_quit(to.as_fd()).is_ok()) {
            self.quits += 1;
        }
    }

    /// No more connections: children leave when they have served what they have and what is in the lane. The zygote
    /// stays, because it stands guard over the programs that they run.
    pub(super) fn retire(&mut self) {
        self.to = None;
    }

    /// Ends the zygote; the children stay.
    pub(super) fn end_zygote(&mut self) {
        self.template.lose();
    }

    /// Ends the zygote, and whatever the children's programs have left behind.
    pub(super) fn sweep(&mut self) {
        self.template.sweep();
    }

    /// True if it still gets connections.
    pub(super) fn is_open(&self) -> bool {
        self.to.is_some()
    }

    /// Empties the common lane: what lies in it is sent again.
    pub(super) fn empty_lane(&mut self) {
        let quits = empty(self.from.as_fd());
        self.quits = self.quits.saturating_sub(quits);
    }
}

fn attributes() -> Attributes {
    Attributes { name: child::NAME.to_owned(), daemon: true, allow_children: true, guarded: true }
}

/// True if a start failed that may use the room that is kept for one.
pub(super) fn is_out_of_descriptors(failure: &SpawnError) -> bool {
    matches!(failure.errno, Errno::MFILE | Errno::NFILE)
}

fn execute_many(
    small: &Small,
    template: &mut Template,
    lane: BorrowedFd<'_>,
    generation: u64,
    children: &[(u32, u64)],
) -> (Vec<Child>, Option<Error>) {
    let mut started = Vec::with_capacity(children.len());
    for &(slot, _) in children {
        let mut one = small.start(slot, lane);
        if one.as_ref().is_err_and(is_out_of_descriptors) && started.is_empty() {
            template.use_room();
            one = small.start(slot, lane);
        }
        match one {
            Ok((spawned, launch)) => started.push(Child::executed(spawned, Some(launch), generation)),
            Err(failure) => return (started, Some(Error::os("start a child of the server", failure.errno))),
        }
    }
    (started, None)
}

/// Takes everything out of a lane; how many `QUIT`s there were.
fn empty(lane: BorrowedFd<'_>) -> usize {
    let mut quits = 0;
    loop {
        match handoff::receive(lane, false) {
            // A copy; the master has kept its own.
            Ok(Packet::Connection(_) | Packet::Relieve | Packet::Returned(..)) => {}
            Ok(Packet::Quit) => quits += 1,
            Ok(Packet::Nothing | Packet::End) | Err(_) => return quits,
        }
    }
}
