//! What the tests of processes share: a process of one's own for each test, deadlines, and leak checks.
#![allow(dead_code, reason = "each test binary uses its own part")]

pub(crate) mod random;
pub(crate) mod waiters;

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use forkyard::process::{Builder, Start};

/// How long a test may take before it counts as hung.
pub(crate) const DEADLINE: Duration = Duration::from_secs(60);

/// Each way to start a process.
pub(crate) const METHODS: [Start; 3] = [Start::Zygote, Start::Spawn, Start::Fork];

/// A builder for this way.
pub(crate) fn builder(start: Start) -> Builder {
    Builder::new().start(start)
}

/// Runs the test's body in a fresh process, which has one thread and no children, with a deadline; afterwards nothing
/// that the body started may be left.
pub(crate) fn isolated(body: forkyard::Task<fn()>) {
    isolated_for(body, DEADLINE);
}

/// The same with another deadline.
pub(crate) fn isolated_for(body: forkyard::Task<fn()>, deadline: Duration) {
    let child = Builder::new().name("isolated").start(Start::Spawn).spawn(body, ()).unwrap();
    match child.join_timeout(deadline) {
        Ok(()) => {}
        Err(error) if error.is_timeout() => {
            let stacks = stacks(child.pid().as_raw_nonzero().get());
            kill_tree(child.pid().as_raw_nonzero().get());
            child.kill().unwrap();
            panic!("{} hung for {deadline:?}; its threads wait in {stacks}", body.name());
        }
        Err(error) => panic!("{}: {error:?}", body.name()),
    }
}

/// Runs a test that measures its family's memory in a family of its own: the test binary, run again.
pub(crate) fn alone(body: forkyard::Task<fn()>) {
    alone_for(body, DEADLINE);
}

/// The same with another deadline.
pub(crate) fn alone_for(body: forkyard::Task<fn()>, deadline: Duration) {
    const INSIDE: &str = "FORKYARD_TEST_IN_A_FAMILY_OF_ITS_OWN";
    if std::env::var_os(INSIDE).is_some() {
        return isolated_for(body, deadline);
    }
    let name = std::thread::current().name().unwrap().to_owned();
    let mut program = std::process::Command::new(std::env::current_exe().unwrap());
    let inside = program.args(["--exact", &name, "--nocapture"]).env(INSIDE, "1").output().unwrap();
    assert!(inside.status.success(), "{}", String::from_utf8_lossy(&inside.stderr));
    print!("{}", String::from_utf8_lossy(&inside.stdout));
}

fn stacks(pid: i32) -> String {
    let tasks = std::fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten();
    let waits = tasks.map(|task| std::fs::read_to_string(task.path().join("syscall")).unwrap_or_default());
    waits.collect::<Vec<_>>().join("; ")
}

/// Waits until the condition holds, and fails with `what` if it does not within the deadline.
pub(crate) fn eventually(what: &str, mut condition: impl FnMut() -> bool) {
    let end = Instant::now() + DEADLINE;
    while !condition() {
        assert!(Instant::now() < end, "never happened: {what}");
        std::thread::yield_now();
    }
}

/// Numbers of all children of this process, zombies included, whoever made them.
pub(crate) fn children_of(pid: i32) -> BTreeSet<i32> {
    let tasks = std::fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten();
    let lists = tasks.map(|task| std::fs::read_to_string(task.path().join("children")).unwrap_or_default());
    lists
        .flat_map(|list| list.split_whitespace().filter_map(|pid| pid.parse().ok()).collect::<Vec<_>>())
        .collect()
}

/// The one-letter state of a process, `None` if there is none: R, S, D, T, Z, …
pub(crate) fn state_of(pid: i32) -> Option<char> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    stat.rsplit(')').next()?.trim().chars().next()
}

/// True if there is no such process, or only what remains of one.
pub(crate) fn is_gone(pid: i32) -> bool {
    matches!(state_of(pid), None | Some('Z' | 'X'))
}

/// Open descriptors of this process.
pub(crate) fn open_fds() -> BTreeSet<i32> {
    let list = std::fs::read_dir("/proc/self/fd").unwrap();
    let numbers =
        list.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok()).collect::<Vec<i32>>();
    // The descriptor of the listing itself is closed by now.
    numbers.into_iter().filter(|fd| std::fs::read_link(format!("/proc/self/fd/{fd}")).is_ok()).collect()
}

/// True if the first thread of this process sleeps on a futex.
pub(crate) fn sleeps(pid: i32) -> bool {
    thread_sleeps(pid, pid)
}

/// True if this thread of the process sleeps on a futex.
pub(crate) fn thread_sleeps(pid: i32, thread: i32) -> bool {
    let calls = [libc::SYS_futex, 449];
    let text = std::fs::read_to_string(format!("/proc/{pid}/task/{thread}/syscall")).unwrap_or_default();
    let call = text.split(' ').next().and_then(|number| number.parse().ok());
    call.is_some_and(|call: libc::c_long| calls.contains(&call))
}

/// This process's own number.
pub(crate) fn own_pid() -> i32 {
    i32::try_from(std::process::id()).unwrap()
}

/// The zygote among this process's children: of its name, and not a copy of another process.
pub(crate) fn zygote() -> Option<i32> {
    zygote_of(own_pid())
}

/// The same of another process.
pub(crate) fn zygote_of(parent: i32) -> Option<i32> {
    const PF_FORKNOEXEC: u64 = 0x40;
    children_of(parent).into_iter().find(|pid| {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        let Some((head, tail)) = stat.rsplit_once(')') else { return false };
        let flags: u64 =
            tail.split_whitespace().nth(6).and_then(|flags| flags.parse().ok()).unwrap_or(PF_FORKNOEXEC);
        head.ends_with("(forkyard-zygote") && flags & PF_FORKNOEXEC == 0
    })
}

/// Kills all descendants, so that a test that failed leaves nothing behind.
pub(crate) fn kill_tree(pid: i32) {
    for child in children_of(pid) {
        kill(child, 19);
        kill_tree(child);
        kill(child, 9);
    }
}

/// Ends this process as SIGKILL does.
pub(crate) fn kill_self() -> ! {
    kill(own_pid(), 9);
    loop {
        std::thread::park();
    }
}

/// Sends a signal by number; the process must be a child of this one and unreaped.
pub(crate) fn kill(pid: i32, signal: i32) {
    let pid = forkyard::process::Pid::from_raw(pid).unwrap();
    let pidfd = forkyard_sys::pidfd::open(pid).unwrap();
    use std::os::fd::AsFd;
    forkyard_sys::pidfd::send_signal(pidfd.as_fd(), signal).unwrap();
}

/// Chance, from a seed that is not zero (xorshift, Marsaglia 2003).
pub(crate) struct Dice(pub(crate) u64);

impl Dice {
    pub(crate) fn roll(&mut self, sides: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % sides
    }
}
