//! A generation: a zygote, the children cloned from it, and the lane they share.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use forkyard_sys::epoll::EventFd;
use forkyard_sys::{Errno, socket};

use super::super::child::{self, Settings, Setup};
use super::super::handoff::{self, Handed, Packet};
use super::super::scoreboard::Board;
use crate::error::{Error, Result};
use crate::process::Fd;
use crate::process::builder::Attributes;
use crate::process::runtime;
use crate::process::template::{Anchor, Started, Template};

/// A generation of children. Dropping the sending end of its lane retires them all, without a race.
pub(super) struct Generation {
    pub(super) id: u64,
    template: Template,
    shared: bool,
    to: Option<OwnedFd>,
    from: OwnedFd,
    /// Children that live.
    pub(super) living: usize,
    /// Packets sent down the common lane whose connections are not over.
    pub(super) unfinished: usize,
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
        Ok(Generation { id, template, shared, to: Some(to), from, living: 0, unfinished: 0, quits: 0 })
    }

    /// Starts a child for a slot of the scoreboard, which serves `most` connections (0: any number). It gets this lane, if
    /// there is no common one.
    pub(super) fn start(&mut self, slot: u32, most: u64, lane: Option<BorrowedFd<'_>>) -> Result<Started> {
        let lane = match lane {
            None => None,
            Some(lane) => {
                let copy = lane.try_clone_to_owned();
                let errno = |e: std::io::Error| Errno::from_io_error(&e).unwrap_or(Errno::IO);
                Some(Fd::from(copy.map_err(|e| Error::os("start a child of the server", errno(e)))?))
            }
        };
        let call = child::serve_slot.call(&(slot, most, lane))?;
        let attributes = Attributes {
            name: "forkyard-child".to_owned(),
            daemon: true,
            allow_children: true,
            guarded: true,
        };
        let started = self.template.start(runtime::get()?, &call, &attributes)?;
        self.living += 1;
        Ok(started)
    }

    /// The zygote's pidfd, while there is one.
    pub(super) fn pidfd(&self) -> Option<BorrowedFd<'_>> {
        self.template.pidfd()
    }

    /// Starts the zygote again after its death.
    pub(super) fn revive(&mut self) -> Result<()> {
        self.template.lose();
        self.template.ensure(runtime::get()?)
    }

    /// How many packets more the common lane's children can take.
    pub(super) fn idle(&self) -> usize {
        if !self.shared || self.to.is_none() {
            return 0;
        }
        self.living.saturating_sub(self.unfinished + self.quits)
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
        if let Some(to) = &self.to {
            if handoff::send_quit(to.as_fd()).is_ok() {
                self.quits += 1;
            }
        }
    }

    /// No more connections: children leave when they have served what they have and what is in the lane.
    pub(super) fn retire(&mut self) {
        self.to = None;
        self.template.lose();
    }

    /// True if it still gets connections.
    pub(super) fn is_open(&self) -> bool {
        self.to.is_some()
    }

    /// Takes back what no child has taken out of the common lane yet.
    pub(super) fn take_back(&mut self) -> Vec<Handed> {
        let taken = drain(self.from.as_fd());
        self.unfinished = self.unfinished.saturating_sub(taken.connections.len());
        self.quits = self.quits.saturating_sub(taken.quits);
        taken.connections
    }
}

/// What lay in a lane.
pub(super) struct Taken {
    pub(super) connections: Vec<Handed>,
    pub(super) quits: usize,
}

/// Takes everything out of a lane.
pub(super) fn drain(from: BorrowedFd<'_>) -> Taken {
    let mut taken = Taken { connections: Vec::new(), quits: 0 };
    let mut fds = Vec::new();
    loop {
        match handoff::receive(from, &mut fds, false) {
            Ok(Packet::Connection(handed)) => taken.connections.push(handed),
            Ok(Packet::Quit) => taken.quits += 1,
            Ok(Packet::Nothing | Packet::End) | Err(_) => return taken,
        }
    }
}
