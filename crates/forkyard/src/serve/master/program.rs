//! Programs as handlers: the master executes one for each connection.

use std::time::Instant;

use forkyard_sys::exec::{Launch, SpawnError, Step};
use forkyard_sys::time::monotonic_ns;

use super::super::child::Work;
use super::super::handoff::Handed;
use super::super::scoreboard::{ChildState, Count, Words};
use super::super::ucspi::Program;
use super::children::Child;
use super::generation::{Generation, is_out_of_descriptors};
use super::reap::STARTS_AT_ONCE;
use super::{Master, limit};
use crate::error::{Error, Result};

impl Master {
    /// Looks the program up, if the handler is one, for the current generation.
    pub(super) fn prepare_program(&mut self) -> Result<()> {
        let Work::Program(args) = &self.settings.work else { return Ok(()) };
        let Some(generation) = self.generations.last_mut() else { return Ok(()) };
        self.program = Some(Program::prepare(args, &self.config.rights, &generation.token()?));
        Ok(())
    }

    /// Executes the program on a connection. Gives the connection back if that has to wait.
    pub(super) fn execute(&mut self, handed: Handed) -> Option<Handed> {
        if self.starts.pending(Instant::now()).is_some() {
            return Some(handed);
        }
        let slot = match self.prepare_slot() {
            Ok(slot) => slot,
            Err(error) => {
                self.back_off(error);
                return Some(handed);
            }
        };
        let Some(program) = &self.program else { return Some(handed) };
        if let Some(idle) = self.config.idle_timeout {
            // Refused only to a socket that is dead already.
            let _ = forkyard_sys::net::set_timeout(&handed.fd, idle);
        }
        let index = handed.index as usize;
        let mut started = program.start(&handed);
        if started.as_ref().is_err_and(is_out_of_descriptors)
            && let Some(generation) = self.generations.last_mut()
        {
            generation.use_room();
            started = program.start(&handed);
        }
        if started.is_err() {
            self.forget_slot(slot);
        }
        match started {
            Ok((spawned, launch)) => {
                self.settle_launches();
                self.launches.extend(launch.is_some().then_some(slot));
                let id = self.generations.last().map_or(0, |generation| generation.id);
                let now = monotonic_ns();
                self.board.claim(index, handed.number, slot, handed.accepted, monotonic_ns);
                self.board.set_child_state(slot as usize, ChildState::Busy);
                self.connections.was_claimed(index, now, id, None);
                self.limit_time(index, handed.number, now);
                if let Err(error) = self.watch_child(slot, Child::executed(spawned, launch, id)) {
                    self.back_off(error);
                }
                None
            }
            Err(SpawnError { step: Step::Clone, errno }) if limit::is_met(errno) => {
                self.back_off(Error::os("execute the program", errno));
                Some(handed)
            }
            Err(error) => {
                self.complain(&error);
                self.board.count(Count::Failed, 1);
                self.connection_over(index);
                None
            }
        }
    }

    /// True if a connection for which no child is there gets one of its own at once.
    pub(super) fn executes_at_need(&self) -> bool {
        self.generations.last().is_some_and(Generation::executes)
    }

    /// Starts a child with this connection, which is claimed for it first. Gives the connection back if that has to wait.
    pub(super) fn execute_small(&mut self, handed: Handed) -> Option<Handed> {
        if self.starts.pending(Instant::now()).is_some() || !self.may_start() {
            return Some(handed);
        }
        let slot = match self.prepare_slot() {
            Ok(slot) => slot,
            Err(error) => {
                self.back_off(error);
                return Some(handed);
            }
        };
        let (index, number) = (handed.index as usize, handed.number);
        self.board.set_child_state(slot as usize, ChildState::Busy);
        // False: somebody who was stopped with a copy of it has just taken it. That is seen when it is looked at again.
        let claimed = self.board.claim(index, number, slot, handed.accepted, monotonic_ns);
        let started = match self.generations.last_mut() {
            Some(generation) if claimed => generation.start_with(slot, &handed),
            _ => None,
        };
        match started {
            Some(Ok(child)) => {
                let now = monotonic_ns();
                self.connections.was_claimed(index, now, child.generation, None);
                self.limit_time(index, number, now);
                if self.connections.get(index).is_some_and(|entry| entry.again) {
                    self.connections.keep_copy(handed);
                }
                self.settle_launches();
                self.launches.push_back(slot);
                if let Err(error) = self.watch_child(slot, child) {
                    self.back_off(error);
                }
                None
            }
            refused => {
                if claimed {
                    self.board.unclaim(index, number);
                }
                self.forget_slot(slot);
                if let Some(Err(failure)) = refused {
                    self.back_off(Error::os("start a child of the server", failure.errno));
                }
                Some(handed)
            }
        }
    }

    fn complain(&self, error: &SpawnError) {
        if let Some(program) = &self.program {
            program.complain(error);
            program.doubt();
        }
    }

    /// Looks how the executions came out that are over. One that is not, because its process is stopped, keeps no other waiting.
    pub(super) fn settle_launches(&mut self) {
        const LOOKED_AT: usize = 2 * STARTS_AT_ONCE;
        for _ in 0..self.launches.len().min(LOOKED_AT) {
            let Some(slot) = self.launches.pop_front() else { return };
            let child = self.children.get(slot);
            if child.is_some_and(|child| child.launch.as_ref().is_some_and(|launch| !launch.is_over())) {
                self.launches.push_back(slot);
            } else {
                self.settle_launch(slot);
            }
        }
    }

    /// Looks how this child's execution came out, which is over.
    pub(super) fn settle_launch(&mut self, slot: u32) {
        let Some(child) = self.children.get_mut(slot) else { return };
        let Some(failure) = child.launch.take().and_then(Launch::failure) else { return };
        child.refused = true;
        self.complain(&failure);
    }
}
