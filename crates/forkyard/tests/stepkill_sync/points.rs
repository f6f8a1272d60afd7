//! Which instructions are points: an operation is walked through once, and what others can see watched meanwhile.
//!
//! Others see system calls and stores to the arena, nothing else: between two of them one place to die is like another. So every
//! instruction close to one is a point, and of the rest one in so many; with `FORKYARD_STEPKILL=all` each is, and with `3/16` one in 16, from
//! the third on: an operation of very many instructions is gone through in parts.

use std::collections::HashMap;
use std::fmt;
use std::fs::File;
use std::os::unix::fs::FileExt;

/// Every instruction this close to something that others see is a point.
const CLOSE: usize = 1;
/// So many lines behind one that is not zero are looked at as well.
const NEAR: usize = 4;
/// What is further away than so many steps, deep in a loop that nobody sees, is no point for its number's sake.
const FAR: usize = 1500;
/// What a stop at an anchor costs, in steps.
const STOP: usize = 4;
/// What the arena is looked at in.
const LINE: usize = 64;

/// A place in an operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Point {
    /// So many instructions after the first marker.
    pub(crate) steps: usize,
    /// Asleep in the system call that comes then.
    pub(crate) asleep: bool,
}

impl fmt::Display for Point {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} instructions in{}", self.steps, if self.asleep { ", asleep" } else { "" })
    }
}

/// What an undisturbed operation does.
#[derive(Debug, Default)]
pub(crate) struct Walk {
    pub(crate) steps: usize,
    /// Before which steps there is a system call.
    pub(crate) calls: Vec<usize>,
    /// After which steps the arena had changed.
    pub(crate) stores: Vec<usize>,
    /// Where it slept.
    pub(crate) sleeps: Vec<usize>,
    /// The address of each instruction, and for which time it was there.
    instructions: Vec<(u64, usize)>,
}

/// A way to a point that is quicker than stepping there: to this instruction for that often, and on by steps.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Anchor {
    /// Where that is, in steps.
    pub(crate) at: usize,
    pub(crate) address: u64,
    pub(crate) times: usize,
}

/// True if as many instructions are to be points as the walk has, or a part of them.
pub(crate) fn all_points() -> bool {
    wanted().is_some()
}

/// Which part of all instructions is to be points: the first one, and every how many.
fn wanted() -> Option<(usize, usize)> {
    std::env::var("FORKYARD_STEPKILL").ok().and_then(|value| part(&value))
}

impl Walk {
    pub(crate) fn points(&self, most: usize) -> (Vec<Point>, usize) {
        let wanted = wanted();
        let all = wanted.is_some();
        let seen: Vec<usize> = self.calls.iter().chain(&self.stores).copied().collect();
        let close = |at: usize| seen.iter().any(|seen| at + CLOSE >= *seen && at <= seen + CLOSE);
        let mut chosen: Vec<bool> = (0..=self.steps).map(|at| at < CLOSE || close(at)).collect();
        chosen[self.steps] = true;
        let certain = chosen.iter().filter(|chosen| **chosen).count();
        let others = most.saturating_sub(certain).max(most / 4);
        let (first, stride) = wanted.unwrap_or((0, self.steps / others + 1));
        let is_point =
            |at: &usize| chosen[*at] || *at % stride == first % stride && (all || self.way(*at).0 <= FAR);
        let awake = (0..=self.steps).filter(is_point).map(|steps| Point { steps, asleep: false });
        let asleep = self.sleeps.iter().map(|&steps| Point { steps, asleep: true });
        (asleep.chain(awake).collect(), stride)
    }

    /// Notes the instruction that stands at the end of the walk so far.
    pub(crate) fn note(&mut self, address: u64, seen: &mut HashMap<u64, usize>) {
        let times = seen.entry(address).and_modify(|count| *count += 1).or_insert(1);
        self.instructions.push((address, *times));
    }

    /// What it costs to get to a point, in steps; and the best anchor on the way, if there is one.
    pub(crate) fn way(&self, steps: usize) -> (usize, Option<Anchor>) {
        let mut best = (steps, None);
        for at in (0..self.instructions.len().min(steps + 1)).rev() {
            if steps - at >= best.0 {
                break;
            }
            let (address, times) = self.instructions[at];
            let cost = times * STOP + (steps - at);
            if cost < best.0 {
                best = (cost, Some(Anchor { at, address, times }));
            }
        }
        best
    }

    pub(crate) fn details(&self, stride: usize) -> String {
        format!(
            "all of {} system calls, {} stores and {} sleeps, one in {stride} of {} instructions",
            self.calls.len(),
            self.stores.len(),
            self.sleeps.len(),
            self.steps
        )
    }
}

/// Which points are wanted: the first, and one in so many from there on.
fn part(value: &str) -> Option<(usize, usize)> {
    if value == "all" {
        return Some((0, 1));
    }
    let (first, stride) = value.split_once('/')?;
    Some((first.parse().ok()?, stride.parse().ok().filter(|&stride| stride > 0)?))
}

/// The arena, as far as it is in use.
pub(crate) struct Watch {
    file: File,
    /// Lines that were not zero at some time: where and what.
    lines: Vec<(u64, [u8; LINE])>,
}

impl Watch {
    /// The arena of the family that this process belongs to; `None` before it has one.
    pub(crate) fn of(pid: u32) -> Option<Watch> {
        let fds = std::fs::read_dir(format!("/proc/{pid}/fd")).ok()?;
        let is_arena = |path: &std::path::PathBuf| {
            std::fs::read_link(path).is_ok_and(|to| to.to_string_lossy().contains("memfd:forkyard-arena"))
        };
        let path = fds.flatten().map(|entry| entry.path()).find(is_arena)?;
        Some(Watch { file: File::open(path).ok()?, lines: Vec::new() })
    }

    /// Takes in every line that is in use now.
    pub(crate) fn learn(&mut self) {
        let mut buffer = vec![0; 64 * 1024];
        let mut at = 0;
        let mut known: std::collections::BTreeSet<u64> = self.lines.iter().map(|line| line.0).collect();
        while let Some((start, end)) = data(&self.file, at) {
            at = start;
            while at < end {
                let len = buffer.len().min(usize::try_from(end - at).unwrap());
                let read = self.file.read_at(&mut buffer[..len], at).unwrap();
                let mut near = 0;
                for (line, bytes) in (at..).step_by(LINE).zip(buffer[..read].chunks_exact(LINE)) {
                    // A free lock is zero, and so are its words, but not the header of its block.
                    near = if bytes.iter().any(|byte| *byte != 0) { NEAR } else { near.saturating_sub(1) };
                    if near > 0 && known.insert(line) {
                        self.lines.push((line, bytes.try_into().unwrap()));
                    }
                }
                at += read as u64;
            }
        }
        self.lines.sort_unstable();
    }

    /// True if a known line has changed since the last look.
    pub(crate) fn changed(&mut self) -> bool {
        let mut changed = false;
        let mut buffer = [0; 8192];
        let mut rest = &mut self.lines[..];
        while let Some(&(start, _)) = rest.first() {
            // Lines that lie close together are read together.
            let near = |line: &(u64, [u8; LINE])| line.0 + LINE as u64 <= start + buffer.len() as u64;
            let (run, others) = rest.split_at_mut(rest.partition_point(near));
            let len = usize::try_from(run[run.len() - 1].0 - start).unwrap() + LINE;
            self.file.read_exact_at(&mut buffer[..len], start).unwrap();
            for line in run {
                let at = usize::try_from(line.0 - start).unwrap();
                if line.1 != buffer[at..at + LINE] {
                    line.1.copy_from_slice(&buffer[at..at + LINE]);
                    changed = true;
                }
            }
            rest = others;
        }
        changed
    }
}

/// The next range of the sparse file that has memory.
#[allow(unsafe_code)]
fn data(file: &File, from: u64) -> Option<(u64, u64)> {
    use std::os::fd::AsRawFd;
    let seek = |at: i64, whence| {
        // SAFETY: numbers only.
        u64::try_from(unsafe { libc::lseek(file.as_raw_fd(), at, whence) }).ok()
    };
    let start = seek(from.cast_signed(), libc::SEEK_DATA)?;
    Some((start, seek(start.cast_signed(), libc::SEEK_HOLE)?))
}
