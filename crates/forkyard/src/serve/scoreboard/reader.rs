//! Reading the scoreboard for those who tell others about it: `Control::stats` and the status page.
//!
//! Reads only, and stops nobody. Numbers that make no sense, because somebody scribbled, are left out.

use std::sync::Arc;

use forkyard_sys::time::monotonic_ns;

use super::super::peer::Peer;
use super::super::stats::{Connected, Counts, Stats, Worker};
use super::{
    ACCEPTED, BUCKETS, Board, Cell, ChildState, ConnectionState, Count, Fact, PEER, SERVICE, Shared, WAIT,
    Words,
};

/// A view of the scoreboard for whoever tells others about it.
#[derive(Clone)]
pub(in super::super) struct Reader {
    board: Arc<Board>,
    listeners: Vec<String>,
}

impl Reader {
    pub(in super::super) fn new(board: Arc<Board>, listeners: Vec<String>) -> Reader {
        Reader { board, listeners }
    }

    /// Everything, as it is now.
    pub(in super::super) fn stats(&self) -> Stats {
        let board = &*self.board;
        let now = monotonic_ns();
        let number = |n: u64| u32::try_from(n).unwrap_or(0);
        let workers = self.workers(now);
        let connections = self.connections(now, &workers);
        let live_requests: u64 = (0..board.used(Fact::ChildLines, board.children))
            .map(|slot| board.cell(slot, Cell::Requests))
            .sum();
        Stats {
            pid: number(board.fact(Fact::Pid)),
            zygote: number(board.fact(Fact::Zygote)),
            mode: if board.fact(Fact::Mode) == 0 { "process" } else { "prefork" },
            uptime: now.saturating_sub(board.fact(Fact::Started)) as f64 / 1e9,
            generation: board.fact(Fact::Generation),
            listeners: self.listeners.clone(),
            counts: Counts {
                accepted: board.counted(Count::Accepted),
                // From the lines themselves: the master need not know at once of what ended.
                active: connections.iter().filter(|connection| connection.pid != 0).count() as u64,
                pending: board.counted(Count::Pending),
                parked: board.counted(Count::Parked),
                deferred: board.counted(Count::Deferred),
                served: board.counted(Count::ServedBefore).wrapping_add(board.counted_shared(Shared::Served)),
                lost: board.counted(Count::Lost),
                timeouts: board.counted(Count::Timeouts).wrapping_add(board.counted_shared(Shared::Timeouts)),
                requests: board.counted_shared(Shared::Requests).wrapping_add(live_requests),
                started: board.counted(Count::Started),
                restarted: board.counted(Count::Restarted),
                failed: board.counted(Count::Failed),
                backoffs: board.counted(Count::Backoffs),
            },
            died: (0..65)
                .map(|signal| (signal, board.signal_count(signal as usize)))
                .filter(|(_, n)| *n > 0)
                .collect(),
            wait: histogram(board, WAIT),
            service: histogram(board, SERVICE),
            connections,
            workers,
        }
    }

    fn workers(&self, now: u64) -> Vec<Worker> {
        let board = &*self.board;
        let lines = (0..board.used(Fact::ChildLines, board.children)).filter_map(|slot| {
            let state = board.child_state(slot);
            let pid = u32::try_from(board.cell(slot, Cell::Pid)).unwrap_or(0);
            if state == ChildState::Free || pid == 0 {
                return None;
            }
            let served = board.cell(slot, Cell::Finished);
            let gone = served.saturating_add(board.cell(slot, Cell::Returned));
            let active = board.cell(slot, Cell::Taken).saturating_sub(gone);
            let index = board.cell(slot, Cell::Connection).checked_sub(1);
            let tag = index.and_then(|index| usize::try_from(index).ok()).map(|index| board.tag(index));
            let connection = tag
                .filter(|tag| tag.state == ConnectionState::Serving && tag.child as usize == slot)
                .map(|tag| tag.number);
            let age = now.saturating_sub(board.cell(slot, Cell::Started)) / 1_000_000;
            Some(Worker { slot: slot as u32, pid, state: state.name(), connection, active, served, age })
        });
        lines.collect()
    }

    fn connections(&self, now: u64, workers: &[Worker]) -> Vec<Connected> {
        let board = &*self.board;
        let used = board.used(Fact::ConnectionLines, board.connections);
        let lines = (0..used).filter_map(|index| {
            let tag = board.tag(index);
            let serving = match tag.state {
                ConnectionState::Free | ConnectionState::Done => return None,
                state => state == ConnectionState::Serving,
            };
            let line = board.connection_line(index);
            let peer = Peer::from_words([0, 1, 2].map(|i| board.load(line, PEER + i)));
            let worker = workers.iter().find(|worker| serving && worker.slot == tag.child);
            let age = now.saturating_sub(board.load(line, ACCEPTED)) / 1_000_000;
            let pid = worker.map_or(0, |worker| worker.pid);
            Some(Connected { number: tag.number, peer: peer.to_string(), pid, age })
        });
        let mut lines: Vec<_> = lines.collect();
        lines.sort_by_key(|line| line.number);
        lines
    }
}

fn histogram(board: &Board, line: usize) -> Vec<(u64, u64)> {
    (0..BUCKETS).map(|bucket| (1 << bucket, board.load(line, bucket))).collect()
}
