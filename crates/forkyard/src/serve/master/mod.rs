//! The master: one thread, one epoll set, all state of a running server.
//!
//! This file is the loop: wait, dispatch, settle. `accept.rs` takes connections in and hands them off, `reap.rs` starts
//! children and sees them end, `stop.rs` stops, `connections.rs` and `children.rs` keep the books.

mod accept;
mod backoff;
mod children;
mod connections;
mod generation;
mod limit;
mod processors;
mod program;
mod reap;
mod status;
mod stop;
mod upgrade;
mod workers;

use std::collections::VecDeque;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::time::{Duration, Instant};

use forkyard_sys::epoll::{Epoll, EventFd, Interest, Ready};
use forkyard_sys::time::monotonic_ns;
use forkyard_sys::{Errno, limits::Resource};

use self::backoff::Backoff;
use self::children::Children;
use self::connections::Connections;
use self::generation::Generation;
use self::processors::Times;
use self::status::Page;
use self::stop::Phase;
use self::upgrade::Probe;
use super::child::{Settings, Work};
use super::config::{Config, Mode};
use super::control::{Command, Control};
use super::event::Event;
use super::listener::Listener;
use super::scoreboard::{Board, Count, Fact, Reader};
use super::server::{Handler, Server};
use super::stats::Stats;
use super::ucspi::{self, Program};
use crate::error::{Error, Kind, Result};

/// What an epoll report is about; its number is in the lower half of the key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Key {
    Control,
    Bell,
    Zygote,
    Page,
    Probe,
    Listener(usize),
    Child(u32),
    Lane(u32),
}

impl Key {
    fn word(self) -> u64 {
        match self {
            Key::Control => 1 << 32,
            Key::Bell => 2 << 32,
            Key::Zygote => 3 << 32,
            Key::Listener(n) => 4 << 32 | n as u64,
            Key::Child(slot) => 5 << 32 | u64::from(slot),
            Key::Page => 6 << 32,
            Key::Probe => 7 << 32,
            Key::Lane(slot) => 8 << 32 | u64::from(slot),
        }
    }

    fn of(word: u64) -> Option<Key> {
        let low = word & 0xFFFF_FFFF;
        Some(match word >> 32 {
            1 => Key::Control,
            2 => Key::Bell,
            3 => Key::Zygote,
            4 => Key::Listener(usize::try_from(low).ok()?),
            5 => Key::Child(u32::try_from(low).ok()?),
            6 => Key::Page,
            7 => Key::Probe,
            8 => Key::Lane(u32::try_from(low).ok()?),
            _ => return None,
        })
    }
}

/// Reports taken from the kernel at once.
const EVENTS: usize = 128;

/// When nothing has happened for so long, spares are started that are missing.
const LULL: Duration = Duration::from_millis(1);

struct Master {
    config: Config,
    settings: Settings,
    /// The children share one lane; else each has its own.
    shared: bool,
    epoll: Epoll,
    control: Control,
    bell: EventFd,
    board: Arc<Board>,
    listeners: Vec<Listener>,
    /// The listeners are in the epoll set.
    listening: bool,
    connections: Connections,
    children: Children,
    /// The last one is current; earlier ones are leaving.
    generations: Vec<Generation>,
    next_generation: u64,
    /// Workers, or spares, to keep.
    target: usize,
    /// Connections that are gathered on one worker.
    gathered: usize,
    /// When loads were last compared, and the processors' times then.
    compared: (u64, Option<Times>),
    /// Nothing has happened for a moment: time to start spares.
    quiet: bool,
    phase: Phase,
    starts: Backoff,
    accepts: Backoff,
    /// Connections that are to be ended, in order: when, line, number.
    overdue: VecDeque<(u64, usize, u64)>,
    zygotes: Backoff,
    zygote_since: Instant,
    zygote_died: bool,
    page: Option<Page>,
    probe: Option<Probe>,
    /// The handler, if it is a program.
    program: Option<Program>,
    /// Slots of children whose program was being executed when the master last looked, in the order of their starts.
    launches: VecDeque<u32>,
    on_event: Box<dyn FnMut(&Event)>,
}

/// Serves until it is told to stop.
pub(super) fn run(server: Server, handler: Handler) -> Result<Stats> {
    let Server { config, listeners, control, status, on_event, on_ready } = server;
    check(&config, &handler)?;
    let work = Work::from(&handler);
    let mut master = Master::new(config, work, listeners, status, control, on_event)?;
    master.begin()?;
    on_ready();
    let result = master.serve();
    let stats = master.finish();
    result.map(|()| stats)
}

/// Descriptors that a process of the server needs: its own, or a program's three.
const FILES: u64 = 16;
const FILES_OF_PROGRAM: u64 = 3;

fn check(config: &Config, handler: &Handler) -> Result<()> {
    let needed = if matches!(handler, Handler::Program(_)) { FILES_OF_PROGRAM } else { FILES };
    if let Some(Some(few)) =
        config.rights.soft_limit(Resource::NOFILE.name()).filter(|few| *few < Some(needed))
    {
        let why = format!("nofile={few} leaves its processes too few descriptors; they need {needed}");
        return Err(Error::new("limit the server's children", Kind::Invalid(why)));
    }
    let Handler::Program(args) = handler else { return Ok(()) };
    if config.mode == Mode::Prefork {
        let why = "a program is executed in place of its process: use process mode".to_owned();
        return Err(Error::new("serve with a program", Kind::Invalid(why)));
    }
    use std::os::unix::ffi::OsStrExt;
    let name = args.first().map_or(&b""[..], |name| name.as_bytes());
    let what = || format!("find program {}", String::from_utf8_lossy(name));
    ucspi::find(name).map(|_| ()).map_err(|errno| Error::os(what(), errno))
}

impl Master {
    fn new(
        config: Config,
        work: Work,
        listeners: Vec<Listener>,
        status: Option<OwnedFd>,
        control: Control,
        on_event: Box<dyn FnMut(&Event)>,
    ) -> Result<Master> {
        let os = |errno: Errno| Error::os("set up the server", errno);
        let prefork = config.mode == Mode::Prefork;
        let multiplexed = prefork && matches!(work, Work::Upper | Work::Echo);
        let target = config.worker_count();
        // Room for as many again: old generations leave while new ones are there.
        let most_children =
            2 * if prefork { (2 * target).max(64) } else { config.max_connections + (2 * target).max(64) };
        let most_connections = Connections::lines(config.max_connections);
        raise_file_limit(config.max_connections + most_children);
        let board = Arc::new(Board::create(most_children, most_connections).map_err(os)?);
        board.set_fact(Fact::Pid, u64::from(std::process::id()));
        board.set_fact(Fact::Mode, u64::from(prefork));
        board.set_fact(Fact::Started, monotonic_ns());
        let settings = Settings {
            work,
            once: !prefork,
            idle: config.idle_timeout,
            total: config.total_timeout,
            rights: config.rights.clone(),
        };
        let connections = Connections::new(board.clone(), config.max_connections, config.max_per_address);
        Ok(Master {
            settings,
            shared: !multiplexed,
            epoll: Epoll::new().map_err(os)?,
            control,
            bell: EventFd::new().map_err(os)?,
            board,
            listeners,
            listening: false,
            connections,
            children: Children::new(most_children),
            generations: Vec::new(),
            next_generation: 1,
            target,
            gathered: workers::most_gathered(&config.rights),
            compared: (0, None),
            quiet: false,
            phase: Phase::Running,
            starts: Backoff::default(),
            accepts: Backoff::default(),
            overdue: VecDeque::new(),
            zygotes: Backoff::default(),
            zygote_since: Instant::now(),
            zygote_died: false,
            page: status.map(Page::new),
            probe: None,
            program: None,
            launches: VecDeque::new(),
            on_event,
            config,
        })
    }

    /// Makes the first generation and its first children; whatever keeps them from coming up is an error.
    fn begin(&mut self) -> Result<()> {
        let os = |errno: Errno| Error::os("watch the server's events", errno);
        self.epoll.add(self.control.wake(), Key::Control.word(), Interest::IN).map_err(os)?;
        self.epoll.add(&self.bell, Key::Bell.word(), Interest::IN).map_err(os)?;
        self.add_generation()?;
        self.take_over()?;
        let names = self.listeners.iter().map(|listener| listener.address.to_string()).collect();
        self.control.publish(Some(Reader::new(self.board.clone(), names)));
        self.start_missing(usize::MAX)?;
        Ok(())
    }

    fn serve(&mut self) -> Result<()> {
        let mut ready: Vec<Ready> = Vec::with_capacity(EVENTS);
        loop {
            self.settle()?;
            if self.is_over() {
                return Ok(());
            }
            self.wait(&mut ready)?;
            // Ends first: they make room for what is accepted.
            for event in &ready {
                match Key::of(event.data.u64()) {
                    Some(Key::Child(slot)) => self.child_event(slot),
                    Some(Key::Zygote) => self.zygote_event(),
                    Some(Key::Page) => self.page_event(),
                    Some(Key::Probe) => self.probe_event(),
                    Some(Key::Bell) => {
                        self.bell.take();
                        self.relieve_busy();
                    }
                    Some(Key::Lane(slot)) => self.take_returned(slot, workers::RETURNED_AT_ONCE),
                    Some(Key::Control) => self.obey(),
                    Some(Key::Listener(_)) | None => {}
                }
            }
            for event in &ready {
                if let Some(Key::Listener(index)) = Key::of(event.data.u64()) {
                    self.accept_from(index, accept::AT_ONCE);
                }
            }
        }
    }

    fn wait(&mut self, ready: &mut Vec<Ready>) -> Result<()> {
        let failed = |errno: Errno| Error::os("wait for the server's events", errno);
        if self.connections.has_unclaimed() {
            // What has happened already is no reason to have every claim announced.
            self.epoll.wait(ready, Some(Duration::ZERO)).map_err(failed)?;
            self.connections.drop_claimed();
            if !ready.is_empty() {
                self.quiet = false;
                return Ok(());
            }
        }
        self.set_bells(true);
        let timeout = self.timeout();
        self.epoll.wait(ready, timeout).map_err(failed)?;
        self.set_bells(false);
        self.quiet = ready.is_empty();
        Ok(())
    }

    /// Brings everything to where it should be after what has happened.
    fn settle(&mut self) -> Result<()> {
        self.set_bells(false);
        self.hurry_unclaimed();
        self.connections.admit_all_parked();
        self.hand_off_pending();
        self.end_overdue();
        self.probe_event();
        self.advance_phase();
        if let Err(error) = self.keep_zygote() {
            self.zygotes.failed(Instant::now());
            self.back_off(error);
        }
        self.keep_page();
        if self.may_start() && !self.spares_can_wait() {
            // A few at a time: clients that come meanwhile are not kept waiting for all of them.
            if let Err(error) = self.start_missing(reap::STARTS_AT_ONCE) {
                self.back_off(error);
            }
            self.hand_off_pending();
        }
        // Before anything else takes the last descriptor; if it has, accepting waits.
        if let Some(current) = self.current() {
            let _ = current.keep_room();
        }
        self.keep_listening()?;
        self.connections.publish();
        Ok(())
    }

    /// How long nothing has to be done if nothing happens.
    fn timeout(&self) -> Option<Duration> {
        let now = Instant::now();
        let backing_off = self.starts.pending(now).is_some() || self.zygotes.pending(now).is_some();
        let missing = self.has_missing() && self.may_start() && !backing_off;
        if missing && !self.spares_can_wait() {
            return Some(Duration::ZERO);
        }
        let lull = missing.then_some(LULL);
        let now_ns = monotonic_ns();
        let unclaimed = self.connections.unclaimed_since();
        let unclaimed = unclaimed
            .map(|since| Duration::from_nanos((since + accept::UNCLAIMED_NS).saturating_sub(now_ns)));
        let overdue = self.overdue.front().map(|(at, ..)| Duration::from_nanos(at.saturating_sub(now_ns)));
        let instants = [
            self.starts.pending(now),
            self.accepts.pending(now),
            self.zygotes.pending(now),
            self.phase.deadline(),
            self.page.as_ref().and_then(|page| page.pending(now)),
            self.probe.as_ref().map(Probe::until),
        ];
        let instants = instants.into_iter().flatten().map(|at| at.saturating_duration_since(now));
        instants.chain(overdue).chain(unclaimed).chain(lull).min()
    }

    /// While connections come one upon the other, each for which there is no spare is served by a child of its own at once. A spare more
    /// would take the same time to start, and longer to be handed a connection.
    fn spares_can_wait(&self) -> bool {
        !self.quiet && self.connections.pending.is_empty() && self.executes_at_need()
    }

    fn obey(&mut self) {
        self.control.wake().take();
        while let Some(command) = self.control.take() {
            match command {
                Command::Stop(grace) => self.stop(grace.unwrap_or(self.config.grace)),
                Command::StopNow => self.stop_now(),
                Command::Reload => self.reload(),
                Command::AddWorker => self.set_target(self.target + 1),
                Command::RemoveWorker => self.set_target(self.target.saturating_sub(1)),
                Command::Upgrade => self.upgrade(),
            }
        }
    }

    /// A limit of the system was met: says so, and tries again later.
    fn back_off(&mut self, error: Error) {
        self.starts.failed(Instant::now());
        self.board.count(Count::Backoffs, 1);
        self.report(&Event::BackedOff(error));
    }

    fn report(&mut self, event: &Event) {
        (self.on_event)(event);
    }

    /// The generation that new children belong to.
    fn current(&mut self) -> Option<&mut Generation> {
        self.generations.last_mut()
    }

    fn generation(&mut self, id: u64) -> Option<&mut Generation> {
        self.generations.iter_mut().find(|generation| generation.id == id)
    }

    /// Puts everything away and tells what was done.
    fn finish(mut self) -> Stats {
        self.connections.drop_held();
        self.end_page();
        if let Some(probe) = self.probe.take() {
            probe.end();
        }
        self.end_children();
        self.give_up_rest();
        self.connections.publish();
        let stats = Reader::new(self.board.clone(), Vec::new()).stats();
        self.control.publish(None);
        stats
    }
}

/// Raises the soft limit of open files towards the hard one, if so many might be needed.
fn raise_file_limit(needed: usize) {
    let needed = needed as u64 + 64;
    let Ok((Some(soft), hard)) = Resource::NOFILE.get() else { return };
    if soft < needed {
        let wanted = hard.map_or(needed, |hard| needed.min(hard));
        // What cannot be had is met by backing off.
        let _ = Resource::NOFILE.set(Some(wanted), hard);
    }
}

/// The listeners' part of the loop's contract: watched exactly while connections may be accepted.
impl Master {
    fn keep_listening(&mut self) -> Result<()> {
        let room = self.has_room();
        let backing_off = self.accepts.pending(Instant::now()).is_some();
        let wanted = room && !backing_off && self.phase == Phase::Running;
        if wanted == self.listening {
            return Ok(());
        }
        if !wanted && !room {
            self.board.count(Count::Deferred, 1);
        }
        for (index, listener) in self.listeners.iter().enumerate() {
            let result = if wanted {
                self.epoll.add(listener, Key::Listener(index).word(), Interest::IN)
            } else {
                self.epoll.remove(listener.as_fd())
            };
            result.map_err(|errno| Error::os("watch the listeners", errno))?;
        }
        self.listening = wanted;
        Ok(())
    }
}
