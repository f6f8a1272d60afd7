//! A process that starts children on command, and the tester's end of it.
//!
//! Commands and answers are lines. Every run of a task adds its number to a log in the tester's memory, so runs can
//! be counted whatever became of those who know of them.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::fs::FileExt;
use std::process::{ChildStdin, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

use forkyard::process::{Builder, Ended, Process, Start};
use forkyard::signal::{self, Signal};
use forkyard::sync::Value;

use crate::common;
use crate::trace::{self, Stop, Tracee};

/// How long anything may take before it counts as hung.
pub(crate) const DEADLINE: Duration = Duration::from_secs(20);
const LOG: &str = "STEPKILL_LOG";

/// Notes one run of a task.
pub(crate) fn note_run(number: u64) {
    let path = std::env::var(LOG).unwrap();
    let mut log = std::fs::OpenOptions::new().append(true).open(path).unwrap();
    log.write_all(&number.to_ne_bytes()).unwrap();
}

/// A number: fits into the slot.
#[forkyard::task]
fn small(number: u64) -> u64 {
    note_run(number);
    number * 3
}

/// The argument does not fit into a slot.
#[forkyard::task]
fn padded(number: u64, _padding: String) -> u64 {
    small(number)
}

/// A text: does not fit into the slot; of some length, not into a packet either.
#[forkyard::task]
fn large(number: u64, times: usize) -> String {
    note_run(number);
    text(number, times)
}

fn text(number: u64, times: usize) -> String {
    format!("{number:04}").repeat(times)
}

/// A shared object: outlives whoever made it.
#[forkyard::task]
fn handle(number: u64) -> Value<u64> {
    note_run(number);
    Value::new(number * 3).unwrap()
}

/// Stays.
#[forkyard::task]
fn park(number: u64) {
    note_run(number);
    loop {
        std::thread::park();
    }
}

/// Starts a program that outlives its starter, if nobody sees to it.
#[forkyard::task]
fn park_above_a_program(number: u64) {
    let mut program = Command::new("sleep").arg("600").spawn().unwrap();
    note_run(number);
    let _ = program.wait();
}

/// The requester's main function.
pub(crate) fn main() {
    for line in std::io::stdin().lines() {
        let line = line.unwrap();
        let words: Vec<&str> = line.split(' ').collect();
        println!("{}", obey(&words));
    }
}

fn obey(words: &[&str]) -> String {
    match words {
        ["run", what, daemon, number] => {
            let builder = Builder::new().name("stepped").daemon(*daemon == "daemon");
            run(what, builder, number.parse().unwrap())
        }
        ["park", what, daemon, number] => {
            let builder = Builder::new().name("parked").daemon(*daemon == "daemon");
            let number = (number.parse().unwrap(),);
            let started = match *what {
                "plain" => builder.spawn(park, number),
                "with-program" => builder.spawn(park_above_a_program, number),
                "by-exec-with-program" => builder.start(Start::Spawn).spawn(park_above_a_program, number),
                _ => unreachable!("{what}"),
            };
            started.map_or_else(|error| format!("not started: {error:?}"), |child| child.pid().to_string())
        }
        ["census"] => format!("{:?}", forkyard::__private::family_census()),
        ["ignore-sigchld"] => {
            signal::ignore(Signal::CHLD).unwrap();
            "ok".to_owned()
        }
        _ => format!("unknown command {words:?}"),
    }
}

fn run(what: &str, builder: Builder, number: u64) -> String {
    let answer = match what {
        "small" => builder.spawn(small, (number,)).map(|child| told(child, number * 3)),
        "handle" => {
            // Whose children return shared objects takes part in the family.
            let _shared = Value::new(0u64);
            let started = builder.spawn(handle, (number,));
            started.map(|child| {
                told_of(child, |value: &Value<u64>| value.get().is_ok_and(|value| value == number * 3))
            })
        }
        "direct" => builder.spawn(padded, (number, text(0, 200))).map(|child| told(child, number * 3)),
        "packet" => builder.spawn(large, (number, 200)).map(|child| told(child, text(number, 200))),
        "memfd" => builder.spawn(large, (number, 2000)).map(|child| told(child, text(number, 2000))),
        _ => unreachable!("{what}"),
    };
    answer.unwrap_or_else(|error| format!("not started: {error:?}"))
}

/// What a join tells: `ok PID`, or how the child ended.
fn told<R: serde::de::DeserializeOwned + PartialEq>(child: Process<R>, expected: R) -> String {
    told_of(child, |value| *value == expected)
}

fn told_of<R: serde::de::DeserializeOwned>(child: Process<R>, is_expected: impl Fn(&R) -> bool) -> String {
    let pid = child.pid();
    match child.join() {
        Ok(value) if is_expected(&value) => format!("ok {pid}"),
        Ok(_) => "a wrong value".to_owned(),
        Err(error) => match (error.ended(), error.exit_status().and_then(|status| status.signal())) {
            (Some(ended), Some(signal)) => ending(ended, signal),
            _ => format!("ended otherwise: {error:?}"),
        },
    }
}

/// How an end by a signal is told.
pub(crate) fn ending(ended: Ended, signal: i32) -> String {
    format!("{ended:?} {signal}")
}

/// What kind of requester, and so of server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Role {
    /// This library's.
    Requester,
    /// The control.
    NaiveRequester,
}

impl Role {
    /// The program's argument.
    pub(crate) fn argument(self) -> &'static str {
        match self {
            Role::Requester => "requester",
            Role::NaiveRequester => "naive-requester",
        }
    }

    /// The system call in which its server waits for requests.
    pub(crate) fn server_waits_in(self) -> libc::c_long {
        match self {
            Role::Requester => libc::SYS_ppoll,
            Role::NaiveRequester => libc::SYS_recvfrom,
        }
    }
}

/// The tester's end.
pub(crate) struct Requester {
    pub(crate) pid: i32,
    commands: Option<ChildStdin>,
    answers: ChildStdout,
    log: File,
    counted: u64,
    number: u64,
    role: Role,
}

impl Requester {
    /// Starts one: this program in another role.
    #[allow(clippy::zombie_processes, reason = "all that is left is reaped by number")]
    pub(crate) fn begin(role: Role) -> Requester {
        let log = File::from(forkyard_sys::memfd::holding("stepkill-log", &[]).unwrap());
        let mut child = Command::new(std::env::current_exe().unwrap())
            .arg(role.argument())
            .env(LOG, format!("/proc/{}/fd/{}", std::process::id(), log.as_raw_fd()))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let (commands, answers) = (child.stdin.take(), child.stdout.take().unwrap());
        let pid = i32::try_from(child.id()).unwrap();
        Requester { pid, commands, answers, log, counted: 0, number: 0, role }
    }

    /// A number that no run has had.
    pub(crate) fn next_number(&mut self) -> u64 {
        self.number += 1;
        self.number
    }

    pub(crate) fn tell(&mut self, command: &str) {
        // EPIPE: it has been killed, which is what the test is about.
        let _ = self.commands.as_mut().unwrap().write_all(format!("{command}\n").as_bytes());
    }

    /// The next answer.
    pub(crate) fn answer(&mut self) -> Result<String, String> {
        let end = Instant::now() + DEADLINE;
        let mut line = Vec::new();
        loop {
            let ready = forkyard_sys::poll::readable([self.answers.as_fd()], Some(end)).unwrap();
            if !ready[0] {
                return Err(format!("no answer within {DEADLINE:?}"));
            }
            let mut byte = [0];
            match self.answers.read(&mut byte) {
                Ok(0) | Err(_) => return Err("the requester is gone".to_owned()),
                Ok(_) if byte[0] == b'\n' => return Ok(String::from_utf8(line).unwrap()),
                Ok(_) => line.push(byte[0]),
            }
        }
    }

    /// True if an answer, or its end, can be read.
    pub(crate) fn has_answered(&self) -> bool {
        forkyard_sys::poll::readable([self.answers.as_fd()], Some(Instant::now())).unwrap()[0]
    }

    pub(crate) fn ask(&mut self, command: &str) -> Result<String, String> {
        self.tell(command);
        self.answer()
    }

    /// A start and join that nobody disturbs: has to work, and to run once.
    pub(crate) fn undisturbed(&mut self) -> Result<(), String> {
        let number = self.next_number();
        let answer = self.ask(&format!("run small free {number}"))?;
        match self.runs()[..] {
            [run] if run == number && answer.starts_with("ok ") => Ok(()),
            ref runs => Err(format!("the next start (number {number}) told {answer:?} and ran {runs:?}")),
        }
    }

    /// True if a task has run since the last look.
    pub(crate) fn has_news_of_runs(&self) -> bool {
        self.log.metadata().unwrap().len() > self.counted
    }

    /// The numbers of the tasks that ran since the last look.
    pub(crate) fn runs(&mut self) -> Vec<u64> {
        let len = self.log.metadata().unwrap().len();
        let mut bytes = vec![0; usize::try_from(len - self.counted).unwrap()];
        self.log.read_exact_at(&mut bytes, self.counted).unwrap();
        self.counted = len;
        bytes.chunks(8).map(|word| u64::from_ne_bytes(word.try_into().unwrap())).collect()
    }

    /// Its one server, if that waits for requests, and there is nobody else and no zombie: only spares that wait as
    /// well, and those that the tester knows.
    pub(crate) fn quiet_server(&self, known: &[i32]) -> Option<i32> {
        let children = common::children_of(self.pid);
        let (spares, servers): (Vec<i32>, Vec<i32>) =
            children.iter().filter(|pid| !known.contains(pid)).partition(|&&pid| is_waiting_spare(pid));
        match servers[..] {
            [server] if spares.len() <= SPARES && waits_in(server, self.role.server_waits_in()) => {
                Some(server)
            }
            _ => None,
        }
    }

    /// As [`quiet_server`](Requester::quiet_server), once it is so.
    pub(crate) fn only_server(&self, known: &[i32]) -> Result<i32, String> {
        let end = Instant::now() + DEADLINE;
        loop {
            if let Some(server) = self.quiet_server(known) {
                return Ok(server);
            }
            if Instant::now() > end {
                return Err(format!("not one server, but {:?}", described(&common::children_of(self.pid))));
            }
            std::thread::yield_now();
        }
    }

    /// Its open descriptors.
    pub(crate) fn descriptors(&self) -> usize {
        std::fs::read_dir(format!("/proc/{}/fd", self.pid)).map_or(0, Iterator::count)
    }

    /// Fails if there is any object in its family's memory.
    pub(crate) fn shares_nothing(&mut self) -> Result<(), String> {
        self.tell("census");
        let census = self.answer()?;
        if census.contains("objects: 0, ") && census.contains("unfinished: 0, ") {
            Ok(())
        } else {
            Err(format!("left behind: {census}"))
        }
    }

    /// Fails if it has more descriptors than then; a spare has one, but not before its birth was noticed, and a number may
    /// be kept free for each.
    pub(crate) fn has_no_more_than(&self, then: usize) -> Result<(), String> {
        match self.descriptors() {
            now if now <= then + 2 * SPARES => Ok(()),
            now => Err(format!("{now} descriptors, {then} before")),
        }
    }

    /// Lets it end; nothing may be left of it and its family.
    pub(crate) fn end(&mut self) -> Result<(), String> {
        drop(self.commands.take());
        nobody_is_left()
    }

    /// Ends it and whatever is left of its family, after a failure.
    pub(crate) fn clear_away(self) {
        trace::kill(self.pid);
        while let Ok(news) = trace::any_news() {
            if let Some((tracee, stop)) = news {
                tracee.ignore(stop);
            }
            common::children_of(common::own_pid()).into_iter().for_each(trace::kill);
        }
    }
}

/// Waits until this process, which inherits all orphans, has no child.
pub(crate) fn nobody_is_left() -> Result<(), String> {
    let end = Instant::now() + DEADLINE;
    while let Ok(news) = trace::any_news() {
        go_on(news, end)?;
    }
    Ok(())
}

/// Waits until this process, which inherits all orphans, has no child but this one, which lives; and ends it.
pub(crate) fn only_one_is_left(survivor: i32) -> Result<(), String> {
    let end = Instant::now() + DEADLINE;
    while common::children_of(common::own_pid()) != BTreeSet::from([survivor]) {
        match trace::any_news() {
            Ok(news) => go_on(news, end)?,
            Err(_) => return Err("nobody is left, although one was not daemonic".to_owned()),
        }
    }
    if common::is_gone(survivor) {
        return Err("it was not daemonic, and did not live on".to_owned());
    }
    trace::kill(survivor);
    nobody_is_left()
}

fn go_on(news: Option<(Tracee, Stop)>, end: Instant) -> Result<(), String> {
    if let Some((tracee, stop)) = news {
        tracee.ignore(stop);
    } else if Instant::now() > end {
        return Err(format!("still there: {:?}", described(&common::children_of(common::own_pid()))));
    } else {
        std::thread::yield_now();
    }
    Ok(())
}

/// Processes with name, state and command line.
fn described(pids: &BTreeSet<i32>) -> Vec<String> {
    let text = |pid: i32, file: &str| {
        let text = std::fs::read_to_string(format!("/proc/{pid}/{file}")).unwrap_or_default();
        text.replace('\0', " ").trim().to_owned()
    };
    let describe = |&pid: &i32| {
        let state = common::state_of(pid).unwrap_or('-');
        format!("{pid} {state} {} in call {}", text(pid, "comm"), text(pid, "syscall"))
    };
    pids.iter().map(describe).collect()
}

/// Most children that wait for a task.
pub(crate) const SPARES: usize = 2;

fn is_waiting_spare(pid: i32) -> bool {
    let name = std::fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
    name == "forkyard-spare\n" && common::state_of(pid) == Some('S')
}

/// True if the process waits in this system call.
fn waits_in(pid: i32, call: libc::c_long) -> bool {
    let text = std::fs::read_to_string(format!("/proc/{pid}/syscall")).unwrap_or_default();
    text.split(' ').next() == Some(call.to_string().as_str())
}
