//! The child is killed on its way from its first instruction to its exit: the join tells the signal and how far it
//! came, never a value that was not committed and never an exit that did not happen.

use std::collections::VecDeque;

use forkyard::process::Ended;

use crate::points::{Board, Point, Walk};
use crate::report::Operation;
use crate::requester::{Requester, Role, SPARES, ending};
use crate::trace::{Stop, Tracee, Until};

pub(crate) fn with_a_small_value() -> bool {
    killed_everywhere("child killed, its value fits into the slot", "small", 150, 90_000)
}

pub(crate) fn with_a_packet() -> bool {
    killed_everywhere("child killed, its value is a packet", "packet", 100, 40_000)
}

pub(crate) fn with_a_memfd() -> bool {
    killed_everywhere("child killed, its value is a memfd", "memfd", 100, 40_000)
}

pub(crate) fn with_a_long_argument() -> bool {
    killed_everywhere("child killed, it was not a spare", "direct", 100, 40_000)
}

pub(crate) fn with_a_handle() -> bool {
    killed_everywhere("child killed, its value is a handle of what it made", "handle", 150, 60_000)
}

fn killed_everywhere(name: &str, what: &str, most_points: usize, most_steps: u64) -> bool {
    let mut operation = Operation::new(name);
    let mut stage = Stage::begin();
    let (points, stride, walk) = stage.walk(what, most_points, most_steps);
    let descriptors = stage.requester.descriptors();
    for point in points {
        if !operation.point(&point.to_string(), || stage.kill_at(what, point)) {
            stage = stage.anew();
        }
    }
    if !operation.point("in its exit", || stage.kill_in_exit(what)) {
        stage = stage.anew();
    }
    operation.point("not at all", || {
        stage.requester.has_no_more_than(descriptors)?;
        stage.end()
    });
    operation.finish(&walk.details(stride)) == 0
}

/// A parcel that was sent and not announced must not become the value of a later child with the same number and slot.
pub(crate) fn whose_number_is_used_again() -> bool {
    let mut operation = Operation::new("child killed between parcel and announcement, its number used again");
    let mut stage = Stage::begin();
    let (.., walk) = stage.walk("packet", 0, 0);
    let after_sending = (0..).find(|&at| walk.call_at(at) == Some(libc::SYS_sendmsg)).unwrap() + 1;
    let point = Point { boundaries: after_sending, instructions: 0 };
    let mut missed = 0;
    operation.point(&point.to_string(), || {
        while missed < 20 {
            let (child, _) = stage.new_child("packet");
            point.reach(child);
            child.kill();
            if stage.requester.answer()? != ending(Ended::Signal, 9) {
                return Err("not told as killed in its task".to_owned());
            }
            if std::fs::write("/proc/sys/kernel/ns_last_pid", (child.0 - 1).to_string()).is_err() {
                missed = 20;
                break;
            }
            // This one runs the first spare, and orders one that may get the free number and slot.
            stage.run_undisturbed("packet")?;
            let again = stage.spares.contains(&child);
            for _ in 0..SPARES {
                stage.run_undisturbed("packet")?;
            }
            if again {
                break;
            }
            missed += 1;
        }
        Ok(())
    });
    let details =
        if missed == 20 { "skipped: numbers cannot be chosen here" } else { "the number came again" };
    stage.end().unwrap();
    operation.finish(details) == 0
}

/// A requester whose zygote is seized, so that its children come to us before they run.
struct Stage {
    requester: Requester,
    zygote: Tracee,
    /// The spares, before their first instruction.
    spares: VecDeque<Tracee>,
}

impl Stage {
    fn begin() -> Stage {
        let mut requester = Requester::begin(Role::Requester);
        requester.undisturbed().unwrap();
        let zygote = Tracee::seize(requester.only_server(&[]).unwrap(), true).unwrap();
        // From its second start on a requester has a spare, from the third on two.
        let mut spares = VecDeque::new();
        for _ in 0..SPARES {
            requester.tell("run small free 0");
            spares.extend((0..2).map(|_| next_made(zygote)));
            spares.pop_front().into_iter().for_each(Tracee::release);
            assert!(requester.answer().unwrap().starts_with("ok "));
            requester.runs();
        }
        Stage { requester, zygote, spares }
    }

    /// After a failure.
    fn anew(self) -> Stage {
        self.requester.clear_away();
        Stage::begin()
    }

    fn end(&mut self) -> Result<(), String> {
        self.spares.drain(..).for_each(Tracee::release);
        self.requester.end()
    }

    /// A new child before its first instruction, its task on the way to it; the number of its run.
    fn new_child(&mut self, what: &str) -> (Tracee, u64) {
        let number = self.requester.next_number();
        self.requester.tell(&format!("run {what} free {number}"));
        if what == "direct" {
            return (next_made(self.zygote), number);
        }
        // The next one is ordered after this one got its task.
        self.spares.push_back(next_made(self.zygote));
        (self.spares.pop_front().unwrap(), number)
    }

    fn run_undisturbed(&mut self, what: &str) -> Result<(), String> {
        let (child, _) = self.new_child(what);
        child.release();
        match self.requester.answer()? {
            answer if answer.starts_with("ok ") => Ok(()),
            answer => Err(format!("the next child told {answer:?}")),
        }
    }

    fn walk(&mut self, what: &str, most_points: usize, most_steps: u64) -> (Vec<Point>, u32, Walk) {
        // What is done the first times only is not walked through: slots of the process table are used in turn, and get memory then.
        (0..20).for_each(|_| self.run_undisturbed(what).unwrap());
        let (child, _) = self.new_child(what);
        let walk = Walk::through(child, false, |call| call == libc::SYS_exit_group);
        child.release();
        assert!(self.requester.answer().unwrap().starts_with("ok "));
        self.requester.runs();
        let (points, stride) = walk.points(most_points, most_steps);
        (points, stride, walk)
    }

    fn kill_at(&mut self, what: &str, point: Point) -> Result<(), String> {
        let (child, number) = self.new_child(what);
        point.reach(child);
        let expected = told_if_killed_here(child)?;
        child.kill();
        let answer = self.requester.answer()?;
        if answer != expected {
            return Err(format!("it had come to {expected:?}, and was told as {answer:?}"));
        }
        self.check(number)
    }

    /// Killed when it has left its last instruction behind: what it left is the truth.
    fn kill_in_exit(&mut self, what: &str) -> Result<(), String> {
        let (child, number) = self.new_child(what);
        child.stop_at_exit();
        child.resume(Until::Event);
        while child.wait() != Stop::Exiting {
            child.resume(Until::Event);
        }
        child.kill();
        let answer = self.requester.answer()?;
        if !answer.starts_with("ok ") {
            return Err(format!("it had exited, and was told as {answer:?}"));
        }
        self.check(number)
    }

    /// After a killed child: nothing but its own task may have run, nobody is left, and the next start works.
    fn check(&mut self, number: u64) -> Result<(), String> {
        let runs = self.requester.runs();
        if ![number].starts_with(&runs) {
            return Err(format!("ran {runs:?}"));
        }
        self.requester.shares_nothing()?;
        let (next, number) = self.new_child("small");
        next.release();
        let (answer, runs) = (self.requester.answer()?, self.requester.runs());
        if !answer.starts_with("ok ") || runs != [number] {
            return Err(format!("the next start (number {number}) told {answer:?} and ran {runs:?}"));
        }
        let spares: Vec<i32> = self.spares.iter().map(|spare| spare.0).collect();
        self.requester.only_server(&spares).map(|_| ())
    }
}

/// What the zygote makes next.
fn next_made(zygote: Tracee) -> Tracee {
    loop {
        let stop = zygote.wait();
        assert_ne!(stop, Stop::Ended, "the zygote ended");
        zygote.ignore(stop);
        if let Stop::Made(child) = stop {
            let child = Tracee(child);
            assert_eq!(child.wait(), Stop::Interrupted);
            return child;
        }
    }
}

/// What the join has to tell of a child that is killed where it stands, by the state in its slot.
fn told_if_killed_here(child: Tracee) -> Result<String, String> {
    let number = child.0.unsigned_abs();
    let words = Board::of(child.0).ok_or("it has no board")?.words();
    let Some([state, _]) = words.into_iter().find(|[_, born]| *born == number) else {
        return Err(format!("it is in no slot: {words:?}"));
    };
    match state {
        1 | 7 => Ok(ending(Ended::BeforeTask, 9)),
        2 => Ok(ending(Ended::Signal, 9)),
        3 | 4 => Ok(ending(Ended::AfterTask, 9)),
        _ => Err(format!("its slot's state is {state}")),
    }
}
