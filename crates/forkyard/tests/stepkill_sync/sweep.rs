//! One operation, its victim killed at every point.

use std::time::Instant;

use crate::marker;
use crate::points::{Point, Walk, Watch};
use crate::report::Operation;
use crate::stage::{DEADLINE, Stage, Told, eventually, is_sleep, sleeps};
use crate::trace::{Stop, Tracee, Until};

/// About how many instructions are points that nothing else makes one.
const POINTS: usize = 60;

/// An operation, and what is to hold when its user is killed in it.
#[derive(Clone, Copy)]
pub(crate) struct Case {
    pub(crate) name: &'static str,
    /// What the others do before the victim begins.
    pub(crate) before: fn(&mut Stage) -> Told,
    /// What the victim does: before, in and after the operation.
    pub(crate) victim: &'static str,
    /// What the others do when the victim stands at the beginning of its operation.
    pub(crate) waiting: fn(&mut Stage) -> Told,
    /// What they do when it sleeps in it, so that it does not sleep for ever.
    pub(crate) asleep: fn(&mut Stage) -> Told,
    /// The victim is dead: those who wait go on, newcomers come, and all is as it was.
    pub(crate) after: fn(&mut Stage) -> Told,
    /// It has to fail.
    pub(crate) control: bool,
}

impl Case {
    pub(crate) const fn new(name: &'static str, victim: &'static str, after: fn(&mut Stage) -> Told) -> Case {
        let nothing: fn(&mut Stage) -> Told = |_| Ok(());
        Case { name, before: nothing, victim, waiting: nothing, asleep: nothing, after, control: false }
    }
}

/// Kills the victim at each point; how often something was wrong.
pub(crate) fn sweep(case: &Case) -> usize {
    let mut operation = if case.control { Operation::control(case.name) } else { Operation::new(case.name) };
    let mut run = Run { case, stage: Stage::begin(), killed: 0, start: String::new() };
    let mut walk = Walk::default();
    let mut walked = operation.point("not at all", || run.walk().map(|found| walk = found));
    // Nothing that was taken for the first time is a leak.
    walked &= operation.point("at its end", || {
        run.kill_at(Point { steps: walk.steps, asleep: false })?;
        run.start = run.stage.census()?;
        Ok(())
    });
    if !walked {
        run.stage.clear_away();
        return operation.finish("it does not work undisturbed").max(1);
    }
    let (points, stride) = walk.points(POINTS);
    let (mut late, mut slowest) = (0, std::time::Duration::ZERO);
    let mut failures = 0;
    for point in points {
        if operation.point(&point.to_string(), || run.kill_and_count(point)) {
            continue;
        }
        failures += 1;
        (late, slowest) = (late + run.stage.late, slowest.max(run.stage.slowest));
        let start = std::mem::take(&mut run.start);
        run.stage.clear_away();
        run = Run { case, stage: Stage::begin(), killed: 0, start };
        let again = run.kill_at(Point { steps: usize::MAX, asleep: false });
        if again.is_err() || case.control && failures == 3 {
            break;
        }
        run.start = run.stage.census().unwrap_or_default();
    }
    (late, slowest) = (late + run.stage.late, slowest.max(run.stage.slowest));
    run.stage.end();
    let details = walk.details(stride);
    operation.finish(&format!("{details}; longest wait {:.0} ms, {late} late", slowest.as_secs_f64() * 1e3))
}

struct Run<'a> {
    case: &'a Case,
    stage: Stage,
    killed: usize,
    /// What was in use at the start.
    start: String,
}

/// Where a victim stands after a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stands {
    Stepped,
    Asleep,
    AtEnd,
}

impl Run<'_> {
    fn kill_and_count(&mut self, point: Point) -> Told {
        self.kill_at(point)?;
        let mut now = String::new();
        let (stage, start) = (&mut self.stage, &self.start);
        let same = eventually("nothing is left", || {
            now = stage.census().unwrap_or_default();
            now == *start
        });
        same.map_err(|_| format!("left behind: {now}, at the start {start}"))
    }

    fn kill_at(&mut self, point: Point) -> Told {
        let (victim, mut woken) = (self.begin()?, false);
        let mut steps = 0;
        let reached = loop {
            if steps == point.steps && !point.asleep {
                break Ok(());
            }
            match step(victim) {
                Ok(Stands::Stepped) => steps += 1,
                Ok(Stands::AtEnd) => break Ok(()),
                Ok(Stands::Asleep) if steps == point.steps => break Ok(()),
                Ok(Stands::Asleep) => match self.wake(victim, &mut woken) {
                    Ok(()) => steps += 1,
                    Err(why) => break Err(why),
                },
                Err(why) => break Err(why),
            }
        };
        victim.kill();
        self.killed += 1;
        reached?;
        self.after()
    }

    fn begin(&mut self) -> Told<Tracee> {
        (self.case.before)(&mut self.stage)?;
        let victim = self.stage.victim(self.case.victim)?;
        let ready = (self.case.waiting)(&mut self.stage);
        if ready.is_err() {
            victim.kill();
        }
        ready.map(|()| victim)
    }

    fn after(&mut self) -> Told {
        (self.case.after)(&mut self.stage)?;
        self.stage.ask_founder("join").map(|_| ())
    }

    /// Has the others wake the victim that sleeps in its step, and waits for the end of it.
    fn wake(&mut self, victim: Tracee, woken: &mut bool) -> Told {
        if !*woken {
            *woken = true;
            (self.case.asleep)(&mut self.stage)?;
        }
        let end = Instant::now() + DEADLINE;
        while Instant::now() < end {
            match victim.try_wait() {
                Some(Stop::Ended) => return Err("the victim ended by itself".to_owned()),
                Some(Stop::Stepped) => return Ok(()),
                Some(stop) => victim.pass(stop, Until::Instruction),
                None => std::thread::yield_now(),
            }
        }
        Err("the victim sleeps on".to_owned())
    }

    /// Steps through the whole operation, twice: what it uses of the arena is seen the first time.
    fn walk(&mut self) -> Told<Walk> {
        let mut watch = None;
        for learning in [true, false] {
            let (victim, mut woken) = (self.begin()?, false);
            watch = watch.or_else(|| Watch::of(self.stage.founder()));
            let mut walk = Walk::default();
            if let Some(watch) = &mut watch {
                watch.learn();
                watch.changed();
            }
            let walked = loop {
                if victim.next_call().is_some() {
                    walk.calls.push(walk.steps);
                }
                match step(victim) {
                    Ok(Stands::Stepped) => walk.steps += 1,
                    Ok(Stands::AtEnd) => break Ok(()),
                    Ok(Stands::Asleep) => {
                        walk.sleeps.push(walk.steps);
                        if let Err(why) = self.wake(victim, &mut woken) {
                            break Err(why);
                        }
                        walk.steps += 1;
                    }
                    Err(why) => break Err(why),
                }
                if let Some(watch) = &mut watch {
                    if learning && walk.steps % 40 == 0 {
                        watch.learn();
                    } else if !learning && watch.changed() {
                        walk.stores.push(walk.steps);
                    }
                }
            };
            victim.kill();
            walked?;
            self.after()?;
            if !learning {
                return Ok(walk);
            }
        }
        unreachable!("the second walk returns")
    }
}

/// One instruction on, unless that is the end or a sleep.
fn step(victim: Tracee) -> Told<Stands> {
    let ended = || "the victim ended by itself".to_owned();
    let call = victim.next_call();
    if call == Some(marker::END) {
        return Ok(Stands::AtEnd);
    }
    if !call.is_some_and(is_sleep) {
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
