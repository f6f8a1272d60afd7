//! The zygote is killed while it answers: the start goes on, exactly one child runs, and another zygote comes.

use crate::points::{Point, Walk};
use crate::report::Operation;
use crate::requester::{Requester, Role, SPARES};
use crate::trace::Tracee;

/// It makes the spare for the next start; this start has one.
pub(crate) fn making_the_next_spare() -> bool {
    Case::new("zygote killed while it makes the next spare", Role::Requester).kill_everywhere(200, 60_000)
        == 0
}

/// It makes a child for a start that has no spare, and the next spares.
pub(crate) fn making_two() -> bool {
    let case = Case::new("zygote killed while it makes a child and spares", Role::Requester);
    Case { fresh: true, answers: 1 + SPARES, ..case }.kill_everywhere(200, 60_000) == 0
}

/// It makes a child that has its task at once.
pub(crate) fn making_a_child() -> bool {
    let case = Case::new("zygote killed while it makes a child with its task", Role::Requester);
    Case { what: "direct", ..case }.kill_everywhere(300, 100_000) == 0
}

/// The host program ignores SIGCHLD, so the kernel keeps nothing of those that have ended.
pub(crate) fn without_statuses() -> bool {
    let case = Case::new("the same, SIGCHLD ignored", Role::Requester);
    let case = Case { what: "direct", before: &["ignore-sigchld"], may_lose_status: true, ..case };
    case.kill_everywhere(60, 20_000) == 0
}

/// How an error tells of that.
const LOST_STATUS: &str = "somebody else took its status";

/// A server that is killed while it answers a start.
pub(crate) struct Case {
    name: &'static str,
    role: Role,
    /// What it starts.
    what: &'static str,
    /// What the requester is told first.
    before: &'static [&'static str],
    /// Each server is killed at its first start; else there was one before.
    fresh: bool,
    /// How often it answers in one start.
    answers: usize,
    /// A start may fail because nobody can tell how its child ended, which has run then.
    may_lose_status: bool,
}

impl Case {
    pub(crate) fn new(name: &'static str, role: Role) -> Case {
        Case { name, role, what: "small", before: &[], fresh: false, answers: 1, may_lose_status: false }
    }

    /// Kills it at each point; how many went wrong.
    pub(crate) fn kill_everywhere(&self, most_points: usize, most_steps: u64) -> usize {
        let mut operation = match self.role {
            Role::Requester => Operation::new(self.name),
            Role::NaiveRequester => Operation::control(self.name),
        };
        let mut requester = self.begin();
        let walk = self.walk(&mut requester);
        let (points, stride) = walk.points(most_points, most_steps);
        let mut descriptors = requester.descriptors();
        for point in points {
            if !operation.point(&point.to_string(), || self.kill_at(&mut requester, point)) {
                requester.clear_away();
                requester = self.begin();
                descriptors = requester.descriptors();
            }
        }
        operation.point("not at all", || {
            requester.has_no_more_than(descriptors)?;
            requester.end()
        });
        operation.finish(&walk.details(stride))
    }

    /// A requester that has started processes before.
    fn begin(&self) -> Requester {
        let mut requester = Requester::begin(self.role);
        self.before.iter().for_each(|command| assert_eq!(requester.ask(command).as_deref(), Ok("ok")));
        requester.undisturbed().unwrap();
        requester.undisturbed().unwrap();
        self.make_ready(&mut requester).unwrap();
        requester
    }

    /// Brings the requester to where a start shall begin.
    fn make_ready(&self, requester: &mut Requester) -> Result<i32, String> {
        let server = requester.only_server(&[])?;
        if self.fresh {
            seize(server)?.kill();
        }
        requester.only_server(&[])
    }

    /// What a server does from its waiting to its waiting after the start.
    fn walk(&self, requester: &mut Requester) -> Walk {
        let server = seize(requester.only_server(&[]).unwrap()).unwrap();
        server.interrupt();
        let number = requester.next_number();
        requester.tell(&format!("run {} free {number}", self.what));
        let mut waits = 0;
        let walk = Walk::through(server, true, |call| {
            waits += usize::from(call == self.role.server_waits_in());
            waits == self.answers + 1
        });
        server.release();
        let answer = requester.answer().unwrap();
        assert!(self.is_right(&answer), "start {number} told {answer:?}");
        assert_eq!(requester.runs(), [number]);
        self.make_ready(requester).unwrap();
        walk
    }

    /// True if this is the answer to a start of which one child came.
    fn is_right(&self, answer: &str) -> bool {
        answer.starts_with("ok ") || self.may_lose_status && answer.contains(LOST_STATUS)
    }

    fn kill_at(&self, requester: &mut Requester, point: Point) -> Result<(), String> {
        let server = seize(requester.only_server(&[])?)?;
        server.interrupt();
        let number = requester.next_number();
        requester.tell(&format!("run {} free {number}", self.what));
        point.reach(server);
        server.kill();
        let answer = requester.answer()?;
        // A naive one is replaced when it is needed.
        if self.role == Role::Requester {
            requester.only_server(&[])?;
        }
        let runs = requester.runs();
        if runs != [number] || !self.is_right(&answer) {
            return Err(format!("start {number} told {answer:?} and ran {runs:?}"));
        }
        requester.undisturbed()?;
        self.make_ready(requester).map(|_| ())
    }
}

fn seize(server: i32) -> Result<Tracee, String> {
    Tracee::seize(server, false).map_err(|error| format!("seize {server}: {error}"))
}
