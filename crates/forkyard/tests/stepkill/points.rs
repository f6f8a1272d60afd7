//! Where to kill: an operation is walked through once, instruction by instruction, and its points chosen from that.
//!
//! A point is so many boundaries of system calls from the beginning, and so many instructions from there. What other
//! processes can see changes at system calls and at stores to shared memory only; the first are all points, and
//! around the second every instruction is. The rest is covered with the smallest stride that the budget allows, which
//! is 1 with `FORKYARD_STEPKILL=all`.

use std::ffi::c_long;
use std::fmt;
use std::fs::File;
use std::os::unix::fs::FileExt;

use crate::trace::{Boundary, Tracee, Until};

/// Every instruction this close behind a system call, and around a store to shared memory, is a point.
const CLOSE: u32 = 4;

/// What goes on for longer between two system calls is copying, and only its beginning is walked through.
const LONG: u32 = 15_000;

/// A place in an operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Point {
    pub(crate) boundaries: usize,
    pub(crate) instructions: u32,
}

/// What one process does from where it stands to its last system call of the operation.
#[derive(Debug, Default)]
pub(crate) struct Walk {
    /// One for each boundary passed, and one for the start: what follows up to the next boundary.
    stretches: Vec<Stretch>,
}

#[derive(Debug, Default)]
struct Stretch {
    instructions: u32,
    /// After which of them shared memory had changed.
    stores: Vec<u32>,
    /// The call that it leads to, where it leads to one.
    entry: Option<c_long>,
}

/// Bytes of a slot.
const SLOT: usize = 512;

/// The outcome board as it lies in a process.
pub(crate) struct Board {
    memory: File,
    address: u64,
}

impl Board {
    /// As process `pid` has mapped it.
    pub(crate) fn of(pid: i32) -> Option<Board> {
        let maps = std::fs::read_to_string(format!("/proc/{pid}/maps")).ok()?;
        let line = maps.lines().find(|line| line.contains("memfd:forkyard-outcomes"))?;
        let address = u64::from_str_radix(line.split('-').next()?, 16).ok()?;
        Some(Board { memory: File::open(format!("/proc/{pid}/mem")).ok()?, address })
    }

    /// The first words of the first slots: state and number of the child.
    pub(crate) fn words(&self) -> [[u32; 2]; 4] {
        let mut bytes = [0; 4 * SLOT];
        // A process that is ending has no memory any more.
        let _ = self.memory.read_at(&mut bytes, self.address);
        let word = |at: usize| u32::from_ne_bytes(bytes[at..at + 4].try_into().unwrap());
        [0, 1, 2, 3].map(|slot| [word(slot * SLOT), word(slot * SLOT + 4)])
    }
}

impl Walk {
    /// Walks a stopped tracee up to the entry of the call for which `is_last` holds, or to its end. One that stands
    /// `in_call` enters that call again first.
    pub(crate) fn through(tracee: Tracee, in_call: bool, mut is_last: impl FnMut(c_long) -> bool) -> Walk {
        let board = Board::of(tracee.0);
        let look = || board.as_ref().map(Board::words);
        let mut stretches = vec![];
        loop {
            let mut stretch = Stretch::default();
            let mut before = look();
            while stretch.instructions < LONG && !(in_call && stretches.is_empty() || tracee.is_before_call())
            {
                if !tracee.go(Until::Instruction) {
                    return Walk { stretches };
                }
                stretch.instructions += 1;
                let now = look();
                if now != before {
                    stretch.stores.push(stretch.instructions);
                    before = now;
                }
            }
            if !tracee.go(Until::CallBoundary) {
                return Walk { stretches };
            }
            let Some(Boundary::Entry(call)) = tracee.boundary() else { panic!("an exit without an entry") };
            stretch.entry = Some(call);
            stretches.push(stretch);
            if is_last(call) {
                stretches.push(Stretch::default());
                return Walk { stretches };
            }
            // Inside the call.
            stretches.push(Stretch::default());
            if !tracee.go(Until::CallBoundary) {
                return Walk { stretches };
            }
        }
    }

    /// The system call that boundary `number` leads into, if it is one before a call.
    pub(crate) fn call_at(&self, number: usize) -> Option<c_long> {
        self.stretches.get(number.checked_sub(1)?)?.entry
    }

    fn instructions(&self) -> u32 {
        self.stretches.iter().map(|stretch| stretch.instructions).sum()
    }

    /// How much of it a stride covers, in words.
    pub(crate) fn details(&self, stride: u32) -> String {
        let boundaries = self.stretches.len() - 1;
        format!(
            "each of {boundaries} call boundaries, one in {stride} of {} instructions",
            self.instructions()
        )
    }

    /// All boundaries, and as many instructions as the budget of points and of steps allows; and the stride.
    pub(crate) fn points(&self, most_points: usize, most_steps: u64) -> (Vec<Point>, u32) {
        let all = std::env::var("FORKYARD_STEPKILL").is_ok_and(|value| value == "all");
        let mut stride = 1;
        loop {
            let points = self.points_with(stride);
            let steps: u64 = points.iter().map(|point| u64::from(point.instructions)).sum();
            if all || (points.len() <= most_points && steps <= most_steps) || stride > self.instructions() {
                return (points, stride);
            }
            stride += stride / 8 + 1;
        }
    }

    fn points_with(&self, stride: u32) -> Vec<Point> {
        let mut points = vec![];
        for (boundaries, stretch) in self.stretches.iter().enumerate() {
            let is_point = |&at: &u32| {
                at % stride == 0
                    || at < CLOSE
                    || stretch.stores.iter().any(|store| store.abs_diff(at) < CLOSE)
            };
            let chosen = (0..=stretch.instructions).filter(is_point);
            points.extend(chosen.map(|instructions| Point { boundaries, instructions }));
        }
        points
    }
}

impl fmt::Display for Point {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} call boundaries and {} instructions in", self.boundaries, self.instructions)
    }
}

impl Point {
    /// Brings a tracee here from the beginning of the operation; false if it ended before.
    pub(crate) fn reach(self, tracee: Tracee) -> bool {
        (0..self.boundaries).all(|_| tracee.go(Until::CallBoundary))
            && (0..self.instructions).all(|_| tracee.go(Until::Instruction))
    }
}
