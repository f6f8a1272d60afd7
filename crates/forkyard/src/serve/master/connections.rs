//! The connections that the master knows of, and the two limits: in all, and per address.
//!
//! Bookkeeping only: no system call is made here, and the scoreboard is the only thing touched outside.

use std::collections::{HashMap, VecDeque};
use std::net::IpAddr;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use super::super::handoff::Handed;
use super::super::peer::Peer;
use super::super::scoreboard::{Board, ConnectionState, Count, Tag, Words};

/// Most connections that wait because of the limit per address; beyond it nothing is accepted.
pub(super) const MOST_PARKED: usize = 1024;

/// A connection that was accepted and is not over.
#[derive(Clone, Copy, Debug)]
pub(super) struct Entry {
    pub(super) number: u64,
    pub(super) peer: Peer,
    pub(super) accepted: u64,
    /// When it was handed off, in which generation; `None` while the master holds it.
    pub(super) handed: Option<(u64, u64)>,
    /// The child it was handed to, where the lane is one child's own.
    pub(super) child: Option<u32>,
    /// It was handed off more than once: a child that is stopped may hold a copy of it, unclaimed.
    pub(super) again: bool,
}

/// What a connection counts for in the limit per address: one address, or "not an address".
type Address = Option<IpAddr>;

/// All connections that are not over, and those among them that the master holds back.
pub(super) struct Connections {
    board: Arc<Board>,
    entries: Vec<Option<Entry>>,
    free: Vec<u32>,
    /// Lines of the scoreboard below this one have memory.
    committed: usize,
    next_number: u64,
    /// In service or about to be: all but the parked ones.
    admitted: usize,
    most: usize,
    most_per_address: Option<usize>,
    per_address: HashMap<Address, usize>,
    /// Admitted, and waiting for a child; oldest first.
    pub(super) pending: VecDeque<Handed>,
    /// Handed off, and not known to be claimed: the master's copies, oldest first.
    unclaimed: VecDeque<(u64, Handed)>,
    /// Connections in service that somebody else may hold a copy of, by line.
    copies: HashMap<u32, OwnedFd>,
    parked: HashMap<Address, VecDeque<Handed>>,
    parked_count: usize,
}

/// What became of a new connection.
pub(super) enum Admission {
    /// It may be handed off.
    Admitted(Handed),
    /// Its address has as many as it may have: it waits.
    Parked,
    /// There is no line or no memory for it: it is dropped.
    Refused,
}

impl Connections {
    pub(super) fn new(board: Arc<Board>, most: usize, most_per_address: Option<usize>) -> Connections {
        let lines = Connections::lines(most);
        Connections {
            board,
            entries: vec![None; lines],
            free: (0..u32::try_from(lines).unwrap_or(u32::MAX)).rev().collect(),
            committed: 0,
            next_number: 1,
            admitted: 0,
            most,
            most_per_address,
            per_address: HashMap::new(),
            pending: VecDeque::new(),
            unclaimed: VecDeque::new(),
            copies: HashMap::new(),
            parked: HashMap::new(),
            parked_count: 0,
        }
    }

    /// How many lines of the scoreboard are needed for this limit.
    pub(super) fn lines(most: usize) -> usize {
        most + MOST_PARKED
    }

    /// True while another connection may be accepted.
    pub(super) fn has_room(&self) -> bool {
        self.admitted < self.most && self.parked_count < MOST_PARKED
    }

    /// Connections admitted and not over.
    pub(super) fn admitted(&self) -> usize {
        self.admitted
    }

    /// Connections that wait for another one of their address to end.
    pub(super) fn parked(&self) -> usize {
        self.parked_count
    }

    /// True if this address has as many connections in service as it may have.
    pub(super) fn is_full(&self, address: Address) -> bool {
        self.most_per_address.is_some_and(|most| self.neighbours(address) >= most)
    }

    fn neighbours(&self, address: Address) -> usize {
        self.per_address.get(&address).copied().unwrap_or(0)
    }

    /// Takes in a connection that was just accepted.
    pub(super) fn admit(&mut self, fd: OwnedFd, peer: Peer, accepted: u64) -> Admission {
        let number = self.next_number;
        self.next_number += 1;
        self.board.count(Count::Accepted, 1);
        let Some(handed) = self.enter(fd, number, peer, accepted) else { return Admission::Refused };
        let address = peer.address();
        // A Unix socket has no address that could have too many.
        if address.is_some() && self.is_full(address) {
            self.parked.entry(address).or_default().push_back(handed);
            self.parked_count += 1;
            self.board.count(Count::Deferred, 1);
            return Admission::Parked;
        }
        Admission::Admitted(self.count_in(handed))
    }

    /// Writes a connection down; `None` if there is no line or no memory for it.
    pub(super) fn enter(&mut self, fd: OwnedFd, number: u64, peer: Peer, accepted: u64) -> Option<Handed> {
        let index = self.take_line()?;
        self.board.announce(index as usize, number, accepted, &peer);
        self.entries[index as usize] =
            Some(Entry { number, peer, accepted, handed: None, child: None, again: false });
        Some(Handed { fd, index, number, accepted, peer, neighbours: 0, toward: None })
    }

    /// Counts a connection as admitted.
    pub(super) fn count_in(&mut self, mut handed: Handed) -> Handed {
        let count = self.per_address.entry(handed.peer.address()).or_insert(0);
        *count += 1;
        handed.neighbours = *count as u64;
        self.admitted += 1;
        handed
    }

    fn take_line(&mut self) -> Option<u32> {
        let index = self.free.pop()?;
        if index as usize >= self.committed {
            if self.board.commit_connection(index as usize).is_err() {
                self.free.push(index);
                return None;
            }
            self.committed = index as usize + 1;
        }
        Some(index)
    }

    pub(super) fn get(&self, index: usize) -> Option<&Entry> {
        self.entries.get(index)?.as_ref()
    }

    /// Notes that a connection was handed off, and keeps a copy until it is claimed.
    pub(super) fn hand_off(&mut self, handed: Handed, now: u64, generation: u64, child: Option<u32>) {
        if let Some(Some(entry)) = self.entries.get_mut(handed.index as usize) {
            entry.handed = Some((now, generation));
            entry.child = child;
            self.unclaimed.push_back((now, handed));
        }
    }

    /// Keeps a copy of a connection that a child had claimed before it was handed off again.
    pub(super) fn keep_copy(&mut self, handed: Handed) {
        self.copies.insert(handed.index, handed.fd);
    }

    /// Notes that a child had claimed a connection before it was handed off again.
    pub(super) fn was_claimed(&mut self, index: usize, now: u64, generation: u64, child: Option<u32>) {
        if let Some(Some(entry)) = self.entries.get_mut(index) {
            entry.handed = Some((now, generation));
            entry.child = child;
        }
    }

    /// True if a connection that was handed off may still be unclaimed.
    pub(super) fn has_unclaimed(&self) -> bool {
        !self.unclaimed.is_empty()
    }

    /// The children whose own lanes hold what is not claimed, one for each.
    pub(super) fn unclaimed_by(&self) -> impl Iterator<Item = u32> {
        self.unclaimed.iter().filter_map(|(_, handed)| self.get(handed.index as usize)?.child)
    }

    /// Since when the oldest one has been waiting for its claim.
    pub(super) fn unclaimed_since(&self) -> Option<u64> {
        self.unclaimed.front().map(|(since, _)| *since)
    }

    /// Lets go of copies that children have claimed. What was handed off more than once is kept, to be hung up when it is
    /// over: who else has a copy would keep the client waiting for the end.
    pub(super) fn drop_claimed(&mut self) {
        let (board, entries, copies) = (&self.board, &mut self.entries, &mut self.copies);
        let claimed = |handed: &Handed| {
            let tag = board.tag(handed.index as usize);
            tag.state != ConnectionState::Handed || tag.number != handed.number
        };
        if !self.unclaimed.iter().any(|(_, handed)| claimed(handed)) {
            return;
        }
        for (since, handed) in std::mem::take(&mut self.unclaimed) {
            if !claimed(&handed) {
                self.unclaimed.push_back((since, handed));
                continue;
            }
            let entry = entries.get_mut(handed.index as usize).and_then(Option::as_mut);
            let Some(entry) = entry.filter(|entry| entry.number == handed.number) else { continue };
            // Of those it was handed to, perhaps not the last one.
            entry.child = entry.child.map(|_| board.tag(handed.index as usize).child);
            if entry.again {
                copies.insert(handed.index, handed.fd);
            }
        }
    }

    /// True if a connection is to be hung up when it is over.
    pub(super) fn has_copies(&self) -> bool {
        !self.copies.is_empty()
    }

    /// Makes unclaimed connections pending again: all, or those that were handed to this child's own lane. Gives
    /// the generation of each.
    pub(super) fn take_back(&mut self, child: Option<u32>) -> Vec<u64> {
        self.drop_claimed();
        let mut generations = Vec::new();
        let mut kept = VecDeque::new();
        for (since, handed) in std::mem::take(&mut self.unclaimed).into_iter().rev() {
            let entry = self.entries.get_mut(handed.index as usize).and_then(Option::as_mut);
            let Some(entry) = entry.filter(|entry| entry.number == handed.number) else { continue };
            if entry.child != child {
                kept.push_front((since, handed));
                continue;
            }
            generations.extend(entry.handed.take().map(|(_, generation)| generation));
            entry.child = None;
            entry.again = true;
            self.pending.push_front(handed);
        }
        self.unclaimed = kept;
        generations
    }

    /// The children with a lane of their own that have not claimed what they were handed before then.
    pub(super) fn late(&self, before: u64) -> Vec<u32> {
        let late = self.unclaimed.iter().filter(|(since, _)| *since <= before);
        let mut children: Vec<u32> =
            late.filter_map(|(_, handed)| self.get(handed.index as usize)?.child).collect();
        children.sort_unstable();
        children.dedup();
        children
    }

    /// Gives what is not claimed as long again.
    pub(super) fn wait_longer(&mut self, now: u64) {
        self.unclaimed.iter_mut().for_each(|(since, _)| *since = now);
    }

    /// A worker gives a connection back: it is the master's again, as before it was handed off. `None` if it was not that worker's.
    pub(super) fn give_back(
        &mut self,
        fd: OwnedFd,
        index: u32,
        number: u64,
        from: u32,
        toward: Option<u32>,
    ) -> Option<Handed> {
        self.drop_claimed();
        let entry = self.entries.get_mut(index as usize).and_then(Option::as_mut);
        let entry = entry.filter(|entry| entry.number == number)?;
        // The claim counts: it may have been sent to somebody else as well, or be pending for that.
        let serving = Tag { number, state: ConnectionState::Serving, child: from };
        let handed = Tag { state: ConnectionState::Handed, child: 0, ..serving };
        if !self.board.change_tag(index as usize, serving, handed) {
            return None;
        }
        entry.handed = None;
        entry.child = None;
        let Entry { peer, accepted, .. } = *entry;
        let neighbours = self.neighbours(peer.address()) as u64;
        // Whoever gave it back without having been asked has nobody in mind.
        let toward = toward.or(Some(u32::MAX));
        Some(Handed { fd, index, number, accepted, peer, neighbours, toward })
    }

    /// A connection is over. Its line is free, and one that was parked for it may be admitted.
    pub(super) fn end(&mut self, index: usize) -> Option<Entry> {
        // It may have been claimed and finished since anybody looked: then its copy is among those still.
        self.drop_claimed();
        let entry = self.entries.get_mut(index)?.take()?;
        if let Some(copy) = self.copies.remove(&(index as u32)) {
            // ENOTCONN: the client is gone already.
            let _ = forkyard_sys::net::hang_up(copy);
        }
        self.board.set_tag(index, Tag { number: entry.number, state: ConnectionState::Free, child: 0 });
        self.free.push(index as u32);
        self.admitted = self.admitted.saturating_sub(1);
        let address = entry.peer.address();
        if let Some(count) = self.per_address.get_mut(&address) {
            *count = count.saturating_sub(1);
            if *count == 0 {
                self.per_address.remove(&address);
            }
        }
        self.admit_parked(address);
        Some(entry)
    }

    fn admit_parked(&mut self, address: Address) {
        while !self.is_full(address) && self.admitted < self.most {
            let Some(queue) = self.parked.get_mut(&address) else { return };
            let next = queue.pop_front();
            if queue.is_empty() {
                self.parked.remove(&address);
            }
            let Some(handed) = next else { return };
            self.parked_count -= 1;
            let handed = self.count_in(handed);
            self.pending.push_back(handed);
        }
    }

    /// Admits what was parked and now fits: the limit in all may have kept it out.
    pub(super) fn admit_all_parked(&mut self) {
        if self.parked_count == 0 || self.admitted >= self.most {
            return;
        }
        let addresses: Vec<Address> = self.parked.keys().copied().collect();
        for address in addresses {
            self.admit_parked(address);
        }
    }

    /// All that are handed off, by line.
    pub(super) fn handed(&self) -> impl Iterator<Item = (usize, &Entry)> {
        let entries = self.entries.iter().enumerate();
        entries
            .filter_map(|(index, entry)| Some((index, entry.as_ref()?)))
            .filter(|(_, e)| e.handed.is_some())
    }

    /// Lets go of everything that the master still holds; those clients see their connection close.
    pub(super) fn drop_held(&mut self) {
        let parked = std::mem::take(&mut self.parked);
        for held in parked.into_values().flatten() {
            // Counted in first, so that `end` can count it out.
            self.parked_count -= 1;
            let held = self.count_in(held);
            self.end(held.index as usize);
        }
        while let Some(held) = self.pending.pop_front() {
            if self.get(held.index as usize).is_some_and(|entry| entry.number == held.number) {
                self.end(held.index as usize);
            }
        }
        self.unclaimed.clear();
    }

    /// Takes back what is not claimed, for good: who still has a packet of it will fail to claim it.
    pub(super) fn reclaim(&mut self) {
        self.drop_claimed();
        let unclaimed = std::mem::take(&mut self.unclaimed).into_iter().map(|(_, handed)| handed);
        // Of what is pending again, somebody may have a packet too.
        let all: Vec<Handed> = unclaimed.chain(std::mem::take(&mut self.pending)).collect();
        for handed in all {
            let index = handed.index as usize;
            let tag = self.board.tag(index);
            let free = Tag { state: ConnectionState::Free, ..tag };
            let Some(Some(entry)) = self.entries.get_mut(index) else { continue };
            if tag.state == ConnectionState::Handed && self.board.change_tag(index, tag, free) {
                entry.handed = None;
                entry.child = None;
                self.pending.push_back(handed);
            } else if entry.handed.is_none() && entry.number == handed.number {
                entry.handed = Some((handed.accepted, 0));
                entry.child = Some(self.board.tag(index).child);
            }
        }
    }

    /// Makes what the master holds claimable again, after [`reclaim`](Connections::reclaim).
    pub(super) fn announce_held(&mut self) {
        for held in &self.pending {
            let tag = Tag { number: held.number, state: ConnectionState::Handed, child: 0 };
            self.board.set_tag(held.index as usize, tag);
        }
    }

    /// Everything that the master still holds, oldest first.
    pub(super) fn held(&self) -> Vec<&Handed> {
        let mut held: Vec<&Handed> = self.pending.iter().chain(self.parked.values().flatten()).collect();
        held.sort_by_key(|held| held.number);
        held
    }

    /// The number that the next connection will have.
    pub(super) fn next_number(&self) -> u64 {
        self.next_number
    }

    /// Goes on counting where the image before an upgrade stopped.
    pub(super) fn count_from(&mut self, number: u64) {
        self.next_number = self.next_number.max(number);
    }

    /// Enters a connection that a child from before an upgrade serves.
    pub(super) fn adopt(
        &mut self,
        number: u64,
        peer: Peer,
        accepted: u64,
        handed: u64,
        slot: u32,
    ) -> Option<usize> {
        let index = self.take_line()? as usize;
        self.board.announce(index, number, accepted, &peer);
        self.board.set_tag(index, Tag { number, state: ConnectionState::Serving, child: slot });
        self.entries[index] = Some(Entry {
            number,
            peer,
            accepted,
            handed: Some((handed, 0)),
            child: Some(slot),
            again: false,
        });
        *self.per_address.entry(peer.address()).or_insert(0) += 1;
        self.admitted += 1;
        Some(index)
    }

    /// Writes the gauges that others may want to see.
    pub(super) fn publish(&self) {
        self.board.set_count(Count::Pending, self.pending.len() as u64);
        self.board.set_count(Count::Parked, self.parked_count as u64);
    }
}

#[cfg(test)]
mod tests {
    use std::os::fd::OwnedFd;
    use std::sync::Arc;

    use super::{Admission, Connections};
    use crate::serve::peer::Peer;
    use crate::serve::scoreboard::Board;

    fn connections(most: usize, per_address: Option<usize>) -> Connections {
        let board = Arc::new(Board::create(4, Connections::lines(most)).unwrap());
        Connections::new(board, most, per_address)
    }

    fn fd() -> OwnedFd {
        forkyard_sys::memfd::holding("test", b"x").unwrap()
    }

    fn peer(text: &str) -> Peer {
        Peer::Tcp(text.parse().unwrap())
    }

    fn admit(connections: &mut Connections, from: &str) -> Option<u32> {
        match connections.admit(fd(), peer(from), 0) {
            Admission::Admitted(handed) => Some(handed.index),
            Admission::Parked => None,
            Admission::Refused => panic!("refused"),
        }
    }

    #[test]
    fn the_second_of_an_address_waits_until_the_first_has_ended() {
        let mut all = connections(10, Some(1));
        let first = admit(&mut all, "10.0.0.1:1").unwrap();
        assert!(admit(&mut all, "10.0.0.1:2").is_none());
        assert!(admit(&mut all, "10.0.0.1:3").is_none());
        assert!(admit(&mut all, "10.0.0.2:1").is_some());
        assert_eq!((all.admitted(), all.parked()), (2, 2));
        all.end(first as usize).unwrap();
        assert_eq!((all.admitted(), all.parked(), all.pending.len()), (2, 1, 1));
        assert_eq!(all.pending[0].number, 2, "the oldest first");
    }

    #[test]
    fn an_ipv4_address_is_the_same_one_in_its_ipv6_form() {
        let mut all = connections(10, Some(1));
        admit(&mut all, "10.0.0.1:1").unwrap();
        assert!(admit(&mut all, "[::ffff:10.0.0.1]:2").is_none());
    }

    #[test]
    fn room_ends_at_the_limit_and_comes_back() {
        let mut all = connections(2, None);
        let first = admit(&mut all, "10.0.0.1:1").unwrap();
        admit(&mut all, "10.0.0.1:2").unwrap();
        assert!(!all.has_room());
        all.end(first as usize).unwrap();
        assert!(all.has_room());
        assert!(all.end(first as usize).is_none(), "nothing ends twice");
        assert_eq!(all.admitted(), 1);
    }

    #[test]
    fn the_limit_in_all_keeps_the_parked_out_until_there_is_room() {
        let mut all = connections(1, Some(1));
        let first = admit(&mut all, "10.0.0.1:1").unwrap();
        assert!(admit(&mut all, "10.0.0.1:2").is_none());
        all.end(first as usize).unwrap();
        assert_eq!(all.pending.len(), 1);
        all.drop_held();
        assert_eq!((all.admitted(), all.parked(), all.pending.len()), (0, 0, 0));
    }
}
