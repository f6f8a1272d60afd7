//! Several processes, or threads, that want the same.
//!
//! # Safety
//! The forks run a loop over what was made before, and leave by `_exit`.

use std::hint::black_box;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

use super::contenders::{Section, shared_memory};

/// Most parties.
const MOST: usize = 64;

/// A count on a cache line of its own.
#[repr(align(128))]
struct Count(AtomicU64);

/// What a crew shares.
struct Board {
    ready: AtomicU32,
    /// 0 wait, 1 go, 2 stop.
    order: AtomicU32,
    counts: [Count; MOST],
}

/// A process that was forked, killed and reaped when it is dropped.
pub(crate) struct Fork(pub(crate) libc::pid_t);

impl Fork {
    /// A copy of this process that does this and ends.
    pub(crate) fn that(does: impl FnOnce()) -> Result<Fork, String> {
        // SAFETY: see the heading.
        match unsafe { libc::fork() } {
            -1 => Err(std::io::Error::last_os_error().to_string()),
            0 => {
                does();
                // SAFETY: numbers only.
                unsafe { libc::_exit(0) }
            }
            pid => Ok(Fork(pid)),
        }
    }

    /// SIGKILL.
    pub(crate) fn kill(&self) {
        // SAFETY: numbers only; the process is a child that was not reaped.
        unsafe { libc::kill(self.0, libc::SIGKILL) };
    }

    /// Waits for its end.
    pub(crate) fn join(self) {
        // SAFETY: numbers, and null.
        unsafe { libc::waitpid(self.0, std::ptr::null_mut(), 0) };
        std::mem::forget(self);
    }
}

impl Drop for Fork {
    fn drop(&mut self) {
        self.kill();
        Fork(self.0).join();
    }
}

/// How often each of the parties was in the section.
pub(crate) fn contend<L: Section>(parties: usize, spins: u32, length: Duration) -> Result<Vec<u64>, String> {
    let board: &'static Board = shared_memory()?;
    let lock: &'static L = Box::leak(Box::new(L::make()?));
    let work = move |party: usize| {
        board.ready.fetch_add(1, Ordering::AcqRel);
        while board.order.load(Ordering::Acquire) == 0 {
            std::thread::yield_now();
        }
        let mut count = 0;
        while board.order.load(Ordering::Relaxed) == 1 {
            lock.section(|| {
                (0..spins).for_each(|spin| {
                    black_box(spin);
                })
            });
            count += 1;
        }
        board.counts[party].0.store(count, Ordering::Release);
    };
    let conduct = || {
        while board.ready.load(Ordering::Acquire) < parties as u32 {
            std::thread::yield_now();
        }
        board.order.store(1, Ordering::Release);
        std::thread::sleep(length);
        board.order.store(2, Ordering::Release);
    };
    if L::THREADS {
        std::thread::scope(|scope| {
            for party in 0..parties {
                scope.spawn(move || work(party));
            }
            conduct();
        });
    } else {
        let forks: Vec<Fork> =
            (0..parties).map(|party| Fork::that(|| work(party))).collect::<Result<_, _>>()?;
        conduct();
        forks.into_iter().for_each(Fork::join);
    }
    Ok(board.counts[..parties].iter().map(|count| count.0.load(Ordering::Acquire)).collect())
}
