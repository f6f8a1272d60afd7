//! The zygote as its requester sees it: made, asked, revived.
//!
//! README.md one folder up tells the protocol and what happens when either side is killed.

mod entry;
pub(crate) use entry::{FAMILY, join_family};
mod inside;
pub(crate) use inside::NAME;
pub(crate) mod message;
mod sweep;

use std::ffi::CString;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStringExt;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use forkyard_sys::exec::{self, Plan};
use forkyard_sys::limits::{self, Snapshot};
use forkyard_sys::wait::{self, Doing, ExitStatus};
use forkyard_sys::{Errno, Pid, pidfd, poll, prctl, socket};

use self::message::{Ask, Fault, Hello, Packet, Reply, Request};
use super::builder::Attributes;
use super::context;
use super::limit::hint as limit_hint;
use super::swarm;
use super::task::{self, Call};
use crate::error::{Error, Kind, Result};
use crate::shm;

/// How long a zygote may take to answer before it counts as stuck (stopped, or starved): generous, because it stands
/// for "never", and its death is seen at once by other means.
pub(super) const PATIENCE: Duration = Duration::from_secs(10);
const SIGKILL: i32 = 9;
/// After so long without an answer it is looked whether somebody has stopped it: no descriptor tells of that.
const LOOK: Duration = Duration::from_millis(50);
/// How often a zygote that is killed, or stopped, before it is ready is made again.
const ATTEMPTS: usize = 5;

/// What every zygote of a process is given.
pub(crate) struct Outfit<'a> {
    pub(crate) board: BorrowedFd<'a>,
    pub(crate) parcels: BorrowedFd<'a>,
    pub(crate) requester: BorrowedFd<'a>,
    pub(crate) name: String,
}

/// A live template process, and the socket to ask it.
pub(crate) struct Zygote {
    pid: Pid,
    pidfd: OwnedFd,
    socket: OwnedFd,
    surroundings: Surroundings,
    /// The resource limits that it inherited.
    limits: Snapshot,
    /// Keeps numbers free for the pidfds that are about to arrive.
    reserve: Vec<OwnedFd>,
}

/// What a start came to.
pub(crate) enum Answer {
    /// A child was born.
    Born(Pid, OwnedFd),
    /// The kernel refused.
    Refused(Errno),
    /// The zygote is gone, or stuck, or talks nonsense: whether a child was born, the slot tells.
    Lost,
}

impl Zygote {
    /// Executes this program afresh as a zygote. The calling thread becomes what the children's lives are tied to.
    ///
    /// One that somebody kills before it is ready is made again, a few times.
    pub(crate) fn exec(
        outfit: &Outfit<'_>,
        token: &str,
        preload: Option<&Call>,
        once: bool,
    ) -> Result<Zygote> {
        let mut attempts = 0..ATTEMPTS;
        loop {
            let zygote = Zygote::launch(once)?;
            let Err(error) = zygote.greet(outfit, token, preload) else { return Ok(zygote) };
            if !zygote.was_killed() || attempts.next().is_none() {
                return Err(error);
            }
        }
    }

    fn launch(once: bool) -> Result<Zygote> {
        let what = "start a zygote";
        let (surroundings, limits) = (Surroundings::now(), limits::snapshot());
        let (socket, theirs) =
            socket::pair().map_err(|errno| Error::os_hint(what, errno, limit_hint(errno)))?;
        let mut plan = Plan::new(c"/proc/self/exe".to_owned(), arguments());
        plan.environment(environment(once)).place(theirs.as_fd(), entry::SOCKET);
        plan.signal_mask(exec::Mask::Set(u64::MAX));
        let spawned = exec::spawn(&plan).map_err(|failure| {
            let hint = format!("at step {}: {}", failure.step, limit_hint(failure.errno));
            Error::os_hint(what, failure.errno, hint)
        })?;
        let (pid, pidfd) = (spawned.pid, spawned.pidfd);
        Ok(Zygote { pid, pidfd, socket, surroundings, limits, reserve: Vec::new() })
    }

    /// Ends one that is of no use, and tells whether somebody had killed or stopped it before.
    fn was_killed(self) -> bool {
        let stopped = self.is_stopped();
        // Its socket closes a moment before it has ended.
        let soon = Instant::now() + Duration::from_millis(200);
        let ended = matches!(pidfd::wait_readable(self.pidfd.as_fd(), Some(soon)), Ok(true));
        self.status().signal() == Some(SIGKILL) && (ended || stopped)
    }

    fn greet(&self, outfit: &Outfit<'_>, token: &str, preload: Option<&Call>) -> Result<()> {
        let arena = shm::get();
        let hello = Hello {
            image: task::image_hash(),
            requester: pidfd::own_pid().as_raw_nonzero().get().unsigned_abs(),
            name: &outfit.name,
            token,
            arena: arena.as_ref().map(|_| ()).map_err(ToString::to_string),
            preload: preload.map(|call| (call.task, &*call.args)),
        };
        let mut fds = vec![outfit.board, outfit.parcels, outfit.requester];
        fds.extend(arena.iter().map(|arena| arena.fd()));
        fds.extend(preload.iter().flat_map(|call| call.fds.iter().map(AsFd::as_fd)));
        let reply = message::encode(&hello)
            .and_then(|packet| message::send(&self.socket, &packet, &fds, true))
            .and_then(|()| self.hear());
        let why = match reply.map(|packet| packet.decode::<Reply>()) {
            Ok(Ok(Reply::Ready)) => return Ok(()),
            Ok(Ok(Reply::Unfit(why))) => why,
            Ok(other) => format!("unexpected answer {other:?}"),
            Err(Fault::Gone) => "it ended before it was ready".to_owned(),
            Err(Fault::Os(Errno::TIMEDOUT)) => format!("no answer within {} s", PATIENCE.as_secs()),
            Err(fault) => format!("{fault:?}"),
        };
        Err(Error::new("start a zygote", Kind::Protocol(why)))
    }

    /// Its pid.
    pub(crate) fn pid(&self) -> Pid {
        self.pid
    }

    /// Its pidfd: readable once it has ended.
    pub(crate) fn pidfd(&self) -> BorrowedFd<'_> {
        self.pidfd.as_fd()
    }

    /// Asks for a spare, while so many others are expected. [`collect`](Zygote::collect) gets the answers, in this order.
    pub(crate) fn order(&mut self, slot: u32, expected: usize) -> Result<()> {
        self.fill_reserve(expected + 1)?;
        let packet = message::encode(&Ask::Spare(slot)).map_err(|fault| fault_error(&fault))?;
        match message::send(&self.socket, &packet, &[], true) {
            // A zygote that is gone does not answer either.
            Ok(()) | Err(Fault::Gone) => Ok(()),
            Err(fault) => Err(fault_error(&fault)),
        }
    }

    /// Asks for a child that has its task from the beginning, and waits for the answer.
    pub(crate) fn start(&mut self, request: Request<'_>, fds: &[BorrowedFd<'_>]) -> Result<Answer> {
        self.fill_reserve(1)?;
        let packet = message::encode(&Ask::Start(request)).map_err(|fault| fault_error(&fault))?;
        match message::send(&self.socket, &packet, fds, true) {
            Ok(()) => Ok(self.collect()),
            Err(Fault::Os(errno)) if errno == Errno::TOOMANYREFS => Ok(Answer::Refused(errno)),
            Err(_) => Ok(Answer::Lost),
        }
    }

    /// The answer to what was asked, if it has come.
    pub(crate) fn collect_announced(&mut self) -> Option<Answer> {
        match message::receive(&self.socket, true) {
            Ok(packet) => Some(self.born(packet)),
            Err(Fault::Os(Errno::AGAIN)) => None,
            Err(_) => Some(Answer::Lost),
        }
    }

    /// Waits for the answer to what was asked.
    pub(crate) fn collect(&mut self) -> Answer {
        match self.hear() {
            Ok(packet) => self.born(packet),
            Err(_) => Answer::Lost,
        }
    }

    /// The request for a child, and the directory to send with it where that has changed.
    pub(crate) fn request<'a>(
        &self,
        now: &'a Surroundings,
        slot: u32,
        call: &'a Call,
        attributes: &Attributes,
    ) -> Result<(Request<'a>, Option<OwnedFd>)> {
        let directory = now.directory_since(&self.surroundings)?;
        let request = Request {
            directory: directory.is_some(),
            parent_name: (now.name != self.surroundings.name).then_some(&now.name),
            environment: (now.environment != self.surroundings.environment).then(variables),
            ..plain_request(slot, call, attributes)
        };
        Ok((request, directory))
    }

    /// Asks for children of the enlisted swarm: a slot of the outcome board and a number for each. `None`: the zygote is
    /// gone, or stuck, or talks nonsense.
    pub(crate) fn start_many(&mut self, births: &[(u32, u64)]) -> Option<(Vec<Pid>, Option<Errno>)> {
        let packet = message::encode(&Ask::Many(births.to_vec())).ok()?;
        message::send(&self.socket, &packet, &[], true).ok()?;
        match self.hear().ok()?.decode() {
            Ok(Reply::BornMany(pids, refused)) if pids.len() <= births.len() => {
                let pids = pids.into_iter().filter_map(|pid| Pid::from_raw(i32::try_from(pid).ok()?));
                Some((pids.collect(), refused.map(Errno::from_raw_os_error)))
            }
            _ => None,
        }
    }

    /// Hands the first request to a zygote that was made for one child, which is what it becomes.
    pub(crate) fn become_child(
        self,
        slot: u32,
        call: &Call,
        attributes: &Attributes,
    ) -> Result<(Pid, OwnedFd)> {
        let ask = Ask::Start(plain_request(slot, call, attributes));
        let fds: Vec<_> = call.fds.iter().map(AsFd::as_fd).collect();
        let sent = message::encode(&ask).and_then(|packet| message::send(&self.socket, &packet, &fds, true));
        match sent {
            Ok(()) | Err(Fault::Gone) => Ok((self.pid, self.pidfd)),
            Err(fault) => {
                let _ = self.end();
                Err(fault_error(&fault))
            }
        }
    }

    fn born(&mut self, packet: Packet<'_>) -> Answer {
        match packet.decode() {
            Ok(Reply::Refused(errno)) => Answer::Refused(Errno::from_raw_os_error(errno)),
            Ok(Reply::Born(pid)) => {
                let Some(pid) = i32::try_from(pid).ok().and_then(Pid::from_raw) else { return Answer::Lost };
                match packet.fds.into_iter().next().map_or_else(|| self.open(pid), Ok) {
                    Ok(pidfd) => Answer::Born(pid, pidfd),
                    Err(_) => Answer::Lost,
                }
            }
            _ => Answer::Lost,
        }
    }

    /// A child whose pidfd found no room in this process: makes some. It is ours and unreaped, so its number is its own.
    fn open(&mut self, pid: Pid) -> std::result::Result<OwnedFd, Errno> {
        self.spend_reserve();
        swarm::open(pid)
    }

    /// Frees one of the numbers that are kept.
    pub(crate) fn spend_reserve(&mut self) {
        self.reserve.pop();
    }

    /// How many numbers are kept free.
    pub(crate) fn room(&self) -> usize {
        self.reserve.len()
    }

    /// Keeps this many numbers free.
    pub(crate) fn fill_reserve(&mut self, count: usize) -> Result<()> {
        while self.reserve.len() < count {
            let fd = self.pidfd.try_clone().map_err(|error| {
                let errno = Errno::from_io_error(&error).unwrap_or(Errno::MFILE);
                Error::os_hint("start a process", errno, limit_hint(errno))
            })?;
            self.reserve.push(fd);
        }
        Ok(())
    }

    /// The next message of the zygote, unless it ends or takes too long.
    fn hear(&self) -> std::result::Result<Packet<'static>, Fault> {
        match message::receive(&self.socket, true) {
            Err(Fault::Os(Errno::AGAIN)) => {}
            heard => return heard,
        }
        let end = Instant::now() + PATIENCE;
        loop {
            let now = Instant::now();
            match poll::readable([self.socket.as_fd(), self.pidfd.as_fd()], Some(end.min(now + LOOK)))? {
                [true, _] => return message::receive(&self.socket, true),
                [false, true] => return Err(Fault::Gone),
                [false, false] if now >= end || self.is_stopped() => return Err(Fault::Os(Errno::TIMEDOUT)),
                [false, false] => {}
            }
        }
    }

    fn is_stopped(&self) -> bool {
        wait::doing(self.pidfd.as_fd()) == Ok(Doing::Stopped)
    }

    /// True if a change of this process's rights or root made the zygote unfit for it.
    pub(crate) fn is_foreign(&self, now: &Surroundings) -> bool {
        (self.surroundings.rights, self.surroundings.root) != (now.rights, now.root)
    }

    /// True if it was refused something by other limits than this process has now.
    pub(crate) fn has_other_limits(&self) -> bool {
        self.limits != limits::snapshot()
    }

    /// Has it kill all that its guarded children have left behind, and end.
    pub(crate) fn sweep(self) {
        // A zygote that is gone, or does not end in time, cannot do it.
        let sent =
            message::encode(&Ask::Sweep).and_then(|packet| message::send(&self.socket, &packet, &[], true));
        if sent.is_ok() {
            let _ = pidfd::wait_readable(self.pidfd.as_fd(), Some(Instant::now() + PATIENCE));
        }
        let _ = self.end();
    }

    /// Kills it and takes its status: afterwards it makes no more children. Its children live on.
    ///
    /// Returns it if this process may not: it lives on with rights that this process has given up since.
    pub(crate) fn end(self) -> Option<Zygote> {
        // ESRCH: it has ended by itself. EPERM: so it may have.
        let killed = pidfd::send_signal(self.pidfd.as_fd(), SIGKILL);
        if killed == Err(Errno::PERM) && matches!(wait::has_ended(self.pidfd.as_fd()), Ok(false)) {
            return Some(self);
        }
        let _ = wait::reap(self.pidfd.as_fd());
        None
    }

    fn status(&self) -> ExitStatus {
        let _ = pidfd::send_signal(self.pidfd.as_fd(), SIGKILL);
        wait::reap(self.pidfd.as_fd()).unwrap_or(ExitStatus::UNKNOWN)
    }

    /// Lets go of it in a fork of its requester: closes the descriptors and does nothing else.
    pub(crate) fn abandon(self) {}
}

/// A request for a child that finds its requester's surroundings as its zygote did.
fn plain_request<'a>(slot: u32, call: &'a Call, attributes: &Attributes) -> Request<'a> {
    Request {
        slot,
        attributes: attributes.clone(),
        mask: forkyard_sys::mask::current(),
        directory: false,
        parent_name: None,
        environment: None,
        task: call.task,
        args: &call.args,
    }
}

/// The error for a message that could not be made or sent.
fn fault_error(fault: &Fault) -> Error {
    match fault {
        Fault::Os(errno) => Error::os_hint("start a process", *errno, limit_hint(*errno)),
        fault => Error::new("start a process", Kind::Protocol(format!("{fault:?}"))),
    }
}

/// What of this process a child shall find as it is, and a zygote has as it was.
#[derive(PartialEq, Eq)]
pub(crate) struct Surroundings {
    /// Path, device and inode: a path may have gone to another directory, and a directory may get another path.
    directory: Option<(PathBuf, u64, u64)>,
    name: String,
    environment: u64,
    rights: [u32; 4],
    /// Device and inode of the root directory.
    root: Option<(u64, u64)>,
}

impl Surroundings {
    /// The directory, unless it is for certain the one of then.
    fn directory_since(&self, then: &Surroundings) -> Result<Option<OwnedFd>> {
        if self.directory.is_some() && self.directory == then.directory {
            return Ok(None);
        }
        let failed = |errno| Error::os_hint("hand on this process's directory", errno, limit_hint(errno));
        prctl::directory().map(Some).map_err(failed)
    }

    pub(crate) fn now() -> Surroundings {
        let mut hasher = DefaultHasher::new();
        for variable in std::env::vars_os() {
            variable.hash(&mut hasher);
        }
        Surroundings {
            directory: directory(),
            name: context::current().name(),
            environment: hasher.finish(),
            rights: forkyard_sys::pidfd::own_rights(),
            root: std::fs::metadata("/").ok().map(|root| (root.dev(), root.ino())),
        }
    }
}

/// `None` for a directory that was removed, or lies outside of what this process can see.
fn directory() -> Option<(PathBuf, u64, u64)> {
    let (path, metadata) = (std::env::current_dir().ok()?, std::fs::metadata(".").ok()?);
    Some((path, metadata.dev(), metadata.ino()))
}

fn variables() -> Vec<(Vec<u8>, Vec<u8>)> {
    std::env::vars_os().map(|(name, value)| (name.into_vec(), value.into_vec())).collect()
}

/// This program's own arguments, so that a child sees the same as its parent.
fn arguments() -> Vec<CString> {
    std::env::args_os().filter_map(|argument| CString::new(argument.into_vec()).ok()).collect()
}

/// This process's variables with the zygote's two. Every symbol is resolved at its start (ld.so(8), `LD_BIND_NOW`),
/// because what a child resolves it resolves for itself alone.
fn environment(once: bool) -> Vec<CString> {
    let mode = if once { "once" } else { "template" };
    let mut lines = vec![format!("{}={mode}", entry::VARIABLE).into_bytes()];
    let mut family = b"FORKYARD_FAMILY=".to_vec();
    for (name, value) in variables() {
        if name == entry::FAMILY.as_bytes() {
            family.extend(value);
            family.push(b':');
        } else if name != b"LD_BIND_NOW" {
            lines.push([name, value].join(&b'='));
        }
    }
    family.extend([b'-'; entry::TOKEN]);
    lines.push([b"LD_BIND_NOW=", entry::BIND_NOW.as_bytes()].concat());
    lines.push(family);
    lines.into_iter().filter_map(|line| CString::new(line).ok()).collect()
}

/// A new token: 128 random bits in hexadecimal.
pub(crate) fn token() -> Result<String> {
    use std::fmt::Write;
    let bytes = forkyard_sys::random::bytes::<16>().map_err(|errno| Error::os("draw a token", errno))?;
    Ok(bytes.iter().fold(String::new(), |mut text, byte| {
        // Writing to a string does not fail.
        let _ = write!(text, "{byte:02x}");
        text
    }))
}
