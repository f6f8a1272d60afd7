//! One operation, its victim killed at every point.

use std::collections::HashMap;
use std::time::Instant;

use crate::marker;
use crate::points::{Anchor, Point, Walk, Watch, all_points};
use crate::report::Operation;
use crate::stage::{Census, DEADLINE, MEMBERS, Stage, Told, Who, is_sleep, sleeps};
use crate::trace::{Boundary, Next, Stop, Tracee, Until};

/// About how many instructions are points that nothing else makes one.
const POINTS: usize = 40;

/// After so many failures an operation is given up.
const ENOUGH: usize = 5;

/// An operation, and what is to hold when its user is killed in it.
#[derive(Clone, Copy)]
pub(crate) struct Case {
    pub(crate) name: &'static str,
    /// What the others do before the victim begins.
    pub(crate) before: fn(&mut Stage) -> Told,
    /// Who is killed.
    pub(crate) who: Who,
    /// What the victim does: before, in and after the operation.
    pub(crate) victim: &'static str,
    /// What the others do when the victim stands at the beginning of its operation.
    pub(crate) waiting: fn(&mut Stage) -> Told,
    /// What they do so that nobody sleeps for ever: when the victim sleeps, or when it is dead.
    pub(crate) relieve: fn(&mut Stage) -> Told,
    /// The victim's sleep ends by itself.
    pub(crate) sleeps_for_a_time: bool,
    /// The victim is dead: those who wait go on, newcomers come, and all is as it was.
    pub(crate) after: fn(&mut Stage) -> Told,
    /// The victim is not killed there, but stopped, and goes on when the others have done this.
    pub(crate) stopped: Option<fn(&mut Stage) -> Told>,
    /// At most so many points, unless all are asked for.
    pub(crate) most: Option<usize>,
    /// After so many points a new family is needed: each victim uses up something that cannot be used again.
    pub(crate) uses_up: Option<usize>,
    /// It has to fail.
    pub(crate) control: bool,
}

impl Case {
    pub(crate) const fn new(name: &'static str, victim: &'static str, after: fn(&mut Stage) -> Told) -> Case {
        let nothing: fn(&mut Stage) -> Told = |_| Ok(());
        Case {
            name,
            before: nothing,
            who: Who::Actor,
            victim,
            waiting: nothing,
            relieve: nothing,
            sleeps_for_a_time: false,
            after,
            stopped: None,
            most: None,
            uses_up: None,
            control: false,
        }
    }
}

/// Kills the victim at each point; how often something was wrong.
pub(crate) fn sweep(case: &Case) -> usize {
    let mut operation = if case.control { Operation::control(case.name) } else { Operation::new(case.name) };
    let mut run =
        Run { case, stage: Stage::begin(), walk: Walk::default(), relieved: false, start: Census::default() };
    let mut walked = operation.point("not at all", || run.walk());
    // Nothing that was taken for the first time is a leak.
    walked &= operation.point("at its end", || {
        run.kill_at(Point { steps: run.walk.steps, asleep: false })?;
        run.start = run.stage.census()?;
        Ok(())
    });
    if !walked {
        run.stage.clear_away();
        return operation.finish("it does not work undisturbed").max(1);
    }
    let (points, stride) = run.walk.points(POINTS);
    let most = case.most.filter(|_| !all_points());
    let thinned = most.map_or(1, |most| points.len().div_ceil(most));
    let points = points.into_iter().step_by(thinned);
    let (mut late, mut slowest) = (0, std::time::Duration::ZERO);
    let mut failures = 0;
    for (index, point) in points.enumerate() {
        if index > 0 && case.uses_up.is_some_and(|uses_up| index.is_multiple_of(uses_up)) {
            (late, slowest) = (late + run.stage.late, slowest.max(run.stage.slowest));
            std::mem::replace(&mut run.stage, Stage::begin()).end();
            if !operation.point("not at all, in a new family", || run.warm()) {
                break;
            }
        }
        if operation.point(&point.to_string(), || run.kill_and_count(point)) {
            continue;
        }
        failures += 1;
        (late, slowest) = (late + run.stage.late, slowest.max(run.stage.slowest));
        if failures == ENOUGH {
            break;
        }
        let stage = std::mem::replace(&mut run.stage, Stage::begin());
        stage.clear_away();
        if !operation.point("not at all, after a failure", || run.warm()) {
            break;
        }
    }
    (late, slowest) = (late + run.stage.late, slowest.max(run.stage.slowest));
    if failures == ENOUGH {
        run.stage.clear_away()
    } else {
        run.stage.end()
    }
    let details = run.walk.details(stride);
    operation.finish(&format!("{details}; longest wait {:.0} ms, {late} late", slowest.as_secs_f64() * 1e3))
}

struct Run<'a> {
    case: &'a Case,
    stage: Stage,
    walk: Walk,
    relieved: bool,
    /// What was in use at the start.
    start: Census,
}

/// Where a victim stands after a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stands {
    Stepped,
    Asleep,
    AtEnd,
}

impl Run<'_> {
    /// In a new family, which has its code elsewhere.
    fn warm(&mut self) -> Told {
        self.walk()?;
        self.start = self.stage.census()?;
        Ok(())
    }

    fn kill_and_count(&mut self, point: Point) -> Told {
        self.kill_at(point)?;
        self.stage.no_more_than(self.start)
    }

    fn kill_at(&mut self, point: Point) -> Told {
        let victim = self.begin()?;
        let reached = self.reach(victim, point).and_then(|stands| {
            self.others()?;
            if stands && self.case.stopped.is_some() { self.run(victim).map(drop) } else { Ok(()) }
        });
        victim.kill();
        reached?;
        self.after()
    }

    /// What the others do while the victim stands.
    fn others(&mut self) -> Told {
        self.case.stopped.map_or(Ok(()), |others| others(&mut self.stage))
    }

    /// Brings a victim to the point; false if its operation's end came first.
    fn reach(&mut self, victim: Tracee, point: Point) -> Told<bool> {
        let mut steps = 0;
        if let (_, Some(anchor)) = self.walk.way(point.steps) {
            if !self.jump(victim, anchor)? {
                return Ok(false);
            }
            steps = anchor.at;
        }
        while steps < point.steps || point.asleep {
            match step(victim)? {
                Stands::Stepped => steps += 1,
                Stands::AtEnd => return Ok(false),
                Stands::Asleep if steps == point.steps => return Ok(true),
                Stands::Asleep => {
                    self.wake(victim)?;
                    steps += 1;
                }
            }
        }
        Ok(true)
    }

    /// Brings a victim to an anchor; false if its operation's end came first.
    fn jump(&mut self, victim: Tracee, anchor: Anchor) -> Told<bool> {
        let mut left = anchor.times;
        loop {
            let next = victim.next().ok_or_else(ended)?;
            if next.address == anchor.address {
                left -= 1;
                if left == 0 {
                    return Ok(true);
                }
                match step_from(victim, next)? {
                    Stands::Stepped => {}
                    Stands::Asleep => self.wake(victim)?,
                    Stands::AtEnd => return Ok(false),
                }
                continue;
            }
            victim.stop_before(Some(anchor.address));
            let ran = self.run(victim);
            victim.stop_before(None);
            if !ran? {
                return Ok(false);
            }
        }
    }

    /// Lets a victim run up to where it is to stop; false if its operation's end came first.
    fn run(&mut self, victim: Tracee) -> Told<bool> {
        let mut may_sleep = false;
        loop {
            victim.resume(Until::CallBoundary);
            let stop = if may_sleep { self.wait(victim)? } else { victim.wait() };
            match stop {
                Stop::Stepped => return Ok(true),
                Stop::Ended => return Err(ended()),
                Stop::CallBoundary => match victim.boundary() {
                    Some(Boundary::Entry(marker::END)) => return Ok(false),
                    Some(Boundary::Entry(call)) => may_sleep = is_sleep(call),
                    _ => may_sleep = false,
                },
                _ => {}
            }
        }
    }

    fn begin(&mut self) -> Told<Tracee> {
        self.relieved = false;
        (self.case.before)(&mut self.stage)?;
        let victim = self.stage.victim(self.case.who, self.case.victim)?;
        let ready = (self.case.waiting)(&mut self.stage);
        if ready.is_err() {
            victim.kill();
        }
        ready.map(|()| victim)
    }

    /// Once for each victim.
    fn relieve(&mut self) -> Told {
        if std::mem::replace(&mut self.relieved, true) {
            Ok(())
        } else {
            (self.case.relieve)(&mut self.stage)
        }
    }

    fn after(&mut self) -> Told {
        self.relieve()?;
        if self.case.who == Who::ForkOfVictim {
            // Its parent lives.
            self.stage.answer_of_victim()?;
            self.stage.ask_founder("reap")?;
            self.stage.census_of(MEMBERS + 1)?;
            self.stage.ask_founder("kill")?;
        }
        self.stage.ask_founder("join")?;
        (self.case.after)(&mut self.stage)
    }

    /// The next stop of a victim that may sleep.
    fn wait(&mut self, victim: Tracee) -> Told<Stop> {
        loop {
            match victim.try_wait() {
                Some(stop) => return Ok(stop),
                None if sleeps(victim.0) => return self.wake(victim).map(|()| Stop::Other),
                None => std::thread::yield_now(),
            }
        }
    }

    /// Has the others wake the victim that sleeps, and waits until it stops behind that.
    fn wake(&mut self, victim: Tracee) -> Told {
        if !self.case.sleeps_for_a_time {
            self.relieve()?;
        }
        let end = Instant::now() + DEADLINE;
        while Instant::now() < end {
            match victim.try_wait() {
                Some(Stop::Ended) => return Err(ended()),
                Some(_) => return Ok(()),
                None => std::thread::yield_now(),
            }
        }
        Err("the victim sleeps on".to_owned())
    }

    /// Runs through the operation once, and once more by steps.
    fn walk(&mut self) -> Told {
        let victim = self.begin()?;
        let ran = self.run(victim);
        let mut watch = Watch::of(self.stage.founder());
        if let Some(watch) = &mut watch {
            watch.learn();
        }
        victim.kill();
        ran?;
        self.others()?;
        self.after()?;

        let victim = self.begin()?;
        if let Some(watch) = &mut watch {
            watch.learn();
            watch.changed();
        }
        let walked = self.walk_by_steps(victim, watch);
        victim.kill();
        self.walk = walked?;
        self.others()?;
        self.after()
    }

    fn walk_by_steps(&mut self, victim: Tracee, mut watch: Option<Watch>) -> Told<Walk> {
        let (mut walk, mut seen) = (Walk::default(), HashMap::new());
        let anchors = victim.stop_before(None);
        loop {
            let next = victim.next().ok_or_else(ended)?;
            if next.call.is_some() {
                walk.calls.push(walk.steps);
            }
            if anchors {
                walk.note(next.address, &mut seen);
            }
            match step_from(victim, next)? {
                Stands::Stepped => {}
                Stands::AtEnd => return Ok(walk),
                Stands::Asleep => {
                    walk.sleeps.push(walk.steps);
                    self.wake(victim)?;
                }
            }
            walk.steps += 1;
            if watch.as_mut().is_some_and(Watch::changed) {
                walk.stores.push(walk.steps);
            }
        }
    }
}

/// One instruction on, unless that is the end or a sleep.
fn step(victim: Tracee) -> Told<Stands> {
    step_from(victim, victim.next().ok_or_else(ended)?)
}

fn step_from(victim: Tracee, next: Next) -> Told<Stands> {
    if next.call == Some(marker::END) {
        return Ok(Stands::AtEnd);
    }
    if next.behind.is_some_and(|behind| victim.stop_before(Some(behind))) {
        let stopped = victim.go(Until::CallBoundary);
        victim.stop_before(None);
        return if stopped { Ok(Stands::Stepped) } else { Err(ended()) };
    }
    if !next.call.is_some_and(is_sleep) {
        return if victim.go(Until::Instruction) { Ok(Stands::Stepped) } else { Err(ended()) };
    }
    victim.resume(Until::Instruction);
    loop {
        match victim.try_wait() {
            Some(Stop::Ended) => return Err(ended()),
            Some(Stop::Stepped) => return Ok(Stands::Stepped),
            Some(stop) => victim.pass(stop, Until::Instruction),
            None if sleeps(victim.0) => return Ok(Stands::Asleep),
            None => std::thread::yield_now(),
        }
    }
}

fn ended() -> String {
    "the victim ended by itself".to_owned()
}
