//! What one image of the program leaves to the next one in an upgrade, and how the next one finds it.
//!
//! The state lies in a memfd, whose number stands in the environment together with the pid, so that a child that
//! inherits the variable does not take it for its own. Descriptors travel by number. README.md has the story.
//!
//! The next image takes the listeners when it opens the same addresses, and everything else when its first server
//! runs. What it does not take is closed then.
//!
//! Killed here: the state goes with the process.

use std::ffi::{CString, OsString};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd, RawFd};
use std::os::unix::ffi::OsStringExt;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::sync::{Mutex, OnceLock};

use forkyard_sys::exec::{self, Mask, Plan, SpawnError, Spawned};
use forkyard_sys::{Errno, handover, mask, memfd};
use serde::{Deserialize, Serialize};

use super::address::Address;
use super::listener::{Listener, SocketFile};
use crate::error::{Error, Kind, Result};
use crate::sync_std::lock;

/// `PID:FD` of the state.
const VARIABLE: &str = "FORKYARD_UPGRADE";
/// Pid of a process that wants to know whether this program comes as far as opening its listeners.
const PROBE: &str = "FORKYARD_UPGRADE_PROBE";
/// Longest state that is read.
const LIMIT: u64 = 1 << 28;
/// Changes with the layout of [`State`]: an image that does not know it starts afresh, on the listeners it can open.
const VERSION: u32 = 1;
const SIGKILL: i32 = 9;
const STDIN: RawFd = 0;
const STDOUT: RawFd = 1;
const STDERR: RawFd = 2;
/// HUP, INT, QUIT, USR1, USR2, TERM, TTIN, TTOU: held back until the next image has its handlers.
const HELD_BACK: u64 = bit(1) | bit(2) | bit(3) | bit(10) | bit(12) | bit(15) | bit(21) | bit(22);

const fn bit(signal: u32) -> u64 {
    1 << (signal - 1)
}

/// Everything that is left to the next image.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct State {
    version: u32,
    /// The signal mask before the upgrade began.
    mask: u64,
    listeners: Vec<KeptListener>,
    page: Option<(String, RawFd)>,
    pub(super) children: Vec<KeptChild>,
    pub(super) held: Vec<KeptConnection>,
    pub(super) next_number: u64,
    pub(super) generation: u64,
    pub(super) started: u64,
    pub(super) counts: Vec<u64>,
}

#[derive(Debug, Serialize, Deserialize)]
struct KeptListener {
    fd: RawFd,
    asked: String,
    address: String,
    file: Option<SocketFile>,
}

/// A child that has not ended.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct KeptChild {
    pub(super) pid: u32,
    pub(super) pidfd: RawFd,
    /// What it serves.
    pub(super) connections: Vec<Served>,
}

/// A connection in service.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Served {
    pub(super) number: u64,
    pub(super) peer: [u64; 3],
    pub(super) accepted: u64,
    pub(super) handed: u64,
}

/// A connection that was accepted and not handed off.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct KeptConnection {
    pub(super) fd: RawFd,
    pub(super) number: u64,
    pub(super) peer: [u64; 3],
    pub(super) accepted: u64,
}

impl State {
    /// The part that concerns listeners; the caller fills in the rest.
    pub(super) fn new(mask: u64, listeners: &[Listener], page: Option<(String, BorrowedFd<'_>)>) -> State {
        let listeners = listeners.iter().map(|listener| KeptListener {
            fd: number(listener.as_fd()),
            asked: listener.asked.clone(),
            address: listener.address.to_string(),
            file: listener.file().cloned(),
        });
        State {
            version: VERSION,
            mask,
            listeners: listeners.collect(),
            page: page.map(|(asked, fd)| (asked, number(fd))),
            children: Vec::new(),
            held: Vec::new(),
            next_number: 1,
            generation: 0,
            started: 0,
            counts: Vec::new(),
        }
    }
}

/// Lets through what was held back during the upgrade, unless it was blocked before.
pub(super) fn let_signals_through(state: &State) {
    mask::replace(mask::current() & !(HELD_BACK & !state.mask));
}

pub(super) fn number(fd: BorrowedFd<'_>) -> RawFd {
    use std::os::fd::AsRawFd;
    fd.as_raw_fd()
}

/// What the image before this one left, read once.
fn left() -> &'static Mutex<Option<State>> {
    static LEFT: OnceLock<Mutex<Option<State>>> = OnceLock::new();
    LEFT.get_or_init(|| Mutex::new(read()))
}

fn read() -> Option<State> {
    let text = std::env::var(VARIABLE).ok()?;
    let (pid, fd) = text.split_once(':')?;
    if pid.parse() != Ok(std::process::id()) {
        return None;
    }
    let fd = handover::take(fd.parse().ok()?).ok()?;
    let bytes = memfd::contents(&fd, LIMIT).ok()?;
    postcard::from_bytes(&bytes).ok().filter(|state: &State| state.version == VERSION)
}

/// The listener of this address, if the image before this one had it.
pub(super) fn kept_listener(asked: &str) -> Option<Listener> {
    let mut left = lock(left());
    let listeners = &mut left.as_mut()?.listeners;
    let kept = listeners.swap_remove(listeners.iter().position(|kept| kept.asked == asked)?);
    let address: Address = kept.address.parse().ok()?;
    Some(Listener::kept(handover::take(kept.fd).ok()?, kept.asked, address, kept.file))
}

/// The status page's listener, if the image before this one had it at this address.
pub(super) fn kept_page(asked: &str) -> Option<OwnedFd> {
    let mut left = lock(left());
    let (_, fd) = left.as_mut()?.page.take_if(|(kept, _)| kept == asked)?;
    handover::take(fd).ok()
}

/// Everything else, for the first server that runs. Listeners that nobody asked for are closed.
pub(super) fn take() -> Option<State> {
    let mut state = lock(left()).take()?;
    let listeners = state.listeners.drain(..).map(|kept| kept.fd);
    for fd in listeners.chain(state.page.take().map(|(_, fd)| fd)) {
        drop(handover::take(fd));
    }
    Some(state)
}

/// In a trial run: the program has come as far as opening its listeners, which is all that was to be tried.
pub(super) fn end_if_probed() {
    let asker = std::env::var(PROBE).ok().and_then(|pid| pid.parse().ok());
    let parent = forkyard_sys::prctl::parent().map(|pid| pid.as_raw_nonzero().get());
    if asker.is_some() && asker == parent {
        std::process::exit(0);
    }
}

/// The file of this program, by the name it was started with; found when the first server is built, because
/// the file may be replaced later.
pub(super) fn program() -> Option<&'static CString> {
    static PROGRAM: OnceLock<Option<CString>> = OnceLock::new();
    PROGRAM.get_or_init(find_program).as_ref()
}

fn find_program() -> Option<CString> {
    let running = std::fs::metadata("/proc/self/exe").ok()?;
    let asked = std::env::args_os().next().and_then(|name| {
        let found = exec::find_program(&name, std::env::var_os("PATH").as_deref()).ok()?;
        std::path::absolute(PathBuf::from(OsString::from_vec(found.into_bytes()))).ok()
    });
    let same = |path: &PathBuf| {
        let found = std::fs::metadata(path);
        found.is_ok_and(|found| (found.dev(), found.ino()) == (running.dev(), running.ino()))
    };
    let path = asked.filter(same).or_else(|| std::env::current_exe().ok())?;
    CString::new(path.into_os_string().into_vec()).ok()
}

fn plan<'a>(extra: String) -> Result<Plan<'a>> {
    let missing = || Error::new("upgrade", Kind::Invalid("the program's file is not known".to_owned()));
    let program = program().ok_or_else(missing)?;
    let arguments = std::env::args_os().filter_map(|argument| CString::new(argument.into_vec()).ok());
    let mut plan = Plan::new(program.clone(), arguments.collect());
    let others = std::env::vars_os().filter(|(name, _)| name != VARIABLE && name != PROBE);
    let others = others.map(|(name, value)| [name.into_vec(), value.into_vec()].join(&b'='));
    let environment = others.chain([extra.into_bytes()]).filter_map(|line| CString::new(line).ok());
    plan.environment(environment.collect());
    Ok(plan)
}

/// Starts a trial run of the program's file: it must end well for the upgrade to go on. Its output is for stderr.
pub(super) fn probe() -> Result<Spawned> {
    let what = "try the program's file";
    let nothing = std::fs::File::open("/dev/null")
        .map_err(|e| Error::os(what, Errno::from_io_error(&e).unwrap_or(Errno::IO)))?;
    let stderr = std::io::stderr();
    let mut plan = plan(format!("{PROBE}={}", std::process::id()))?;
    plan.place(nothing.as_fd(), STDIN).place(stderr.as_fd(), STDOUT).place(stderr.as_fd(), STDERR);
    plan.signal_mask(Mask::Set(0)).parent_death_signal(SIGKILL);
    exec::spawn(&plan).map_err(|SpawnError { errno, .. }| Error::os(what, errno))
}

/// Executes the program's file in place of this image, which it leaves the state and these descriptors to. Returns only
/// if that failed; then everything is as it was.
pub(super) fn replace(state: &State, fds: &[BorrowedFd<'_>]) -> Error {
    let what = "replace the program";
    let left = postcard::to_stdvec(state)
        .map_err(|e| Error::new(what, Kind::Codec(e.to_string())))
        .and_then(|bytes| memfd::holding("forkyard-upgrade", &bytes).map_err(|errno| Error::os(what, errno)));
    let left = match left {
        Ok(left) => left,
        Err(error) => return error,
    };
    let mut plan = match plan(format!("{VARIABLE}={}:{}", std::process::id(), number(left.as_fd()))) {
        Ok(plan) => plan,
        Err(error) => return error,
    };
    for fd in fds.iter().copied().chain([left.as_fd()]) {
        plan.keep(fd);
    }
    plan.signal_mask(Mask::Set(state.mask | HELD_BACK)).keep_sigpipe();
    let SpawnError { errno, .. } = exec::replace(&plan);
    for fd in fds {
        // It can fail for a closed descriptor only.
        let _ = forkyard_sys::net::set_inheritable(fd, false);
    }
    Error::os(what, errno)
}
