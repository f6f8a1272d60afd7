//! What a child of a server does: waits for a connection, claims it, serves it.
//!
//! `prepare` runs once in the zygote; its clones inherit what it set up at no cost. `serve_number` runs in each, or
//! `serve_slot` in a worker that gets a lane of its own.
//!
//! Killed here: README.md beside this file, "If … is killed here".

use std::cell::RefCell;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::OnceLock;
use std::time::Duration;

use forkyard_sys::epoll::EventFd;
use forkyard_sys::prctl::own_process_group;
use forkyard_sys::{inherit, net, socket, time};
use serde::{Deserialize, Serialize};

use super::builtin::{self, Change, Over, ROOM};
use super::connection::Connection;
use super::handoff::{self, Handed, Packet};
use super::peer::Peer;
use super::rights::Rights;
use super::scoreboard::{Bell, Board, Cell, ChildState, Clock, Words};
use super::{multiplex, server::Handler};
use crate::error::{Error, Kind, Result};
use crate::process::swarm::{self, Swarm};
use crate::process::{self, Fd};

/// What a zygote is told.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Setup {
    pub(super) board: Fd,
    pub(super) bell: Fd,
    /// The lane that all children share, if they do.
    pub(super) lane: Option<Fd>,
    pub(super) settings: Settings,
}

/// The part of the configuration that children need.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Settings {
    pub(super) work: Work,
    /// One connection, then the end.
    pub(super) once: bool,
    pub(super) idle: Option<Duration>,
    pub(super) total: Option<Duration>,
    pub(super) rights: Rights,
}

/// A handler, as it travels to the zygote.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) enum Work {
    Upper,
    Echo,
    Task(String),
    /// Program and arguments, as bytes.
    Program(Vec<Vec<u8>>),
}

impl From<&Handler> for Work {
    fn from(handler: &Handler) -> Work {
        use std::os::unix::ffi::OsStrExt;
        match handler {
            Handler::Upper => Work::Upper,
            Handler::Echo => Work::Echo,
            Handler::Task(name) => Work::Task((*name).to_owned()),
            Handler::Program(args) => Work::Program(args.iter().map(|arg| arg.as_bytes().to_vec()).collect()),
        }
    }
}

/// What the zygote's clones inherit.
struct Inherited {
    board: Board,
    bell: EventFd,
    lane: Option<OwnedFd>,
    settings: Settings,
    handler: Ready,
}

thread_local! {
    /// Room for a read, reserved in the zygote, so that a clone need not ask the kernel for it. In the thread's own
    /// storage, because that is a page which every clone has to copy anyway.
    static BUFFER: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

/// A handler with everything looked up.
enum Ready {
    Change(Change),
    Task(process::task::Invoke),
    /// Programs are executed by the master.
    Nothing,
}

static INHERITED: OnceLock<Inherited> = OnceLock::new();

/// Sets a zygote up. An error, as text, keeps the server from starting.
#[crate::task]
pub(super) fn prepare(setup: Setup) -> std::result::Result<(), String> {
    inherit(setup).map_err(|error| error.to_string())
}

fn inherit(setup: Setup) -> Result<()> {
    // Ctrl-C on a terminal is for the master, which lets connections finish.
    own_process_group().map_err(|e| Error::os("make a process group for the children", e))?;
    let board = Board::attach(setup.board.into(), true).map_err(|e| Error::os("map the scoreboard", e))?;
    let handler = match &setup.settings.work {
        Work::Upper => Ready::Change(Change::Upper),
        Work::Echo => Ready::Change(Change::Nothing),
        Work::Task(name) => Ready::Task(process::task::find(name)?),
        Work::Program(_) => Ready::Nothing,
    };
    setup.settings.rights.drop_in_zygote()?;
    let inherited = Inherited {
        board,
        bell: EventFd::from_fd(setup.bell.into()),
        lane: setup.lane.map(OwnedFd::from),
        settings: setup.settings,
        handler,
    };
    warm_up(&inherited);
    // A built-in handler is all that runs in its child.
    let bare = matches!(inherited.handler, Ready::Change(_));
    swarm::enlist(Swarm { run: serve_number, bare, name: NAME });
    INHERITED
        .set(inherited)
        .map_err(|_| Error::new("prepare the zygote", Kind::Protocol("it was prepared before".to_owned())))
}

/// What children are called in process lists.
pub(super) const NAME: &str = "forkyard-child";

/// Serves one connection of its own, so that the code and data for it are in memory and the clones find them there.
fn warm_up(inherited: &Inherited) {
    let Ready::Change(_) = &inherited.handler else { return };
    let rehearse = || -> forkyard_sys::Result<()> {
        let board = Board::create(1, 1)?;
        let ((to, lane), (client, fd)) = (socket::pair()?, socket::pair()?);
        board.announce(0, 1, 0, &Peer::Unix);
        let peer = Peer::Unix;
        let handed = Handed { fd, index: 0, number: 1, accepted: 1, peer, neighbours: 1, toward: None };
        handoff::send(to.as_fd(), &handed)?;
        drop(handed);
        net::send(&client, b"a", true)?;
        net::finish_sending(&client)?;
        let settings = Settings { once: true, ..inherited.settings.clone() };
        let desk = Desk { board: &board, bell: &inherited.bell, settings: &settings, slot: 0 };
        serve_one_by_one(&desk, lane.as_fd(), &inherited.handler, 1)
    };
    let _rehearsal = inherit::forget_code();
    // Whatever fails here fails in the children too, where it is told.
    let _ = rehearse();
    swarm::rehearse_bare();
    process::task::touch(serve_here as *const u8);
    process::task::touch(Rights::drop_in_child as *const u8);
}

/// A child's number in its swarm: its slot of the scoreboard, and after how many connections it leaves (0: never).
pub(super) fn number(slot: u32, most: u64) -> u64 {
    most << SLOT_BITS | u64::from(slot)
}

const SLOT_BITS: u32 = 20;

/// What a clone of the zygote does.
fn serve_number(number: u64) -> i32 {
    let slot = (number & ((1 << SLOT_BITS) - 1)) as u32;
    match serve_here(slot, number >> SLOT_BITS, None) {
        Ok(()) => 0,
        Err(why) => {
            let line = format!("forkyard: child {}: {why}\n", std::process::id());
            eprint!("{line}");
            1
        }
    }
}

/// Serves connections from the common lane, or from one of its own: `most`, or (0) any number of them.
#[crate::task]
pub(super) fn serve_slot(slot: u32, most: u64, lane: Option<Fd>) -> std::result::Result<(), String> {
    serve_here(slot, most, lane.map(OwnedFd::from))
}

fn serve_here(slot: u32, most: u64, own: Option<OwnedFd>) -> std::result::Result<(), String> {
    let inherited = INHERITED.get().ok_or("this process was not cloned from a server's zygote")?;
    let desk = Desk { board: &inherited.board, bell: &inherited.bell, settings: &inherited.settings, slot };
    let lane = own.as_ref().or(inherited.lane.as_ref()).ok_or("there is no lane")?.as_fd();
    inherited.settings.rights.drop_in_child().map_err(|error| error.to_string())?;
    // Reading first lets the kernel map the neighbouring pages along with this one; writing would not.
    if desk.leaving() {
        return Ok(());
    }
    let result = match (&inherited.handler, &own) {
        (Ready::Change(change), Some(_)) => multiplex::serve(&desk, lane, *change),
        (handler, _) => serve_one_by_one(&desk, lane, handler, most),
    };
    result.map_err(|errno| Error::os("wait for connections", errno).to_string())
}

fn serve_one_by_one(
    desk: &Desk<'_>,
    lane: BorrowedFd<'_>,
    handler: &Ready,
    most: u64,
) -> forkyard_sys::Result<()> {
    let mut buffer = BUFFER.take();
    buffer.reserve(ROOM);
    let result = serve_from(desk, lane, handler, most, &mut buffer);
    BUFFER.set(buffer);
    result
}

fn serve_from(
    desk: &Desk<'_>,
    lane: BorrowedFd<'_>,
    handler: &Ready,
    most: u64,
    buffer: &mut Vec<u8>,
) -> forkyard_sys::Result<()> {
    let mut served = 0;
    loop {
        desk.enter(ChildState::Idle);
        match handoff::receive(lane, true)? {
            Packet::Connection(handed) => {
                if desk.claim(handed.index as usize, handed.number, handed.accepted) {
                    desk.enter(ChildState::Busy);
                    serve_one(desk, handed, handler, buffer);
                    served += 1;
                }
            }
            Packet::Nothing | Packet::Relieve | Packet::Returned(..) => {}
            Packet::Quit | Packet::End => {
                desk.enter(ChildState::Leaving);
                return Ok(());
            }
        }
        if served > 0 && (desk.settings.once || served == most) {
            return Ok(());
        }
    }
}

fn serve_one(desk: &Desk<'_>, handed: Handed, handler: &Ready, buffer: &mut Vec<u8>) {
    if let Some(idle) = desk.settings.idle {
        // Refused only to a socket that is dead already.
        let _ = net::set_timeout(&handed.fd, idle);
    }
    let Handed { fd, index, number, peer, .. } = handed;
    let over = match handler {
        Ready::Change(change) => {
            let mut answers = desk.board.cell(desk.slot as usize, Cell::Requests);
            let over = builtin::serve(fd.as_fd(), *change, buffer, || {
                answers += 1;
                desk.set(Cell::Requests, answers);
            });
            drop(fd);
            over
        }
        Ready::Task(invoke) => {
            let arguments = Connection::encode(number, peer);
            // What a handler has to say about failing, `#[handler]` has reported.
            let _ = crate::fd::incoming(vec![fd], || invoke(&arguments));
            Over::Finished
        }
        Ready::Nothing => Over::Finished,
    };
    desk.finish(index as usize, number, over);
}

/// A child's place: its line of the scoreboard, and what it needs to keep it.
pub(super) struct Desk<'a> {
    board: &'a Board,
    bell: &'a EventFd,
    pub(super) settings: &'a Settings,
    slot: u32,
}

impl Desk<'_> {
    pub(super) fn enter(&self, state: ChildState) {
        self.board.set_child_state(self.slot as usize, state);
    }

    pub(super) fn leaving(&self) -> bool {
        self.board.child_state(self.slot as usize) == ChildState::Leaving
    }

    pub(super) fn set(&self, cell: Cell, value: u64) {
        self.board.set_cell(self.slot as usize, cell, value);
    }

    pub(super) fn claim(&self, index: usize, number: u64, accepted: u64) -> bool {
        let claimed = self.board.claim(index, number, self.slot, accepted, self.clock());
        if self.board.bell_wanted(Bell::Claimed) {
            self.bell.notify();
        }
        claimed
    }

    pub(super) fn finish(&self, index: usize, number: u64, over: Over) {
        self.board.finish(index, number, self.slot, over == Over::TimedOut, self.clock());
        if self.board.bell_wanted(Bell::Finished) {
            self.bell.notify();
        }
    }

    /// When a connection was claimed first, by whomever.
    pub(super) fn claimed_at(&self, index: usize) -> u64 {
        self.board.claimed_at(index)
    }

    /// Says that it has been busy all the time.
    pub(super) fn tell_busy(&self, now: u64) {
        self.set(Cell::Busy, now);
        self.bell.notify();
    }

    /// A child that serves once reads the clock twice: not worth the page that the faster way needs.
    fn clock(&self) -> Clock {
        if self.settings.once { time::monotonic_ns_by_syscall } else { time::monotonic_ns }
    }

    /// How often to look for connections that are overdue.
    pub(super) fn tick(&self) -> Option<Duration> {
        let shortest = [self.settings.idle, self.settings.total].into_iter().flatten().min()?;
        Some((shortest / 4).clamp(Duration::from_millis(1), Duration::from_secs(1)))
    }
}
