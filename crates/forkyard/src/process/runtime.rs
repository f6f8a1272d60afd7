//! What a process needs to have children: made at the first start, one per process, never freed.
//!
//! Lock order: template, then one child's state, then those that are untold, then children; the keeper takes none of
//! them while it waits. In a fork all of this is unreachable, and a runtime of its own is made when it is needed.

use std::collections::{BTreeMap, HashMap};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, Once};

use forkyard_sys::epoll::EventFd;
use forkyard_sys::wait::ExitStatus;
use forkyard_sys::{Errno, Pid, clone, pidfd, socket, stdio};

use super::board::{Board, Slot};
use super::builder::Attributes;
use super::child::Parcel;
use super::handle::Child;
use super::keeper::Keeper;
use super::task::Call;
use super::template::{Anchor, Template};
use super::zygote::message::{self, Fault};
use super::zygote::{Outfit, Zygote};
use super::{context, exit, limit};
use crate::error::{Error, Result};
use crate::global::Global;
use crate::sync;
use crate::sync_std::lock;

/// The library's state in a process that has, or had, children.
pub(crate) struct Runtime {
    pub(crate) board: Board,
    pub(crate) keeper: Keeper,
    /// Children that have not been reaped.
    pub(crate) children: Mutex<HashMap<u64, Arc<Child>>>,
    /// Rung at each birth: for threads that wait for any child.
    pub(crate) bells: Mutex<Vec<Arc<EventFd>>>,
    /// Children that have ended and of which no wait or join has told, oldest first.
    untold: Mutex<BTreeMap<u64, Exited>>,
    pub(crate) template: Mutex<Template>,
    /// The requester's end and the children's.
    parcels: (OwnedFd, OwnedFd),
    /// Parcels whose senders have not been reaped, by slot: at most one for each.
    arrived: Mutex<HashMap<u32, (u32, Parcel)>>,
    owner: Pid,
    own_pidfd: OwnedFd,
    next: AtomicU64,
    names: AtomicU32,
    /// The keeper found the template in use, and has something to do with it.
    chores: AtomicBool,
    /// Siblings are refused here: every start is an exec.
    exec_only: AtomicBool,
}

/// Most ended children that are remembered for a wait that may come; the oldest are forgotten first.
const UNTOLD: usize = 16 * 1024;

/// More packets than a socket's queue holds: a flood that comes as fast as it is taken ends there. What a child sent
/// before its end is among the first so many.
const MOST_QUEUED: usize = 64 * 1024;

/// What a wait for any child tells.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Exited {
    /// The child's process id; free for reuse by now.
    pub pid: Pid,
    /// Its name.
    pub name: String,
    /// How it ended.
    pub status: ExitStatus,
}

static RUNTIME: Global<Runtime> = Global::new();

/// The runtime, if this process has one.
pub(crate) fn existing() -> Option<&'static Runtime> {
    RUNTIME.get()
}

/// The runtime; made now if there is none.
pub(crate) fn get() -> Result<&'static Runtime> {
    static MAKING: Mutex<()> = Mutex::new(());
    if let Some(runtime) = existing() {
        return Ok(runtime);
    }
    let _making = lock(&MAKING);
    match existing() {
        Some(runtime) => Ok(runtime),
        None => Runtime::new()?.begin(),
    }
}

/// In the child of any fork: the parent's runtime is not ours.
extern "C" fn forget_inherited() {
    RUNTIME.clear();
}

impl Runtime {
    fn new() -> Result<Runtime> {
        static AT_FORK: Once = Once::new();
        let what = "prepare to start processes";
        let failed = |errno: Errno| Error::os_hint(what, errno, limit::hint(errno));
        // Without memory for one more hook a foreign fork would find the parent's runtime: then better no start.
        let mut armed = Ok(());
        AT_FORK.call_once(|| armed = clone::at_fork_in_child(forget_inherited));
        armed.map_err(failed)?;
        exit::arm();
        stdio::occupy().map_err(failed)?;
        let parcels = socket::pair().map_err(failed)?;
        socket::pass_credentials(&parcels.0).map_err(failed)?;
        Ok(Runtime {
            board: Board::create()?,
            keeper: Keeper::new().map_err(failed)?,
            children: Mutex::default(),
            bells: Mutex::default(),
            untold: Mutex::default(),
            template: Mutex::new(Template::unmade(Anchor::Keeper, None)),
            parcels,
            arrived: Mutex::default(),
            owner: pidfd::own_pid(),
            own_pidfd: pidfd::open(pidfd::own_pid()).map_err(failed)?,
            next: AtomicU64::new(0),
            names: AtomicU32::new(0),
            chores: AtomicBool::new(false),
            exec_only: AtomicBool::new(false),
        })
    }

    /// Publishes the runtime when nothing can fail any more: a published one is never freed.
    fn begin(self) -> Result<&'static Runtime> {
        self.keeper.watch_parcels(self.parcels.0.as_fd())?;
        let keeper = self.keeper.begin()?;
        let runtime = RUNTIME.set(self);
        // The thread waits for nothing else.
        let _ = keeper.send(runtime);
        Ok(runtime)
    }

    /// The name of a child that was not given one.
    pub(crate) fn next_name(&self) -> String {
        format!("Process-{}", self.names.fetch_add(1, Ordering::Relaxed) + 1)
    }

    /// What every zygote of this process is given.
    pub(crate) fn outfit(&self) -> Result<Outfit<'_>> {
        let board =
            self.board.table.fd().ok_or_else(|| Error::os("hand on the outcome board", Errno::BADF))?;
        Ok(Outfit {
            board,
            parcels: self.parcels.1.as_fd(),
            requester: self.own_pidfd.as_fd(),
            name: context::current().name(),
        })
    }

    /// The process that this runtime belongs to.
    pub(crate) fn owner(&self) -> Pid {
        self.owner
    }

    /// A descriptor that keeps a number free until it is dropped.
    pub(crate) fn reserve(&self) -> forkyard_sys::Result<OwnedFd> {
        self.own_pidfd.try_clone().map_err(|error| Errno::from_io_error(&error).unwrap_or(Errno::MFILE))
    }

    /// This process's own pidfd, and the children's end of the parcel socket: for a fork.
    pub(crate) fn inheritance(&'static self) -> (BorrowedFd<'static>, BorrowedFd<'static>) {
        (self.own_pidfd.as_fd(), self.parcels.1.as_fd())
    }

    /// Starts a child by the zygote; by an exec where siblings are refused.
    pub(crate) fn start_by_zygote(&'static self, call: &Call, attributes: Attributes) -> Result<Arc<Child>> {
        if self.exec_only.load(Ordering::Relaxed) {
            return self.start_by_exec(call, attributes);
        }
        let started = self.with_template(|template| template.start(self, call, &attributes));
        match started {
            Ok(started) => self.adopt(started.pid, started.pidfd, started.slot, attributes, None),
            Err(error) if error.errno().is_some_and(is_refusal_of_siblings) => {
                self.exec_only.store(true, Ordering::Relaxed);
                self.start_by_exec(call, attributes)
            }
            Err(error) => Err(error),
        }
    }

    /// Starts a child by executing this program afresh.
    pub(crate) fn start_by_exec(&'static self, call: &Call, attributes: Attributes) -> Result<Arc<Child>> {
        let token = self.with_template(|template| {
            if attributes.guarded {
                // The zygote stands guard over what a guarded child starts.
                template.ensure(self)?;
            }
            template.token()
        })?;
        let slot = self.board.offer()?;
        // On the keeper's thread, because a guarded child's life is tied to the thread that made it.
        let zygote = self.keeper.run(move || Zygote::exec(&self.outfit()?, &token, None, true));
        match zygote.and_then(|zygote| zygote.become_child(slot, call, &attributes)) {
            Ok((pid, pidfd)) => self.adopt(pid, pidfd, slot, attributes, None),
            Err(error) => {
                self.board.release(slot);
                Err(error)
            }
        }
    }

    /// Takes charge of a new child.
    pub(crate) fn adopt(
        &'static self,
        pid: Pid,
        pidfd: OwnedFd,
        slot: u32,
        attributes: Attributes,
        lifeline: Option<OwnedFd>,
    ) -> Result<Arc<Child>> {
        let id = self.next.fetch_add(1, Ordering::Relaxed);
        let child = Arc::new(Child::new(self, id, pid, pidfd, slot, attributes, lifeline));
        lock(&self.children).insert(id, Arc::clone(&child));
        lock(&self.bells).iter().for_each(|bell| bell.notify());
        self.keeper.watch(&child);
        Ok(child)
    }

    /// The child of that number in the keeper's books.
    pub(crate) fn child(&self, id: u64) -> Option<Arc<Child>> {
        lock(&self.children).get(&id).cloned()
    }

    /// Living children, oldest first.
    pub(crate) fn living(&self) -> Vec<Arc<Child>> {
        let mut children: Vec<_> = lock(&self.children).values().cloned().collect();
        children.sort_by_key(|child| child.id);
        children
    }

    /// A child has been reaped.
    pub(crate) fn bury(&self, child: &Child, status: ExitStatus) {
        let exited = Exited { pid: child.pid(), name: child.name().to_owned(), status };
        let mut untold = lock(&self.untold);
        untold.insert(child.id, exited);
        if untold.len() > UNTOLD {
            untold.pop_first();
        }
        lock(&self.children).remove(&child.id);
        // Whoever waits for what it held is woken by the kernel; what it waited for itself, and what it kept, is seen to here.
        child.let_go();
        sync::reap();
    }

    /// Uses the template.
    pub(crate) fn with_template<T>(&'static self, user: impl FnOnce(&mut Template) -> T) -> T {
        let mut template = lock(&self.template);
        let result = user(&mut template);
        self.release(template);
        result
    }

    /// Lets go of the template, and has the keeper do what it could not do meanwhile.
    pub(crate) fn release(&self, template: MutexGuard<'_, Template>) {
        if template.is_missing_a_zygote() {
            self.chores.store(true, Ordering::Release);
        }
        drop(template);
        if self.has_chores() {
            self.keeper.nudge();
        }
    }

    /// Looks after the spares, unless somebody is starting a process and does so anyway.
    pub(crate) fn look_after_spares(&'static self) {
        if let Ok(mut template) = self.template.try_lock() {
            template.look_after_spares(self);
            self.release(template);
        }
    }

    /// What the keeper does for the template: revives a zygote that died, so that guarded children are guarded again,
    /// and reaps spares that died. It never waits for the template, because its holder may be waiting for the keeper:
    /// the note is made first, so a holder that lets go afterwards finds it.
    pub(crate) fn do_chores(&'static self) {
        self.chores.store(true, Ordering::Release);
        if let Ok(mut template) = self.template.try_lock() {
            self.chores.store(false, Ordering::Release);
            // In this order: looking after the spares may find out that the zygote is lost.
            template.bury_spares(self);
            template.revive_on_keeper(self);
        }
    }

    /// True if the keeper has been asked to do chores.
    pub(crate) fn has_chores(&self) -> bool {
        self.chores.load(Ordering::Acquire)
    }

    /// This child, if it has ended and nobody was told.
    pub(crate) fn take_untold_of(&self, id: u64) -> Option<Exited> {
        lock(&self.untold).remove(&id)
    }

    /// The last child of that number, or the first of any, that has ended and of which nobody was told.
    pub(crate) fn take_untold(&self, pid: Option<Pid>) -> Option<Exited> {
        let mut untold = lock(&self.untold);
        let id = match pid {
            Some(pid) => *untold.iter().rfind(|(_, exited)| exited.pid == pid)?.0,
            None => *untold.first_key_value()?.0,
        };
        untold.remove(&id)
    }

    /// Takes the parcels that have arrived.
    pub(crate) fn receive_parcels(&self) {
        self.receive_parcels_until(None);
    }

    /// Takes the parcels that have arrived, as far as the one of this slot and pid. What does not decode, or comes from
    /// another than the slot's own child, is dropped: its sender garbles its own outcome, and will be told so.
    fn receive_parcels_until(&self, wanted: Option<(u32, u32)>) -> Option<Parcel> {
        let mut arrived = lock(&self.arrived);
        for _ in 0..=MOST_QUEUED {
            if let Some((slot, _)) =
                wanted.filter(|(slot, pid)| arrived.get(slot).is_some_and(|(of, _)| of == pid))
            {
                return arrived.remove(&slot).map(|(_, parcel)| parcel);
            }
            let packet = match message::receive(&self.parcels.0, true) {
                Ok(packet) => packet,
                // None is left; or somebody has closed the descriptor.
                Err(Fault::Os(Errno::AGAIN | Errno::BADF | Errno::NOTSOCK)) => return None,
                Err(_) => continue,
            };
            let Some(sender) = packet.received.sender else { continue };
            let Ok((slot, parcel)) = packet.decode::<(u32, Parcel)>() else { continue };
            let pid = sender.pid.as_raw_nonzero().get().unsigned_abs();
            let owns = |place: &Slot| place.born.load(Ordering::Acquire) == pid;
            if self.board.slot(slot).is_some_and(owns) && arrived.get(&slot).is_none_or(|(of, _)| *of != pid)
            {
                arrived.insert(slot, (pid, parcel));
            }
        }
        None
    }

    /// The parcel of a child that has ended.
    pub(crate) fn take_parcel(&self, slot: u32, pid: Pid) -> Option<Parcel> {
        self.receive_parcels_until(Some((slot, pid.as_raw_nonzero().get().unsigned_abs())))
    }

    /// Gives back the slot of a child that has been reaped, and drops a parcel that it sent without saying so.
    pub(crate) fn release_slot(&self, slot: u32) {
        lock(&self.arrived).remove(&slot);
        self.board.release(slot);
    }

    /// At this process's end: daemonic children are ended, the others joined.
    pub(crate) fn end_children(&'static self) {
        let (daemonic, others): (Vec<_>, Vec<_>) =
            self.living().into_iter().partition(|child| child.attributes.daemon);
        super::handle::end_all(&daemonic);
        for child in others {
            // Nobody is left to be told of an error.
            let _ = child.wait(crate::time::Deadline::NEVER);
        }
    }
}

/// What the kernel or a sandbox answers where `CLONE_PARENT` is not to be had.
pub(crate) fn is_refusal_of_siblings(errno: Errno) -> bool {
    matches!(errno, Errno::INVAL | Errno::PERM | Errno::NOSYS)
}
