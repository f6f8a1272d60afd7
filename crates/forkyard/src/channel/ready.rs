//! A queue as a descriptor: for programs that sleep in poll or epoll, and not on a word. README.md ("Readiness") says why it is made this way.
//!
//! Killed here: whoever sleeps on a bell owes nobody anything, and the descriptor goes with its process.

use std::fmt;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use forkyard_sys::epoll::EventFd;
use forkyard_sys::mask;

use super::bell::Bell;
use super::core::Core;
use crate::error::{Error, Result};
use crate::primitive::{self, AtomicU32, Futex, Ordering, Woken};
use crate::shm::{Family, Lives};
use crate::sync_std::lock;

/// Most queues that one sentry watches: the kernel takes so many words at a time.
const MOST: usize = 120;
/// As long as any sleeper sleeps: then it looks for deaths that nobody told of.
const SLICE: Duration = Duration::from_secs(1);

/// Which end of a queue is asked about.
#[derive(Clone, Copy, Debug)]
pub(super) enum End {
    Get,
    Put,
    /// The end of all work.
    Join,
}

/// Tells by a descriptor that it is time to look at a queue again.
///
/// ```
/// use forkyard::channel::{Queue, wait};
/// use std::os::fd::AsFd;
///
/// let queue = Queue::bounded(10)?;
/// let ready = queue.ready_to_get()?;
/// # queue.put(7)?;
/// let value = loop {
///     // What comes from here on is told; what came before is seen by the look that follows.
///     ready.arm();
///     match queue.try_get() {
///         Err(error) if error.is_empty() => wait(&[ready.as_fd()], None)?,
///         done => break done?,
///     };
/// };
/// assert_eq!(value, 7);
/// # Ok::<(), forkyard::Error>(())
/// ```
///
/// It belongs to the process that made it. While there is one, its process has one more thread, so it cannot be forked.
pub struct Ready {
    watch: Arc<Watch>,
    sentry: Arc<Sentry>,
}

struct Watch {
    core: Core,
    end: End,
    event: EventFd,
    /// What its bell said when it was armed; none while it is not.
    armed: Mutex<Option<u32>>,
}

impl Watch {
    fn bell(&self) -> &Bell {
        let counters = &self.core.header().counters;
        match self.end {
            End::Get => &counters.items,
            End::Put => &counters.room,
            End::Join => &self.core.header().finished,
        }
    }
}

impl Ready {
    pub(super) fn new(core: &Core, end: End) -> Result<Ready> {
        let event = EventFd::new().map_err(|errno| Error::os("watch a queue", errno))?;
        let watch = Arc::new(Watch { core: core.clone(), end, event, armed: Mutex::new(None) });
        Ok(Ready { sentry: Sentry::of(&watch)?, watch })
    }

    /// Makes the descriptor readable from the next change on, and not before. Whoever arms it looks at the queue once more before waiting.
    ///
    /// While it is armed, whoever puts or gets makes a system call: so arm it only when there was nothing to do.
    pub fn arm(&self) {
        let mut armed = lock(&self.watch.armed);
        if *armed == Some(self.watch.bell().word().load(Ordering::SeqCst)) {
            return;
        }
        self.watch.event.take();
        *armed = Some(self.watch.bell().announce());
        drop(armed);
        self.sentry.look();
    }

    /// Makes it readable now.
    #[cfg(feature = "tokio")]
    pub(super) fn notify(&self) {
        self.watch.event.notify();
    }
}

impl Drop for Ready {
    fn drop(&mut self) {
        lock(&self.sentry.posts).watches.retain(|watch| !Arc::ptr_eq(watch, &self.watch));
        self.sentry.look();
    }
}

impl AsFd for Ready {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.watch.event.as_fd()
    }
}

impl AsRawFd for Ready {
    fn as_raw_fd(&self) -> RawFd {
        self.as_fd().as_raw_fd()
    }
}

impl fmt::Debug for Ready {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Ready({:?} at {})", self.watch.end, self.watch.core.made_at())
    }
}

/// A thread that sleeps on the bells of queues, and writes to their descriptors. It ends with its last post.
struct Sentry {
    /// Changed when there is something new to look at.
    news: AtomicU32,
    process: u32,
    posts: Mutex<Posts>,
}

#[derive(Default)]
struct Posts {
    watches: Vec<Arc<Watch>>,
    is_over: bool,
}

static SENTRIES: Mutex<Vec<Arc<Sentry>>> = Mutex::new(Vec::new());

impl Sentry {
    /// One that watches this, too.
    fn of(watch: &Arc<Watch>) -> Result<Arc<Sentry>> {
        let mut sentries = lock(&SENTRIES);
        let own = std::process::id();
        // A fork has none of its parent's threads.
        sentries.retain(|sentry| sentry.process == own && !lock(&sentry.posts).is_over);
        let has_room = |sentry: &&Arc<Sentry>| {
            let mut posts = lock(&sentry.posts);
            let has_room = !posts.is_over && posts.watches.len() < MOST;
            if has_room {
                posts.watches.push(Arc::clone(watch));
            }
            has_room
        };
        if let Some(sentry) = sentries.iter().find(has_room) {
            return Ok(Arc::clone(sentry));
        }
        let posts = Posts { watches: vec![Arc::clone(watch)], is_over: false };
        let sentry = Arc::new(Sentry { news: AtomicU32::new(0), process: own, posts: Mutex::new(posts) });
        let its = Arc::clone(&sentry);
        // Signals are for the program's own threads.
        let before = mask::replace(u64::MAX);
        let thread = std::thread::Builder::new()
            .name("forkyard-sentry".to_owned())
            .stack_size(256 * 1024)
            .spawn(move || its.stand());
        mask::replace(before);
        thread.map_err(|error| Error::io("start a thread that watches queues", &error))?;
        sentries.push(Arc::clone(&sentry));
        Ok(sentry)
    }

    /// Has it look at its posts again.
    fn look(&self) {
        self.news.fetch_add(1, Ordering::SeqCst);
        primitive::wake(&self.news, 1);
    }

    fn stand(&self) {
        loop {
            let news = self.news.load(Ordering::SeqCst);
            let watches = {
                let mut posts = lock(&self.posts);
                posts.is_over = posts.watches.is_empty();
                if posts.is_over {
                    return;
                }
                posts.watches.clone()
            };
            let seen = watches.iter().map(|watch| (watch, *lock(&watch.armed)));
            let armed: Vec<_> = seen.filter_map(|(watch, seen)| Some((watch, seen?))).collect();
            let mut words = vec![(Futex::from(&self.news), news)];
            words.extend(armed.iter().map(|(watch, seen)| (watch.bell().word().into(), *seen)));
            let slice = Instant::now() + SLICE;
            let woken = primitive::wait(&words, (!armed.is_empty()).then_some(slice));
            for (watch, seen) in &armed {
                tell(watch, *seen);
            }
            if woken == Woken::TimedOut {
                Family.tidy();
            }
        }
    }
}

/// Writes to the descriptor if the bell was rung.
fn tell(watch: &Watch, seen: u32) {
    let word = watch.bell().word();
    if word.load(Ordering::SeqCst) == seen {
        return;
    }
    let mut armed = lock(&watch.armed);
    if *armed == Some(seen) {
        *armed = None;
        watch.event.notify();
    }
    // The call was perhaps meant for somebody else, and this process may not come: it is passed on.
    primitive::wake(word, 1);
}
