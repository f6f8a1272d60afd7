//! A family for one operation: a founder, three actors, and one victim after the other. All of them are told what to do by the
//! tester, who is no member.

use std::io::{BufRead, BufReader, Write};
use std::os::fd::AsFd;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

use crate::channel::Channel;
use crate::founder;
use crate::marker;
use crate::trace::{Boundary, Stop, Tracee, Until};

/// Longer than any wait that ends, on a machine that does other things as well.
pub(crate) const DEADLINE: Duration = Duration::from_secs(20);
/// Who waits for longer was not woken, but looked by itself.
pub(crate) const LATE: Duration = Duration::from_millis(700);

/// Memory of the first slots of the process table, which are used in turn.
const SLOTS: usize = 16 * 4096;

/// The founder and the actors.
pub(crate) const MEMBERS: usize = 4;

/// Forks of the founder.
pub(crate) const A: usize = 0;
pub(crate) const B: usize = 1;
/// Spawned.
pub(crate) const C: usize = 2;

pub(crate) type Told<T = ()> = Result<T, String>;

pub(crate) struct Stage {
    founder: Child,
    commands: Option<ChildStdin>,
    answers: BufReader<ChildStdout>,
    actors: Vec<Channel>,
    pids: Vec<i32>,
    for_victims: Channel,
    /// A victim's fork may be left, and nobody is its parent.
    may_have_orphan: bool,
    /// Counts the victims.
    round: usize,
    /// How long an answer may take.
    pub(crate) deadline: Duration,
    /// The longest wait for an answer, and how many were late.
    pub(crate) slowest: Duration,
    pub(crate) late: usize,
}

impl Stage {
    pub(crate) fn begin() -> Stage {
        let for_victims = Channel::new();
        let actors: Vec<Channel> = (0..3).map(|_| Channel::new()).collect();
        let mut founder = Command::new(std::env::current_exe().unwrap())
            .arg(founder::ROLE)
            .args([&for_victims].into_iter().chain(&actors).map(|channel| channel.number().to_string()))
            // A small one, in which nobody looks around for long.
            .env("FORKYARD_ARENA_SIZE", "12M")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let (commands, answers) = (founder.stdin.take(), BufReader::new(founder.stdout.take().unwrap()));
        let mut stage = Stage {
            founder,
            commands,
            answers,
            actors,
            pids: vec![],
            for_victims,
            may_have_orphan: false,
            round: 0,
            deadline: DEADLINE,
            slowest: Duration::ZERO,
            late: 0,
        };
        let pids = stage.ask_founder("actors").unwrap();
        stage.pids = pids.split(' ').map(|pid| pid.parse().unwrap()).collect();
        stage
    }

    /// Ends the family.
    pub(crate) fn end(mut self) {
        drop(self.commands.take());
        // Its daemons end with it, whatever they wait for.
        self.founder.wait().unwrap();
    }

    /// Ends the family when it may hang.
    pub(crate) fn clear_away(mut self) {
        self.founder.kill().unwrap();
        self.founder.wait().unwrap();
    }

    pub(crate) fn founder(&self) -> u32 {
        self.founder.id()
    }

    pub(crate) fn ask_founder(&mut self, command: &str) -> Told<String> {
        writeln!(self.commands.as_mut().unwrap(), "{command}").map_err(|error| error.to_string())?;
        let end = Instant::now() + DEADLINE;
        if !forkyard_sys::poll::readable([self.answers.get_ref().as_fd()], Some(end)).unwrap()[0] {
            return Err(format!("the founder does not answer {command:?}"));
        }
        let mut line = String::new();
        match self.answers.read_line(&mut line) {
            Ok(read) if read > 0 => Ok(line.trim_end().to_owned()),
            _ => Err(format!("the founder is gone, asked {command:?}")),
        }
    }

    /// Commands an actor, and does not wait for the answer.
    pub(crate) fn tell(&mut self, actor: usize, command: &str) {
        self.actors[actor].tell(&format!("{} {command}", self.round));
    }

    /// The same, and waits until it sleeps in the operation.
    pub(crate) fn block(&mut self, actor: usize, command: &str) -> Told {
        self.tell(actor, command);
        eventually(&format!("actor {actor} sleeps in {command:?}"), || sleeps(self.pids[actor]))
    }

    /// The same, and waits until it sleeps in the operation or is done with it.
    pub(crate) fn send(&mut self, actor: usize, command: &str) -> Told {
        self.tell(actor, command);
        eventually(&format!("actor {actor} is at {command:?}"), || {
            sleeps(self.pids[actor]) || self.actors[actor].has_answer()
        })
    }

    pub(crate) fn answer(&mut self, actor: usize) -> Told<String> {
        let since = Instant::now();
        let answer = self.actors[actor].answer(self.deadline);
        let took = since.elapsed();
        self.slowest = self.slowest.max(took);
        self.late += usize::from(took > LATE);
        answer.ok_or_else(|| {
            let syscall = std::fs::read_to_string(format!("/proc/{}/syscall", self.pids[actor]));
            format!("actor {actor} hangs, in call {:?}", syscall.unwrap_or_default())
        })
    }

    pub(crate) fn ask(&mut self, actor: usize, command: &str) -> Told<String> {
        self.tell(actor, command);
        self.answer(actor).map_err(|error| format!("{error}, asked to {command}"))
    }

    /// Asks, and fails unless this is the answer.
    pub(crate) fn expect(&mut self, actor: usize, command: &str, expected: &[&str]) -> Told<String> {
        let answer = self.ask(actor, command)?;
        one_of(command, &answer, expected)?;
        Ok(answer)
    }

    /// Waits for the answer to what it was told before.
    pub(crate) fn expect_answer(&mut self, actor: usize, expected: &[&str]) -> Told<String> {
        let answer = self.answer(actor)?;
        one_of(&format!("actor {actor}"), &answer, expected)?;
        Ok(answer)
    }

    /// A new victim, behind the call that marks the beginning of its operation.
    pub(crate) fn victim(&mut self, who: Who, command: &str) -> Told<Tracee> {
        self.round += 1;
        self.for_victims.drain();
        let pid = self.ask_founder(who.command())?.parse().map_err(|_| "no victim".to_owned())?;
        let victim =
            Tracee::seize(pid, who == Who::ForkOfVictim).map_err(|error| format!("seize {pid}: {error}"))?;
        if victim.interrupt() == Stop::Ended {
            return Err("the victim ended early".to_owned());
        }
        self.for_victims.tell(&format!("{} {command}", self.round));
        loop {
            if !victim.go(Until::CallBoundary) {
                return Err("the victim ended before its operation".to_owned());
            }
            if victim.boundary() == Some(Boundary::Entry(marker::BEGIN)) {
                victim.go(Until::CallBoundary);
                return if who == Who::ForkOfVictim { fork_of(victim) } else { Ok(victim) };
            }
        }
    }

    /// The answer of a victim that lives on.
    pub(crate) fn answer_of_victim(&mut self) -> Told<String> {
        self.for_victims.answer(self.deadline).ok_or_else(|| "the victim hangs".to_owned())
    }

    /// What is in use when everything that was left of victims is cleaned up.
    pub(crate) fn census(&mut self) -> Told<Census> {
        self.census_of(MEMBERS)
    }

    /// The same, when there are so many members.
    pub(crate) fn census_of(&mut self, members: usize) -> Told<Census> {
        let mut now = Census::default();
        let settled = eventually("the dead are cleaned up", || {
            now = self.ask_founder("census").map_or_else(|_| Census::default(), |line| Census::of(&line));
            now.participants == members && now.unfinished == 0
        });
        settled.map(|()| now).map_err(|error| format!("{error}: {now:?}"))
    }

    /// Has the founder clean up until nobody is left that it did not start: a victim's fork ends by itself, when it gets to run, and
    /// nobody is its parent.
    pub(crate) fn reap_orphan(&mut self) -> Told {
        self.may_have_orphan = true;
        eventually("the orphan has ended and is cleaned up", || {
            let reaped = self.ask_founder("reap").is_ok();
            let now = self.ask_founder("census").map_or_else(|_| Census::default(), |line| Census::of(&line));
            reaped && now.participants == MEMBERS && now.unfinished == 0
        })
    }

    /// Waits until somebody has cleaned up after the victim.
    pub(crate) fn settle(&mut self) -> Told {
        self.census().map(drop)
    }

    /// Fails if more is in use than then.
    pub(crate) fn no_more_than(&mut self, then: Census) -> Told {
        let mut now = Census::default();
        let may_have_orphan = std::mem::take(&mut self.may_have_orphan);
        let same = eventually("nothing is left", || {
            // One that had not run at all until now joins, and ends.
            if may_have_orphan && self.ask_founder("reap").is_err() {
                return false;
            }
            now = self.ask_founder("census").map_or_else(|_| Census::default(), |line| Census::of(&line));
            Census { chunks: then.chunks, memory: then.memory, ..now } == then
                && now.chunks <= then.chunks
                && now.memory <= then.memory + SLOTS
        });
        same.map_err(|_| format!("left behind: {now:?}, at the start {then:?}"))
    }
}

/// Who is killed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Who {
    /// An actor, forked.
    Actor,
    /// One that has no objects yet, and makes one.
    Stranger,
    /// One to whom objects arrive.
    Newcomer,
    /// A copy that an actor makes of itself.
    ForkOfVictim,
}

impl Who {
    fn command(self) -> &'static str {
        match self {
            Who::Actor | Who::ForkOfVictim => "victim",
            Who::Stranger => "stranger",
            Who::Newcomer => "newcomer",
        }
    }
}

/// The copy that a process is about to make, before its first instruction; the process itself goes on.
fn fork_of(parent: Tracee) -> Told<Tracee> {
    loop {
        parent.resume(Until::Event);
        match parent.wait() {
            Stop::Made(child) => {
                let child = Tracee(child);
                child.wait();
                parent.release();
                return Ok(child);
            }
            Stop::Ended => return Err("the victim ended before it forked".to_owned()),
            _ => {}
        }
    }
}

/// What is in use.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Census {
    participants: usize,
    unfinished: usize,
    objects: usize,
    holders: usize,
    chunks: usize,
    memory: usize,
}

impl Census {
    fn of(line: &str) -> Census {
        let number = |text: &str| text.parse().unwrap();
        let numbers: Vec<usize> = line.split(' ').map(number).collect();
        let [participants, unfinished, objects, holders, chunks, memory] = numbers[..] else {
            panic!("no census: {line}")
        };
        Census { participants, unfinished, objects, holders, chunks, memory }
    }
}

fn one_of(what: &str, answer: &str, expected: &[&str]) -> Told {
    if expected.contains(&answer) { Ok(()) } else { Err(format!("{what}: {answer:?}, not {expected:?}")) }
}

/// Waits until it is so.
pub(crate) fn eventually(what: &str, mut holds: impl FnMut() -> bool) -> Told {
    let end = Instant::now() + DEADLINE;
    while !holds() {
        if Instant::now() > end {
            return Err(format!("never happened: {what}"));
        }
        std::thread::yield_now();
    }
    Ok(())
}

/// True if the process sleeps on a futex.
pub(crate) fn sleeps(pid: i32) -> bool {
    let call = std::fs::read_to_string(format!("/proc/{pid}/syscall")).unwrap_or_default();
    let number = call.split(' ').next().and_then(|number| number.parse::<libc::c_long>().ok());
    number.is_some_and(is_sleep)
}

/// True for the calls that sleep on words.
pub(crate) fn is_sleep(call: libc::c_long) -> bool {
    call == libc::SYS_futex || call == libc::SYS_futex_waitv
}
