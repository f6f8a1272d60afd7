//! Which worker serves a connection, where workers have lanes of their own: gathered while that does, spread where
//! it helps. README.md beside `serve` says why.

use forkyard_sys::limits::Resource;
use forkyard_sys::time::monotonic_ns;

use super::super::handoff::Handed;
use super::super::rights::Rights;
use super::super::scoreboard::{Cell, Count, Words};
use super::Master;
use super::accept::UNCLAIMED_NS;
use super::children::Child;
use super::processors::Times;
use super::stop::Phase;

/// More than a worker gets to hear of at once make it no faster; and so many a killed one takes along.
const GATHERED: u64 = 256;
/// Loads are compared over a time of so long at least and at most: the kernel's ticks are 10 ms.
const SPAN_NS: std::ops::RangeInclusive<u64> = 50_000_000..=3_000_000_000;
/// A worker that was busy so lately is.
const LATELY_NS: u64 = 1_000_000_000;
/// Connections taken back from one worker before others get their turn.
pub(super) const RETURNED_AT_ONCE: usize = 64;

/// How many connections are gathered on a worker with these rights, which may not have descriptors for more.
pub(super) fn most_gathered(rights: &Rights) -> usize {
    let own = || Resource::NOFILE.get().ok().and_then(|(soft, _)| soft);
    let files = rights.soft_limit(Resource::NOFILE.name()).unwrap_or_else(own);
    let most = files.map_or(GATHERED, |files| GATHERED.min(files / 2));
    usize::try_from(most).unwrap_or(1).max(1)
}

/// What a worker did lately.
#[derive(Clone, Copy, Debug)]
struct Load {
    slot: u32,
    requests: u64,
    busy: bool,
}

/// Who is to give connections to whom: the busiest to those that do least, a pair for each idle processor. Only where what is moved, half
/// of what the first one does, leaves the second with no more than the first had: so nothing moves for ever.
fn pairs(loads: &[Load], idle: usize) -> Vec<(u32, u32)> {
    let (mut from, mut to): (Vec<Load>, Vec<Load>) = loads.iter().partition(|load| load.busy);
    from.sort_by_key(|load| std::cmp::Reverse(load.requests));
    to.sort_by_key(|load| load.requests);
    let pairs = from.into_iter().zip(to).take(idle);
    pairs
        .filter(|(from, to)| 2 * to.requests <= from.requests)
        .map(|(from, to)| (from.slot, to.slot))
        .collect()
}

impl Master {
    /// The worker for a connection: the one that it was given back for; else the fullest that has time and room; else the one with
    /// the fewest. One that does not take what it is sent is the last choice.
    pub(super) fn worker_for(&mut self, handed: &Handed) -> Option<u32> {
        self.count_unfinished();
        let now = monotonic_ns();
        let open: Vec<(u32, &Child)> = self.children.iter().filter(|(_, child)| child.is_open()).collect();
        let well = open.iter().filter(|(slot, child)| !self.is_stuck(*slot, child));
        let well: Vec<_> = well.copied().collect();
        let among = if well.is_empty() { open } else { well };
        if let Some(slot) = handed.toward.filter(|slot| among.iter().any(|(other, _)| other == slot)) {
            return Some(slot);
        }
        let has_time = |slot: u32| now.saturating_sub(self.board.cell(slot as usize, Cell::Busy)) > LATELY_NS;
        let gathers = |(slot, child): &&(u32, &Child)| {
            handed.toward.is_none() && child.unfinished < self.gathered && has_time(*slot)
        };
        let fullest = among.iter().filter(gathers).rev().max_by_key(|(_, child)| child.unfinished);
        let chosen = fullest.or_else(|| among.iter().min_by_key(|(_, child)| child.unfinished));
        chosen.map(|(slot, _)| *slot)
    }

    /// Each worker's connections: those that it serves by its own account, and those it has not claimed.
    pub(super) fn count_unfinished(&mut self) {
        self.connections.drop_claimed();
        for (slot, child) in self.children.iter_mut().filter(|(_, child)| child.is_open()) {
            let cell = |cell| self.board.cell(slot as usize, cell);
            let gone = cell(Cell::Finished).saturating_add(cell(Cell::Returned));
            child.unfinished = usize::try_from(cell(Cell::Taken).saturating_sub(gone)).unwrap_or(0);
        }
        for slot in self.connections.unclaimed_by() {
            if let Some(child) = self.children.get_mut(slot) {
                child.unfinished = child.unfinished.saturating_add(1);
            }
        }
    }

    /// What a worker has done of that which tells that it is not stopped, and has descriptors.
    fn done(&self, slot: u32) -> (u64, u64) {
        let cell = |cell| self.board.cell(slot as usize, cell);
        (cell(Cell::Received), cell(Cell::Finished))
    }

    fn is_stuck(&self, slot: u32, child: &Child) -> bool {
        child.stuck.is_some_and(|done| done == self.done(slot))
    }

    /// Workers that have not claimed in time what they were sent are stopped, or have no descriptor left: others get it.
    pub(super) fn hurry_workers(&mut self) {
        let now = monotonic_ns();
        for slot in self.connections.late(now.saturating_sub(UNCLAIMED_NS)) {
            let done = self.done(slot);
            let Some(child) = self.children.get_mut(slot) else { continue };
            // It has done something since, and not this: the packet came without its descriptor.
            let went_on = child.stuck.is_some_and(|before| before != done);
            child.stuck = (!went_on).then_some(done);
            let well = |(slot, child)| Child::is_open(child) && !self.is_stuck(slot, child);
            if went_on || self.children.iter().any(well) {
                self.take_back(Some(slot));
            }
        }
        self.connections.wait_longer(now);
    }

    /// Has workers that are busy all the time give connections to others that are not, if there are processors for them.
    pub(super) fn relieve_busy(&mut self) {
        if self.shared || self.phase != Phase::Running {
            return;
        }
        let now = monotonic_ns();
        let span = now.saturating_sub(self.compared.0);
        let busy = |at: u64| at > 0 && now.saturating_sub(at) <= LATELY_NS;
        let is_busy = |slot: u32| busy(self.board.cell(slot as usize, Cell::Busy));
        // Who is busy says so again.
        if !self.children.iter().any(|(slot, child)| child.is_open() && is_busy(slot))
            || span < *SPAN_NS.start()
        {
            return;
        }
        let times = Times::now();
        let idle = match (times, self.compared.1) {
            (Some(now), Some(before)) => now.idle_since(before),
            _ => usize::MAX,
        };
        self.compared = (now, times);
        let stuck: Vec<u32> = self
            .children
            .iter()
            .filter(|(slot, child)| self.is_stuck(*slot, child))
            .map(|(slot, _)| slot)
            .collect();
        let mut loads = Vec::new();
        for (slot, child) in self.children.iter_mut().filter(|(_, child)| child.is_open()) {
            let requests = self.board.cell(slot as usize, Cell::Requests);
            let load = Load {
                slot,
                requests: requests.saturating_sub(child.seen),
                busy: busy(self.board.cell(slot as usize, Cell::Busy)),
            };
            child.seen = requests;
            loads.extend((!stuck.contains(&slot)).then_some(load));
        }
        if !SPAN_NS.contains(&span) {
            return;
        }
        for (from, to) in pairs(&loads, idle) {
            if let Some(child) = self.children.get_mut(from) {
                child.relieve(to);
            }
        }
    }

    /// A worker has given connections back, or its lane is over: takes at most so many.
    pub(super) fn take_returned(&mut self, slot: u32, most: usize) {
        for _ in 0..most {
            let Some(child) = self.children.get_mut(slot) else { return };
            let toward = child.gives_to;
            let Some((fd, index, number)) = child.take_returned(&self.epoll) else { return };
            let Some(handed) = self.connections.give_back(fd, index, number, slot, toward) else { continue };
            if self.may_start() {
                self.connections.pending.push_back(handed);
            } else {
                self.board.count(Count::Lost, 1);
                self.connections.end(handed.index as usize);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{Load, pairs};

    fn load(slot: u32, requests: u64, busy: bool) -> Load {
        Load { slot, requests, busy }
    }

    #[test]
    fn the_busiest_gives_to_the_idlest_while_a_processor_is_idle() {
        let loads = [load(0, 100, true), load(1, 20, false), load(2, 0, false), load(3, 200, true)];
        assert_eq!(pairs(&loads, 0), []);
        assert_eq!(pairs(&loads, 1), [(3, 2)]);
        assert_eq!(pairs(&loads, 9), [(3, 2), (0, 1)]);
    }

    #[test]
    fn nothing_moves_to_who_would_have_more_than_the_giver_had() {
        assert_eq!(pairs(&[load(0, 100, true), load(1, 51, false)], 9), []);
        assert_eq!(pairs(&[load(0, 100, true), load(1, 50, false)], 9), [(0, 1)]);
        assert_eq!(pairs(&[load(0, 100, true), load(1, 0, true)], 9), []);
        assert_eq!(pairs(&[load(0, 100, false), load(1, 0, false)], 9), []);
    }
}
