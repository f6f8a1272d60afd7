//! The requester is killed while something is being started: of its daemonic family nothing remains, and what is not
//! daemonic lives on.
//!
//! The whole family is seized from its beginning. One of its members, the actor, goes from one boundary of a system
//! call to the next; at one of them the victim is killed.

use std::collections::HashMap;
use std::ffi::c_long;
use std::time::{Duration, Instant};

use crate::common;
use crate::report::Operation;
use crate::requester::{DEADLINE, Requester, Role, SPARES, nobody_is_left, only_one_is_left};
use crate::trace::{self, Boundary, Stop, Tracee, Until, any_news};

/// A member of the family.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Member {
    Requester,
    Keeper,
    Zygote,
    /// What the zygote makes, in that order; a start gets the first that has had no task.
    Child(usize),
    Other,
}

/// The first start of a process: everything is made.
pub(crate) fn first_start() -> bool {
    let actors = [(Member::Requester, 1), (Member::Keeper, 1), (Member::Zygote, 3), (Member::Child(0), 1)];
    actors.map(|(actor, stride)| kill_along(actor, Member::Requester, 0, stride)).iter().sum::<usize>() == 0
}

/// Starts before a later one. From the second on there is a spare for the next, from the third on two.
const EARLIER: usize = 3;

/// A later one: there are a zygote, spares, and a child that is not daemonic.
pub(crate) fn later_start() -> bool {
    let (child, next) = (Member::Child(EARLIER), Member::Child(EARLIER + SPARES));
    let actors = [Member::Requester, Member::Keeper, Member::Zygote, child, next];
    actors.map(|actor| kill_along(actor, Member::Requester, EARLIER, 1)).iter().sum::<usize>() == 0
}

/// The zygote is killed while it is made: the start works all the same.
pub(crate) fn zygote_in_the_making() -> bool {
    kill_along(Member::Zygote, Member::Zygote, 0, 3) == 0
}

/// The requester is killed when a start has returned, wherever the child stands then: a child that is not daemonic
/// calls its task all the same.
pub(crate) fn started_and_not_daemonic() -> bool {
    [0, EARLIER].map(outlive_along).iter().sum::<usize>() == 0
}

fn outlive_along(earlier: usize) -> usize {
    let which = if earlier == 0 { "first" } else { "later" };
    let actor = Member::Child(earlier);
    let mut operation =
        Operation::new(format!("Requester killed after a {which} start, its child not daemonic"));
    for at in 1.. {
        let mut met = false;
        operation.point(&format!("when it stands at call boundary {at}"), || {
            let mut family = Family::begin(earlier)?;
            let child = family.start_and_hold(actor, at)?;
            met = child.is_some();
            trace::kill(family.requester.pid);
            family.survivor.iter().for_each(|pid| trace::kill(*pid));
            family.pump(|family| common::is_gone(family.requester.pid))?;
            family.release(child);
            let result = match child {
                Some(child) => family
                    .pump(|family| family.requester.has_news_of_runs())
                    .and_then(|()| only_one_is_left(child)),
                None => Ok(()),
            };
            if result.is_err() || child.is_none() {
                family.requester.clear_away();
            }
            result
        });
        if !met {
            break;
        }
    }
    operation.finish("each call boundary on the way to the task")
}

/// Kills the victim at each boundary that the actor comes to in a start, after so many earlier starts. How many
/// points went wrong.
fn kill_along(actor: Member, victim: Member, earlier: usize, stride: usize) -> usize {
    let which = if earlier == 0 { "first" } else { "later" };
    let mut operation =
        Operation::new(format!("{victim:?} killed in a {which} start, where {actor:?} stands"));
    let mut slowest = Duration::ZERO;
    for at in (1..).step_by(stride) {
        let mut met = false;
        operation.point(&format!("at call boundary {at}"), || {
            let mut family = Family::begin(earlier)?;
            met = family.start_until(actor, at, victim)?;
            let since = Instant::now();
            let result = match (victim, family.survivor) {
                (Member::Requester, None) if met => nobody_is_left(),
                (Member::Requester, Some(survivor)) if met => only_one_is_left(survivor),
                _ => family.goes_on(),
            };
            slowest = slowest.max(since.elapsed());
            if result.is_err() {
                family.requester.clear_away();
            }
            result
        });
        if !met {
            break;
        }
    }
    operation.finish(&format!("call boundaries, stride {stride}; all over after {slowest:.0?} at most"))
}

/// A requester, seized with all that it makes.
struct Family {
    requester: Requester,
    members: HashMap<i32, Member>,
    /// Stopped before it was known who made them.
    early: Vec<i32>,
    children: usize,
    /// Not daemonic.
    survivor: Option<i32>,
    number: u64,
}

impl Family {
    fn begin(earlier: usize) -> Result<Family, String> {
        let requester = Requester::begin(Role::Requester);
        Tracee::seize(requester.pid, true).map_err(|error| error.to_string())?;
        let members = HashMap::from([(requester.pid, Member::Requester)]);
        let mut family =
            Family { requester, members, early: Vec::new(), children: 0, survivor: None, number: 0 };
        for start in 0..earlier {
            if start == 0 {
                let number = family.requester.next_number();
                family.requester.tell(&format!("park plain free {number}"));
                family.pump(|family| family.requester.has_answered())?;
                family.survivor = Some(family.requester.answer()?.parse().map_err(|_| "no pid")?);
                family.pump(|family| family.requester.has_news_of_runs())?;
                family.requester.runs();
                continue;
            }
            family.tell_start();
            family.pump(|family| family.requester.has_answered())?;
            family.expect_ok()?;
        }
        if earlier > 0 {
            let known = Vec::from_iter(family.survivor);
            family.pump(|family| {
                family.children == earlier + SPARES && family.requester.quiet_server(&known).is_some()
            })?;
        }
        Ok(family)
    }

    fn tell_start(&mut self) {
        self.number = self.requester.next_number();
        self.requester.tell(&format!("run small daemon {}", self.number));
    }

    fn expect_ok(&mut self) -> Result<(), String> {
        let (answer, runs) = (self.requester.answer()?, self.requester.runs());
        match answer.starts_with("ok ") && runs == [self.number] {
            true => Ok(()),
            false => Err(format!("start {} told {answer:?} and ran {runs:?}", self.number)),
        }
    }

    fn find(&self, member: Member) -> Option<Tracee> {
        self.members.iter().find(|(_, known)| **known == member).map(|(pid, _)| Tracee(*pid))
    }

    /// Has a process started, and kills the victim when the actor comes to its boundary of that number. False if it
    /// does not come that far; the start is over then.
    fn start_until(&mut self, actor: Member, boundary: usize, victim: Member) -> Result<bool, String> {
        let known = self.find(actor);
        if let Some(tracee) = known
            && tracee.interrupt() == Stop::Interrupted
        {
            tracee.resume(Until::CallBoundary);
        }
        self.tell_start();
        let mut steps = Steps { actor, was_there: known.is_some(), boundaries: 0, waits: false };
        let end = Instant::now() + DEADLINE;
        while !(self.requester.has_answered() && steps.are_over()) {
            let Some((tracee, member, news)) = self.next_news(end, Some(actor))? else { continue };
            if member != actor {
                tracee.ignore(news);
                continue;
            }
            steps.note(tracee, news);
            if steps.boundaries == boundary {
                // The other threads of a requester go with it.
                trace::kill(self.find(victim).ok_or("no victim")?.0);
                self.release(Some(tracee.0));
                return Ok(true);
            }
            tracee.pass(news, Until::CallBoundary);
        }
        self.release(None);
        Ok(false)
    }

    /// Has a process started that is not daemonic, and holds it at its boundary of that number. `None` if its task runs
    /// before it comes there.
    fn start_and_hold(&mut self, actor: Member, boundary: usize) -> Result<Option<i32>, String> {
        if let Some(tracee) = self.find(actor)
            && tracee.interrupt() == Stop::Interrupted
        {
            tracee.resume(Until::CallBoundary);
        }
        let number = self.requester.next_number();
        self.requester.tell(&format!("park plain free {number}"));
        let (mut boundaries, end) = (0, Instant::now() + DEADLINE);
        while !self.requester.has_news_of_runs() && (boundaries < boundary || !self.requester.has_answered())
        {
            match self.next_news(end, Some(actor))? {
                Some((tracee, member, news)) if member == actor => {
                    boundaries += usize::from(news == Stop::CallBoundary);
                    if boundaries < boundary {
                        tracee.pass(news, Until::CallBoundary);
                    }
                }
                Some((tracee, _, news)) => tracee.ignore(news),
                None => {}
            }
        }
        let runs = self.requester.has_news_of_runs();
        Ok(self.find(actor).filter(|_| !runs).map(|child| child.0))
    }

    /// Lets those go who are known to stand; others may have a signal waiting for them.
    fn release(&mut self, standing: Option<i32>) {
        for pid in self.early.drain(..).chain(standing) {
            Tracee(pid).resume(Until::Event);
        }
    }

    /// Lets everybody go on until the condition holds.
    fn pump(&mut self, condition: impl Fn(&Family) -> bool) -> Result<(), String> {
        let end = Instant::now() + DEADLINE;
        while !condition(self) {
            if let Some((tracee, _, news)) = self.next_news(end, None)? {
                tracee.ignore(news);
            }
        }
        Ok(())
    }

    /// A member that stands, and why. `None`: nobody, or a new one that nobody knows yet.
    fn next_news(
        &mut self,
        end: Instant,
        actor: Option<Member>,
    ) -> Result<Option<(Tracee, Member, Stop)>, String> {
        let Ok(Some((tracee, news))) = any_news() else {
            std::thread::yield_now();
            return if Instant::now() > end { Err("no answer and no news".to_owned()) } else { Ok(None) };
        };
        if let Stop::Made(pid) = news {
            self.made(tracee, pid, actor);
        }
        let Some(&member) = self.members.get(&tracee.0) else {
            self.early.push(tracee.0);
            return Ok(None);
        };
        Ok(Some((tracee, member, news)))
    }

    /// Notes who was made by whom.
    fn made(&mut self, by: Tracee, pid: i32, actor: Option<Member>) {
        let member = match self.members.get(&by.0) {
            Some(Member::Requester) if self.find(Member::Keeper).is_none() => Member::Keeper,
            Some(Member::Keeper) if self.find(Member::Zygote).is_none() => Member::Zygote,
            Some(Member::Zygote) => {
                self.children += 1;
                Member::Child(self.children - 1)
            }
            _ => Member::Other,
        };
        self.members.insert(pid, member);
        if let Some(at) = self.early.iter().position(|early| *early == pid) {
            self.early.remove(at);
            let until = if actor == Some(member) { Until::CallBoundary } else { Until::Event };
            Tracee(pid).resume(until);
        }
    }

    /// The start works although somebody was killed; then the family ends in an orderly way.
    fn goes_on(&mut self) -> Result<(), String> {
        self.pump(|family| family.requester.has_answered())?;
        self.expect_ok()?;
        self.survivor.iter().for_each(|pid| trace::kill(*pid));
        self.release(None);
        self.requester.end()
    }
}

/// What the actor has done in the start.
struct Steps {
    actor: Member,
    /// It was waiting before the start; else the start made it.
    was_there: bool,
    boundaries: usize,
    /// It has come to where it waits for something to do, or has ended.
    waits: bool,
}

impl Steps {
    fn note(&mut self, tracee: Tracee, news: Stop) {
        if news == Stop::CallBoundary {
            self.boundaries += 1;
            self.waits = tracee.boundary().is_some_and(|at| self.is_waiting(at));
        }
        self.waits |= news == Stop::Ended;
    }

    fn is_waiting(&self, at: Boundary) -> bool {
        let waiting: &[c_long] = match self.actor {
            Member::Keeper => &[libc::SYS_epoll_pwait],
            Member::Zygote => &[libc::SYS_ppoll],
            Member::Child(_) => &[libc::SYS_futex],
            Member::Requester | Member::Other => &[],
        };
        waiting.iter().any(|call| at == Boundary::Entry(*call))
    }

    /// True if nothing more is to be expected of it, once the requester has answered.
    fn are_over(&self) -> bool {
        match self.actor {
            Member::Requester => true,
            // It has entered its waiting again, left it for the request, and come back.
            Member::Zygote => self.waits && (!self.was_there || self.boundaries > 2),
            _ => self.waits,
        }
    }
}
