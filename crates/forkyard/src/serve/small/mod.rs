//! Children for built-in handlers that are a program of their own: a few pages, executed from sealed memory.
//!
//! A clone of the zygote copies the page tables of a whole Rust program and drops them again, most of what a connection costs.
//! This program (`program.rs`, compiled by `build.rs`) has next to nothing to copy, load or drop. It keeps the same books, in the same
//! scoreboard, as a clone does (`child.rs`), so the master sees no difference.
//!
//! Whether it can be executed here, with these rights, is tried once for each generation: where it was not built, or may not be
//! executed (`vm.memfd_noexec`, a sandbox), or does not come up, children are clones of the zygote.
//!
//! Killed here: README.md of `serve`, "If … is killed here".

use std::ffi::CString;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

use forkyard_sys::exec::{self, Launch, Mask, Plan, SpawnError, Spawned};
use forkyard_sys::wait::Ending;
use forkyard_sys::{memfd, pidfd, wait};

use super::child::{NAME, Settings, Work};
use super::handoff::Handed;
use super::rights::Rights;

/// The program; empty where it could not be built.
static PROGRAM: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/small"));

const LANE: i32 = 3;
const BOARD: i32 = 4;
const BELL: i32 = 5;
const SIGKILL: i32 = 9;

/// What the program ends with when it was only tried.
const TRIED: i32 = 42;
/// A trial takes a millisecond.
const PATIENCE: Duration = Duration::from_secs(5);

/// The program, ready to be executed.
#[derive(Debug)]
pub(super) struct Small {
    file: OwnedFd,
    board: OwnedFd,
    bell: OwnedFd,
    /// What comes after its slot on the command line.
    arguments: [CString; 3],
    rights: Rights,
}

impl Small {
    /// Makes it ready, if it is for these settings and can be executed here. `length` is the scoreboard's, in bytes.
    pub(super) fn prepare(
        settings: &Settings,
        (board, length): (BorrowedFd<'_>, usize),
        bell: BorrowedFd<'_>,
    ) -> Option<Small> {
        let work = match settings.work {
            Work::Upper => c"upper",
            Work::Echo => c"echo",
            Work::Task(_) | Work::Program(_) => return None,
        };
        if PROGRAM.is_empty() || !settings.once {
            return None;
        }
        let idle = settings.idle.map_or(0, |idle| u64::try_from(idle.as_micros()).unwrap_or(u64::MAX).max(1));
        let small = Small {
            file: memfd::program(NAME, PROGRAM).ok()?,
            board: board.try_clone_to_owned().ok()?,
            bell: bell.try_clone_to_owned().ok()?,
            arguments: [work.to_owned(), number(idle), number(length as u64)],
            rights: settings.rights.clone(),
        };
        small.comes_up().then_some(small)
    }

    /// Starts a child for this slot of the scoreboard, which takes a connection from this lane.
    pub(super) fn start(&self, slot: u32, lane: BorrowedFd<'_>) -> Result<(Spawned, Launch), SpawnError> {
        let mut plan = self.plan(self.arguments(slot), lane);
        plan.place(self.bell.as_fd(), BELL);
        exec::launch(plan)
    }

    /// Starts a child for this slot of the scoreboard with a connection that is claimed for it.
    pub(super) fn serve(&self, slot: u32, handed: &Handed) -> Result<(Spawned, Launch), SpawnError> {
        let mut arguments = self.arguments(slot);
        arguments.extend([u64::from(handed.index), handed.number].map(number));
        exec::launch(self.plan(arguments, handed.fd.as_fd()))
    }

    fn arguments(&self, slot: u32) -> Vec<CString> {
        let [work, idle, length] = self.arguments.clone();
        vec![CString::new(NAME).unwrap_or_default(), number(slot.into()), work, idle, length]
    }

    fn plan<'fd>(&'fd self, arguments: Vec<CString>, lane: BorrowedFd<'fd>) -> Plan<'fd> {
        let mut plan = Plan::of_file(self.file.as_fd(), arguments);
        plan.environment(Vec::new()).signal_mask(Mask::Set(0)).parent_death_signal(SIGKILL);
        plan.place(lane, LANE).place(self.board.as_fd(), BOARD);
        // A group of its own: Ctrl-C on a terminal is for the master, which lets connections finish.
        plan.process_group(0);
        self.rights.plan(&mut plan);
        plan
    }

    /// Tries it: whatever would keep children from coming up keeps this one.
    fn comes_up(&self) -> bool {
        let mut arguments = self.arguments(0);
        arguments[2] = c"try".to_owned();
        let plan = self.plan(arguments, self.bell.as_fd());
        let Ok(Spawned { pidfd: tried, .. }) = exec::spawn(&plan) else { return false };
        let ended = pidfd::wait_readable(tried.as_fd(), Some(Instant::now() + PATIENCE));
        if !matches!(ended, Ok(true)) {
            // ESRCH: it has ended just now.
            let _ = pidfd::send_signal(tried.as_fd(), SIGKILL);
        }
        wait::reap(tried.as_fd()).is_ok_and(|status| status.ending() == Ending::Exited(TRIED))
    }
}

fn number(number: u64) -> CString {
    CString::new(number.to_string()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::PROGRAM;

    #[test]
    #[cfg(all(target_arch = "x86_64", target_env = "gnu"))]
    fn the_program_was_built() {
        assert!(PROGRAM.starts_with(b"\x7fELF"), "{} bytes", PROGRAM.len());
    }
}
