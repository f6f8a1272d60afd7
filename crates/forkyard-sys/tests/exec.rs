//! Starting programs: what arrives in them, what a failure leaves behind.
#![allow(
    unsafe_code,
    clippy::unwrap_used,
    reason = "a test fails by a panic; each unsafe block has its own reason"
)]

use std::collections::BTreeSet;
use std::ffi::{CString, OsStr, OsString};
use std::fs::File;
use std::io::Read;
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use forkyard_sys::Errno;
use forkyard_sys::exec::{Mask, Plan, SpawnError, Spawned, Step, find_program, launch, replace, spawn};
use forkyard_sys::wait::{ExitStatus, reap};
use rustix::process::{Resource, Rlimit, geteuid, getrlimit, setrlimit};

/// One test at a time, because they count descriptors and children; and one that hangs is named.
struct Alone {
    _turn: MutexGuard<'static, ()>,
    _done: Sender<()>,
}

fn alone(name: &'static str) -> Alone {
    static TURN: Mutex<()> = Mutex::new(());
    let turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
    let (done, over) = channel::<()>();
    std::thread::spawn(move || {
        if over.recv_timeout(Duration::from_secs(60)) == Err(RecvTimeoutError::Timeout) {
            eprintln!("{name} hangs");
            std::process::abort();
        }
    });
    Alone { _turn: turn, _done: done }
}

fn c(text: impl AsRef<OsStr>) -> CString {
    CString::new(text.as_ref().as_bytes()).unwrap()
}

fn program<'fd>(arguments: &[&str]) -> Plan<'fd> {
    let path = std::env::var_os("PATH");
    let file = find_program(OsStr::new(arguments[0]), path.as_deref()).unwrap();
    Plan::new(file, arguments.iter().map(c).collect())
}

fn shell<'fd>(script: &str) -> Plan<'fd> {
    program(&["sh", "-c", script])
}

/// This test again, in a process of its own, with one variable more.
fn again<'fd>(test: &str, variable: &str) -> Plan<'fd> {
    let mut plan = Plan::new(c("/proc/self/exe"), ["me", "--exact", test, "--nocapture"].map(c).to_vec());
    let inherited = std::env::vars().map(|(name, value)| c(format!("{name}={value}")));
    plan.environment(inherited.chain([c(variable)]).collect());
    plan
}

fn finish(spawned: Spawned) -> ExitStatus {
    reap(spawned.pidfd.as_fd()).unwrap()
}

fn pipe() -> (OwnedFd, OwnedFd) {
    rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC).unwrap()
}

/// What the program writes.
fn output(plan: Plan<'_>) -> String {
    output_of(plan, |plan| spawn(&plan).unwrap())
}

/// The same of a launch.
fn output_of_launch(plan: Plan<'_>) -> String {
    output_of(plan, |plan| {
        let (spawned, launch) = launch(plan).unwrap();
        assert_eq!(launch.failure(), None);
        spawned
    })
}

fn output_of(plan: Plan<'_>, start: impl FnOnce(Plan<'_>) -> Spawned) -> String {
    let (read, write) = pipe();
    let mut plan = plan;
    plan.place(write.as_fd(), 1);
    let child = start(plan);
    drop(write);
    let mut text = String::new();
    File::from(read).read_to_string(&mut text).unwrap();
    let status = finish(child);
    assert!(status.success(), "{status}: {text}");
    text
}

fn open_descriptors() -> BTreeSet<i32> {
    let list = std::fs::read_dir("/proc/self/fd").unwrap();
    list.filter_map(|entry| entry.unwrap().file_name().to_str().unwrap().parse().ok()).collect()
}

/// Children of this process, zombies included.
fn children() -> Vec<String> {
    let own = std::process::id().to_string();
    let stat = |entry: std::fs::DirEntry| std::fs::read_to_string(entry.path().join("stat")).ok();
    let is_child = |stat: &String| {
        let after_name = stat.rsplit(')').next().unwrap_or_default();
        after_name.split_whitespace().nth(1) == Some(own.as_str())
    };
    std::fs::read_dir("/proc").unwrap().flatten().filter_map(stat).filter(is_child).collect()
}

/// Fails to start the plan, and asserts that nothing is left of the attempt.
fn failure(plan: &Plan<'_>) -> SpawnError {
    let (descriptors, zombies) = (open_descriptors(), children());
    let error = spawn(plan).unwrap_err();
    assert_eq!(open_descriptors(), descriptors);
    assert_eq!(children(), zombies);
    let launched = match launch(plan.clone()) {
        Ok((spawned, launch)) => {
            assert_eq!(finish(spawned).code(), Some(127));
            launch.failure().unwrap()
        }
        Err(error) => error,
    };
    assert_eq!(launched, error);
    assert_eq!(open_descriptors(), descriptors);
    assert_eq!(children(), zombies);
    error
}

#[test]
fn exit_code_and_signal_arrive() {
    let _alone = alone("exit_code_and_signal_arrive");
    assert_eq!(finish(spawn(&shell("exit 7")).unwrap()).code(), Some(7));
    assert_eq!(finish(spawn(&shell("kill -9 $$")).unwrap()).signal(), Some(9));
    assert!(finish(spawn(&shell("exit 0")).unwrap()).success());
}

#[test]
fn arguments_environment_and_directory_arrive() {
    let _alone = alone("arguments_environment_and_directory_arrive");
    let mut plan = program(&["sh", "-c", r#"echo "$0|$1|$FRUIT|$HOME|$(pwd)""#, "zero", "one two"]);
    plan.environment(vec![c("FRUIT=plum"), c("PATH=/usr/bin:/bin")]).directory(c("/"));
    assert_eq!(output(plan), "zero|one two|plum||/\n");
}

#[test]
fn own_image_can_be_started() {
    let _alone = alone("own_image_can_be_started");
    let plan = Plan::new(c("/proc/self/exe"), vec![c("me"), c("--list")]);
    assert!(output(plan).contains("own_image_can_be_started: test"));
}

#[test]
fn search_follows_path_and_tells_why_not() {
    let _alone = alone("search_follows_path_and_tells_why_not");
    let scratch = Scratch::new("search");
    let plain = scratch.0.join("plain");
    std::fs::write(&plain, "data").unwrap();
    let find = |name: &str| find_program(OsStr::new(name), Some(scratch.0.as_os_str()));
    assert_eq!(find("plain"), Err(Errno::ACCESS));
    assert_eq!(find("nothing"), Err(Errno::NOENT));
    assert_eq!(find(""), Err(Errno::NOENT));
    assert_eq!(find("a/b"), Ok(c("a/b")));
    std::fs::set_permissions(&plain, std::fs::Permissions::from_mode(0o755)).unwrap();
    assert_eq!(find("plain"), Ok(c(&plain)));
    let several = OsString::from(format!("/nonexistent::{}", scratch.0.to_str().unwrap()));
    assert_eq!(find_program(OsStr::new("plain"), Some(&several)), Ok(c(&plain)));
    assert!(find_program(OsStr::new("sh"), None).is_ok());
}

#[test]
fn failed_exec_tells_errno_and_leaves_nothing() {
    let _alone = alone("failed_exec_tells_errno_and_leaves_nothing");
    let exec_failed = |errno| SpawnError { step: Step::Exec, errno };
    let missing = failure(&Plan::new(c("/nonexistent"), vec![c("x")]));
    assert_eq!(missing, exec_failed(Errno::NOENT));
    assert!(missing.to_string().starts_with("execute the program: No such file"), "{missing}");
    assert_eq!(failure(&Plan::new(c("/tmp"), vec![c("x")])), exec_failed(Errno::ACCESS));
    let huge = c("x".repeat(8 << 20));
    assert_eq!(failure(&Plan::new(c("/bin/true"), vec![c("x"), huge])), exec_failed(Errno::TOOBIG));
}

#[test]
fn every_step_is_named_when_it_fails() {
    let _alone = alone("every_step_is_named_when_it_fails");
    let step = |change: &dyn Fn(&mut Plan<'_>)| {
        let mut plan = shell("exit 0");
        change(&mut plan);
        failure(&plan).step
    };
    assert_eq!(step(&|plan| _ = plan.process_group(i32::MAX)), Step::ProcessGroup);
    assert_eq!(step(&|plan| _ = plan.limit(999, 1, 1)), Step::Limits);
    assert_eq!(step(&|plan| _ = plan.limit(libc::RLIMIT_NOFILE, 2, 1)), Step::Limits);
    assert_eq!(step(&|plan| _ = plan.directory(c("/nonexistent"))), Step::Directory);
    assert_eq!(step(&|plan| _ = plan.parent_death_signal(999)), Step::ParentDeath);
    let (read, _write) = pipe();
    let mut plan = shell("exit 0");
    plan.place(read.as_fd(), 5).place(read.as_fd(), 5);
    assert_eq!(failure(&plan), SpawnError { step: Step::Descriptors, errno: Errno::INVAL });
    let mut plan = shell("exit 0");
    plan.place(read.as_fd(), i32::MAX);
    assert_eq!(failure(&plan), SpawnError { step: Step::Descriptors, errno: Errno::BADF });
}

#[test]
fn session_umask_limits_and_privileges_are_set() {
    let _alone = alone("session_umask_limits_and_privileges_are_set");
    let mut plan = shell("umask; ulimit -n; cat /proc/self/stat; grep NoNewPrivs /proc/self/status");
    plan.new_session().umask(0o27).limit(libc::RLIMIT_NOFILE, 77, 99).no_new_privileges();
    let text = output(plan);
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!(lines[..2], ["0027", "77"]);
    // pid (name) state parent group session …: cat's group and session are those of its parent, the shell.
    let fields: Vec<&str> = lines[2].split(' ').collect();
    assert_eq!((fields[4], fields[5]), (fields[3], fields[3]));
    assert_eq!(lines[3], "NoNewPrivs:\t1");
}

#[test]
fn rights_are_dropped_in_the_child_only() {
    let _alone = alone("rights_are_dropped_in_the_child_only");
    if !geteuid().is_root() {
        return println!("skipped: only root may change ids");
    }
    let mut plan = shell("id -u; id -g; id -G");
    plan.groups(vec![4321, 4322]).gid(4321).uid(1234).directory(c("/"));
    assert_eq!(output(plan), "1234\n4321\n4321 4322\n");
    assert!(geteuid().is_root());
}

/// The descriptors that a program sees in itself, without the one it opens to look.
fn descriptors_of(mut plan: Plan<'_>) -> BTreeSet<i32> {
    plan.directory(c("/"));
    let text = output(plan);
    text.split_whitespace().map(|number| number.parse().unwrap()).collect()
}

fn lister<'fd>() -> Plan<'fd> {
    // The shell expands the pattern itself and has closed the directory when it prints.
    shell("for fd in /proc/$$/fd/*; do if [ -e $fd ]; then echo ${fd##*/}; fi; done")
}

/// A descriptor under this number that is not close-on-exec, as careless host programs have them.
fn careless(number: i32) -> OwnedFd {
    // SAFETY: the number is free, and the test owns what it becomes.
    unsafe {
        assert_eq!(libc::dup2(2, number), number);
        OwnedFd::from_raw_fd(number)
    }
}

#[test]
fn only_listed_descriptors_reach_the_program() {
    let _alone = alone("only_listed_descriptors_reach_the_program");
    let open = [careless(200), careless(201), careless(1000)];
    assert_eq!(descriptors_of(lister()), BTreeSet::from([0, 1, 2]));
    let mut plan = lister();
    plan.keep(open[1].as_fd()).place(open[2].as_fd(), 7);
    assert_eq!(descriptors_of(plan), BTreeSet::from([0, 1, 2, 7, 201]));
    let mut plan = lister();
    plan.keep_all();
    assert!(descriptors_of(plan).is_superset(&BTreeSet::from([200, 201, 1000])));
    // What is kept loses its close-on-exec flag in the child and not here.
    let (read, _write) = pipe();
    let mut plan = lister();
    plan.keep(read.as_fd());
    assert_eq!(descriptors_of(plan), BTreeSet::from([0, 1, 2, read.as_raw_fd()]));
    assert!(rustix::io::fcntl_getfd(&read).unwrap().contains(rustix::io::FdFlags::CLOEXEC));
}

#[test]
fn without_close_range_the_list_holds_too() {
    let _alone = alone("without_close_range_the_list_holds_too");
    for test in ["only_listed_descriptors_reach_the_program", "overlapping_targets_arrive_right"] {
        let text = output(again(test, "FORKYARD_TEST_FALLBACK=close-range"));
        assert!(text.contains("1 passed"), "{text}");
    }
}

#[test]
fn overlapping_targets_arrive_right() {
    let _alone = alone("overlapping_targets_arrive_right");
    let scratch = Scratch::new("overlap");
    let file = |name: &str| {
        std::fs::write(scratch.0.join(name), name).unwrap();
        File::open(scratch.0.join(name)).unwrap()
    };
    let cat = |numbers: [i32; 3]| {
        program(&["bash", "-c", &numbers.map(|n| format!("[ -e /dev/fd/{n} ] && cat <&{n}; ")).concat()])
    };
    // A ring: a under b's number, b under c's, c under a's.
    let files = [file("a"), file("b"), file("c")];
    let numbers = files.each_ref().map(|file| file.as_raw_fd());
    let mut plan = cat(numbers);
    for (source, target) in [(0, 1), (1, 2), (2, 0)] {
        plan.place(files[source].as_fd(), numbers[target]);
    }
    assert_eq!(output(plan), "cab");
    // One onto itself, one in the place of another, and that one elsewhere.
    let files = [file("a"), file("b"), file("c")];
    let numbers = files.each_ref().map(|file| file.as_raw_fd());
    let mut plan = cat([numbers[0], numbers[2], 50]);
    plan.place(files[0].as_fd(), numbers[0]).place(files[1].as_fd(), numbers[2]);
    plan.place(files[2].as_fd(), 50);
    assert_eq!(output(plan), "abc");
}

#[test]
fn at_the_descriptor_limit_nothing_is_left() {
    let _alone = alone("at_the_descriptor_limit_nothing_is_left");
    let plan = shell("exit 0");
    let before = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, Rlimit { current: Some(64), ..before }).unwrap();
    let mut hoard = Vec::new();
    while let Ok(fd) = std::io::stdin().as_fd().try_clone_to_owned() {
        hoard.push(fd);
    }
    let refused = spawn(&plan).unwrap_err();
    drop(hoard);
    setrlimit(Resource::Nofile, before).unwrap();
    assert_eq!(refused, SpawnError { step: Step::Clone, errno: Errno::MFILE });
    assert!(children().is_empty());
    assert!(finish(spawn(&plan).unwrap()).success());
}

#[test]
fn at_the_process_limit_nothing_is_left() {
    let name = "at_the_process_limit_nothing_is_left";
    let _alone = alone(name);
    if std::env::var_os("AT_PROCESS_LIMIT").is_some() {
        let now = Rlimit { current: Some(1), maximum: Some(1) };
        setrlimit(Resource::Nproc, now).unwrap();
        let error = failure(&shell("exit 0"));
        return assert_eq!(error, SpawnError { step: Step::Clone, errno: Errno::AGAIN });
    }
    if !geteuid().is_root() {
        return println!("skipped: needs a user id of its own, so root");
    }
    // Root has no such limit: run it as somebody, from a place where anybody may run it.
    let scratch = Scratch::new("limit");
    let image = scratch.0.join("image");
    std::fs::copy("/proc/self/exe", &image).unwrap();
    let mut plan = Plan::new(c(&image), ["me", "--exact", name, "--nocapture"].map(c).to_vec());
    plan.environment(vec![c("AT_PROCESS_LIMIT=1"), c("PATH=/usr/bin:/bin")]).uid(48_211).directory(c("/"));
    assert!(output(plan).contains("1 passed"));
}

#[test]
fn callers_memory_is_not_copied() {
    let _alone = alone("callers_memory_is_not_copied");
    let mut memory = vec![0_u8; 2 << 30];
    memory.iter_mut().step_by(4096).for_each(|byte| *byte = 1);
    for _ in 0..20 {
        assert!(finish(spawn(&shell("exit 0")).unwrap()).success());
    }
    assert!(memory.iter().step_by(4096).all(|byte| *byte == 1));
}

#[test]
fn threads_and_their_locks_do_not_matter() {
    let _alone = alone("threads_and_their_locks_do_not_matter");
    let stop = AtomicBool::new(false);
    let allocate = || {
        while !stop.load(Ordering::Relaxed) {
            std::hint::black_box(vec![0_u8; 100_000]);
            std::thread::yield_now();
        }
    };
    let start = |code: i32| {
        for _ in 0..25 {
            let child = spawn(&shell(&format!("exit {code}"))).unwrap();
            assert_eq!(finish(child).code(), Some(code));
            let missing = Plan::new(c("/nonexistent"), vec![]);
            assert_eq!(spawn(&missing).unwrap_err().errno, Errno::NOENT);
        }
    };
    std::thread::scope(|scope| {
        let busy: Vec<_> = (0..32).map(|_| scope.spawn(allocate)).collect();
        let starters: Vec<_> = (0..4).map(|code| scope.spawn(move || start(code))).collect();
        let results: Vec<_> = starters.into_iter().map(|starter| starter.join()).collect();
        stop.store(true, Ordering::Relaxed);
        assert!(results.iter().all(|result| result.is_ok()));
        assert_eq!(busy.len(), 32);
    });
    assert!(children().is_empty());
}

#[test]
fn signals_arrive_in_their_default_state() {
    let _alone = alone("signals_arrive_in_their_default_state");
    extern "C" fn handler(_: i32) {}
    let handler = handler as extern "C" fn(i32) as libc::sighandler_t;
    let mut plan = program(&["cat", "/proc/self/status"]);
    plan.signal_mask(Mask::Set(1 << (libc::SIGHUP - 1)));
    // SAFETY: the handler does nothing, and the dispositions are put back.
    let before =
        unsafe { [libc::signal(libc::SIGUSR1, handler), libc::signal(libc::SIGUSR2, libc::SIG_IGN)] };
    let texts = [output(plan.clone()), output_of_launch(plan)];
    // SAFETY: as above.
    unsafe { [libc::signal(libc::SIGUSR1, before[0]), libc::signal(libc::SIGUSR2, before[1])] };
    for text in texts {
        let set = |name: &str| {
            let line = text.lines().find(|line| line.starts_with(name)).unwrap();
            u64::from_str_radix(line.split_whitespace().nth(1).unwrap(), 16).unwrap()
        };
        assert_eq!(set("SigBlk"), 1 << (libc::SIGHUP - 1));
        assert_eq!(set("SigCgt"), 0);
        assert_ne!(set("SigIgn") & (1 << (libc::SIGUSR2 - 1)), 0);
        assert_eq!(set("SigIgn") & (1 << (libc::SIGPIPE - 1)), 0);
    }
}

#[test]
fn the_callers_mask_is_back_after_a_start() {
    let _alone = alone("the_callers_mask_is_back_after_a_start");
    let blocked = || {
        let status = std::fs::read_to_string("/proc/thread-self/status").unwrap();
        status.lines().find(|line| line.starts_with("SigBlk")).unwrap().to_owned()
    };
    let before = blocked();
    assert!(finish(spawn(&shell("exit 0")).unwrap()).success());
    assert_eq!(blocked(), before);
    failure(&Plan::new(c("/nonexistent"), vec![]));
    assert_eq!(blocked(), before);
}

#[test]
fn program_dies_with_the_thread_that_started_it() {
    let _alone = alone("program_dies_with_the_thread_that_started_it");
    let start = || spawn(shell("exec sleep 1000").parent_death_signal(libc::SIGTERM)).unwrap();
    let child = std::thread::spawn(start).join().unwrap();
    assert_eq!(finish(child).signal(), Some(libc::SIGTERM));
}

#[test]
fn replace_keeps_the_pid_and_fails_softly() {
    let name = "replace_keeps_the_pid_and_fails_softly";
    let _alone = alone(name);
    if std::env::var_os("REPLACE").is_some() {
        let error = replace(&Plan::new(c("/nonexistent"), vec![]));
        assert_eq!(error, SpawnError { step: Step::Exec, errno: Errno::NOENT });
        // SAFETY: asks for what Rust's runtime made it, by setting it to that.
        assert_eq!(unsafe { libc::signal(libc::SIGPIPE, libc::SIG_IGN) }, libc::SIG_IGN);
        panic!("{}", replace(&shell("echo replaced $$")));
    }
    let (read, write) = pipe();
    let mut plan = again(name, "REPLACE=1");
    let child = spawn(plan.place(write.as_fd(), 1)).unwrap();
    drop(write);
    let mut text = String::new();
    File::from(read).read_to_string(&mut text).unwrap();
    assert!(text.contains(&format!("replaced {}\n", child.pid.as_raw_nonzero())), "{text}");
    assert!(finish(child).success());
}

#[test]
fn many_starts_leave_nothing() {
    let _alone = alone("many_starts_leave_nothing");
    let mappings = || std::fs::read_to_string("/proc/self/maps").unwrap().lines().count();
    assert!(finish(spawn(&program(&["true"])).unwrap()).success());
    let before = (open_descriptors(), mappings());
    for _ in 0..200 {
        assert!(finish(spawn(&program(&["true"])).unwrap()).success());
    }
    assert_eq!(open_descriptors(), before.0);
    assert!(mappings() < before.1 + 20, "the stacks are unmapped");
    assert!(children().is_empty());
}

#[test]
fn many_launches_run_beside_each_other_and_leave_nothing() {
    let _alone = alone("many_launches_run_beside_each_other_and_leave_nothing");
    let mappings = || std::fs::read_to_string("/proc/self/maps").unwrap().lines().count();
    let before = (open_descriptors(), mappings());
    for _ in 0..4 {
        let started: Vec<_> = (0..50).map(|_| launch(program(&["true"])).unwrap()).collect();
        for (spawned, launch) in started {
            assert!(finish(spawned).success());
            assert!(launch.is_over());
        }
    }
    assert_eq!(open_descriptors(), before.0);
    assert!(mappings() < before.1 + 80, "the stacks are used again");
    assert!(children().is_empty());
}

#[test]
fn a_launch_leaves_the_callers_errno_alone() {
    let _alone = alone("a_launch_leaves_the_callers_errno_alone");
    for _ in 0..100 {
        let (spawned, launch) = launch(Plan::new(c("/nonexistent"), vec![])).unwrap();
        loop {
            let over = launch.is_over();
            // SAFETY: closes nothing.
            assert_eq!(unsafe { libc::close(-1) }, -1);
            assert_eq!(std::io::Error::last_os_error().raw_os_error(), Some(libc::EBADF));
            if over {
                break;
            }
        }
        assert_eq!(finish(spawned).code(), Some(127));
        assert_eq!(launch.failure(), Some(SpawnError { step: Step::Exec, errno: Errno::NOENT }));
    }
}

#[test]
fn a_launch_that_is_killed_on_its_way_is_over() {
    let _alone = alone("a_launch_that_is_killed_on_its_way_is_over");
    for _ in 0..100 {
        let (spawned, launch) = launch(program(&["sleep", "1000"])).unwrap();
        rustix::process::kill_process(spawned.pid, rustix::process::Signal::KILL).unwrap();
        assert_eq!(launch.failure(), None);
        assert_eq!(finish(spawned).signal(), Some(libc::SIGKILL));
    }
}

/// A directory of this test's own, gone at its end.
struct Scratch(PathBuf);

impl Scratch {
    fn new(name: &str) -> Scratch {
        let path = std::env::temp_dir().join(format!("forkyard-exec-{name}-{}", std::process::id()));
        std::fs::create_dir(&path).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
        Scratch(path)
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _already_gone = std::fs::remove_dir_all(&self.0);
    }
}
