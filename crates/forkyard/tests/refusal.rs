//! A start that fails says why, with the errno and the limit it met, leaves nothing behind, and the next one works.
//!
//! Each limit is raised step by step from where nothing fits to where the start succeeds, each time in a fresh
//! process, so that every step of a start meets it once.

#![allow(
    unsafe_code,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test fails by a panic; each unsafe block has its own reason"
)]

mod common;

use std::cell::RefCell;
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};

use common::{METHODS, children_of, isolated, open_fds, own_pid, zygote};
use forkyard::process::{self, Builder, Fd, Start};
use forkyard_sys::limits::{self, Resource};
use forkyard_sys::{Errno, memfd};
use serde::{Deserialize, Serialize};

#[forkyard::task]
fn add(a: u64, b: u64) -> u64 {
    a + b
}

#[forkyard::task]
fn lengths(fds: Vec<Fd>, text: String) -> (usize, usize) {
    (fds.len(), text.len())
}

/// How one start went, and what there was after it and after another without the limit.
#[derive(Debug, Serialize, Deserialize)]
struct Seen {
    /// Errno, if any, and text.
    error: Option<(Option<i32>, String)>,
    limit: u64,
    fds: usize,
    threads: usize,
    children: usize,
}

fn builder(start: u32, daemon: bool) -> Builder {
    Builder::new().start(METHODS[start as usize]).daemon(daemon)
}

/// How often a refused start is tried again: a leak of each time shows among what comes and goes.
const TRIES: usize = 4;
/// Each of two spares that wait for the next starts has two descriptors here, and may not be there yet.
const SPARE_FDS: usize = 4;

/// Limits this process in `resource` while it starts something; then starts again, freely.
fn limited(resource: &str, soft: Option<u64>, start: impl Fn() -> forkyard::Result<()>) -> Seen {
    let resource = Resource::from_name(resource).unwrap();
    let (before, hard) = resource.get().unwrap();
    if soft.is_some() {
        resource.set(soft, hard).unwrap();
    }
    refused(soft, start, || resource.set(before, hard).unwrap())
}

/// Starts something under a limit; then again, when the limit has been lifted.
fn refused(limit: Option<u64>, start: impl Fn() -> forkyard::Result<()>, lift: impl FnOnce()) -> Seen {
    let result = start();
    if result.is_err() {
        (1..TRIES).for_each(|_| drop(start()));
    }
    lift();
    start().unwrap();
    // The keeper may hold a child for a moment longer.
    common::eventually("no descriptor of an ended process is left", || dead_pidfds() == 0);
    let zygote = zygote();
    let left =
        children_of(own_pid()).into_iter().filter(|&pid| Some(pid) != zygote && !is_spare(pid)).count();
    assert!(process::children().is_empty());
    Seen {
        limit: limit.unwrap_or_default(),
        error: result.err().map(|error| (error.errno().map(Errno::raw_os_error), error.to_string())),
        fds: open_fds().len(),
        threads: std::fs::read_dir("/proc/self/task").unwrap().count(),
        children: left,
    }
}

/// True for a copy of the zygote that waits for a task.
fn is_spare(pid: i32) -> bool {
    let comm = std::fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
    matches!(comm.trim_end(), "forkyard-spare" | "forkyard-zygote")
}

/// Descriptors of processes that are no more: proc_pid_fdinfo(5).
fn dead_pidfds() -> usize {
    let fds = open_fds().into_iter();
    let infos = fds.map(|fd| std::fs::read_to_string(format!("/proc/self/fdinfo/{fd}")).unwrap_or_default());
    infos.filter(|info| info.lines().any(|line| line.split_whitespace().eq(["Pid:", "-1"]))).count()
}

/// Checks that this attempt left no more than a free one, and failed with this errno, naming the limit and its value.
fn check(what: &str, seen: &Seen, free: &Seen, errno: Errno, limit: &str) {
    let Some((told, message)) = &seen.error else { return };
    let text = format!("{limit} {}", seen.limit);
    assert_eq!(*told, Some(errno.raw_os_error()), "{what}: {message}");
    assert!(message.contains(&text), "{what}: the limit and its value, {text}, are not named: {message}");
    nothing_left(what, seen, free);
}

fn nothing_left(what: &str, seen: &Seen, free: &Seen) {
    assert_eq!(seen.children, 0, "{what}: {seen:?}");
    assert!(seen.fds <= free.fds + SPARE_FDS, "{what}: {seen:?}, where a free start leaves {free:?}");
    assert!(seen.threads <= free.threads, "{what}: {seen:?}, where a free start leaves {free:?}");
}

/// The lowest descriptor that is free.
fn lowest_free() -> u64 {
    let probe = memfd::holding("probe", b"").unwrap();
    u64::try_from(probe.as_raw_fd()).unwrap()
}

fn start_and_join(start: u32, daemon: bool) -> forkyard::Result<()> {
    assert_eq!(builder(start, daemon).spawn(add, (20, 22))?.join()?, 42);
    Ok(())
}

#[forkyard::task]
fn first_start_with_few_descriptors(start: u32, daemon: bool, spare: Option<u64>) -> Seen {
    limited("nofile", spare.map(|spare| lowest_free() + spare), || start_and_join(start, daemon))
}

#[forkyard::task]
fn emfile_at_the_first_start() {
    let first = lowest_free();
    for start in 0..3 {
        for daemon in [false, true] {
            let probe = |spare| {
                let task = Builder::new().start(Start::Spawn);
                task.spawn(first_start_with_few_descriptors, (start, daemon, spare)).unwrap().join().unwrap()
            };
            let free = probe(None);
            let mut refused = 0;
            for spare in 0.. {
                let seen = probe(Some(spare));
                if seen.error.is_none() {
                    break;
                }
                refused += 1;
                let what =
                    format!("{:?}, daemon {daemon}, {spare} descriptors left", METHODS[start as usize]);
                check(&what, &seen, &free, Errno::MFILE, "RLIMIT_NOFILE");
            }
            assert!((5..40).contains(&refused), "{refused} limits, from {first} up");
        }
    }
}

#[test]
fn a_first_start_without_descriptors_leaves_nothing_behind() {
    isolated(emfile_at_the_first_start);
}

#[forkyard::task]
fn emfile_at_a_later_start() {
    let (long, directory) = ("x".repeat(100_000), std::env::current_dir().unwrap());
    for start in 0..3 {
        for daemon in [false, true] {
            start_and_join(start, daemon).unwrap();
            start_and_join(0, daemon).unwrap();
            // All that may need a descriptor: descriptors among the arguments, long arguments, another directory.
            std::env::set_current_dir("/").unwrap();
            let free = attempt(start, daemon, &long, None);
            let mut refused = 0;
            for spare in 0.. {
                let seen = attempt(start, daemon, &long, Some(lowest_free_beside_arguments() + spare));
                if seen.error.is_none() {
                    break;
                }
                refused += 1;
                let what =
                    format!("{:?}, daemon {daemon}, {spare} descriptors left", METHODS[start as usize]);
                check(&what, &seen, &free, Errno::MFILE, "RLIMIT_NOFILE");
            }
            std::env::set_current_dir(&directory).unwrap();
            assert!((3..40).contains(&refused), "{refused} limits");
        }
    }
}

/// A start with descriptors and a long text among its arguments.
fn attempt(start: u32, daemon: bool, long: &str, limit: Option<u64>) -> Seen {
    let arguments = RefCell::new(files());
    limited("nofile", limit, || {
        let fds = arguments.borrow_mut().pop().unwrap();
        let child = builder(start, daemon).spawn(lengths, (fds, long.to_owned()))?;
        assert_eq!(child.join()?, (3, long.len()));
        Ok(())
    })
}

/// Three descriptors for each try and for the start after it.
fn files() -> Vec<Vec<Fd>> {
    let file = |_| memfd::holding("argument", b"").unwrap().into();
    (0..=TRIES).map(|_| (0..3).map(file).collect()).collect()
}

/// The lowest descriptor that will be free in an attempt.
fn lowest_free_beside_arguments() -> u64 {
    let _arguments = files();
    lowest_free()
}

#[test]
fn a_later_start_without_descriptors_leaves_nothing_behind() {
    isolated(emfile_at_a_later_start);
}

#[forkyard::task]
fn first_start_with_small_files(most: Option<u64>) -> Seen {
    limited("fsize", most, || start_and_join(0, false))
}

#[forkyard::task]
fn efbig_at_the_first_start() {
    let probe = |most| {
        let task = Builder::new().start(Start::Spawn);
        task.spawn(first_start_with_small_files, (most,)).unwrap().join().unwrap()
    };
    let (free, small) = (probe(None), probe(Some(1 << 20)));
    assert!(small.error.is_some());
    check("files of 1 MiB", &small, &free, Errno::FBIG, "RLIMIT_FSIZE");
}

#[test]
fn a_limit_on_the_size_of_files_is_an_error_and_no_signal() {
    isolated(efbig_at_the_first_start);
}

#[test]
fn with_a_limit_on_the_size_of_files_the_arena_is_smaller() {
    const INSIDE: &str = "FORKYARD_TEST_WITH_SMALL_FILES";
    if std::env::var_os(INSIDE).is_some() {
        Resource::from_name("fsize").unwrap().set(Some(1 << 30), None).unwrap();
        let _lock = forkyard::sync::Lock::new().unwrap();
        return start_and_join(0, false).unwrap();
    }
    let mut program = std::process::Command::new(std::env::current_exe().unwrap());
    program.args(["--exact", "with_a_limit_on_the_size_of_files_the_arena_is_smaller"]).env(INSIDE, "1");
    let output = program.output().unwrap();
    assert!(output.status.success(), "{output:?}");
}

/// Takes the place of a user without any other process, whose processes can be counted.
fn become_nobody() -> bool {
    let nobody = 1_000_000 + own_pid().unsigned_abs();
    let became =
        limits::set_groups(&[]).and_then(|()| limits::set_gid(nobody)).and_then(|()| limits::set_uid(nobody));
    became.is_ok()
}

#[forkyard::task]
fn first_start_with_few_processes(start: u32, daemon: bool, most: Option<u64>) -> Option<Seen> {
    become_nobody().then(|| limited("nproc", most, || start_and_join(start, daemon)))
}

#[forkyard::task]
fn eagain_at_the_limit_of_a_user() {
    for start in 0..3 {
        for daemon in [false, true] {
            let probe = |most| {
                let task = Builder::new().start(Start::Spawn);
                task.spawn(first_start_with_few_processes, (start, daemon, most)).unwrap().join().unwrap()
            };
            let Some(free) = probe(None) else {
                println!("skipped: this process may not become another user");
                return;
            };
            let mut refused = 0;
            for most in 1.. {
                let seen = probe(Some(most)).unwrap();
                if seen.error.is_none() {
                    break;
                }
                refused += 1;
                let what = format!("{:?}, daemon {daemon}, {most} processes", METHODS[start as usize]);
                check(&what, &seen, &free, Errno::AGAIN, "RLIMIT_NPROC");
            }
            // This thread, the keeper; the zygote where there is one; the child.
            assert!((2..=4).contains(&refused), "{refused} limits");
        }
    }
}

#[test]
fn a_start_beyond_the_users_processes_leaves_nothing_behind() {
    isolated(eagain_at_the_limit_of_a_user);
}

/// A control group of the test's own, where this machine lets it make one; version 1 and 2.
struct Group(PathBuf);

impl Group {
    fn new(name: &str) -> Option<Group> {
        let own = std::fs::read_to_string("/proc/self/cgroup").ok()?;
        let folders = own.lines().filter_map(|line| {
            let mut parts = line.splitn(3, ':').skip(1);
            match (parts.next()?, parts.next()?) {
                ("pids", path) => Some(format!("/sys/fs/cgroup/pids{path}")),
                ("", path) => Some(format!("/sys/fs/cgroup{path}")),
                _ => None,
            }
        });
        let name = format!("forkyard-test-{}-{name}", own_pid());
        folders.map(|folder| Path::new(&folder).join(&name)).find_map(|path| {
            std::fs::create_dir(&path).ok()?;
            let group = Group(path);
            group.0.join("pids.max").exists().then_some(group)
        })
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        // Zygotes end after their requesters.
        common::eventually("the control group is empty", || std::fs::remove_dir(&self.0).is_ok());
    }
}

#[forkyard::task]
fn first_start_in_a_group(start: u32, group: PathBuf, most: Option<u64>) -> Seen {
    let set_max = |most: Option<u64>| {
        std::fs::write(group.join("pids.max"), most.map_or("max".to_owned(), |most| most.to_string()))
            .unwrap()
    };
    std::fs::write(group.join("cgroup.procs"), "0").unwrap();
    set_max(most);
    refused(most, || start_and_join(start, false), || set_max(None))
}

#[forkyard::task]
fn eagain_at_the_limit_of_a_group() {
    for start in 0..3 {
        let probe = |most: Option<u64>| {
            let group = Group::new(&format!("{start}-{}", most.unwrap_or_default()))?;
            let task = Builder::new().start(Start::Spawn);
            let child = task.spawn(first_start_in_a_group, (start, group.0.clone(), most)).unwrap();
            Some(child.join().unwrap())
        };
        let Some(free) = probe(None) else {
            println!("skipped: this process may not make a control group with a limit on processes");
            return;
        };
        for most in 1.. {
            let seen = probe(Some(most)).unwrap();
            if seen.error.is_none() {
                assert!(most > 2);
                break;
            }
            let what = format!("{:?}, {most} processes", METHODS[start as usize]);
            check(&what, &seen, &free, Errno::AGAIN, "pids.max of the control group");
        }
    }
}

#[test]
fn a_start_beyond_the_control_groups_processes_leaves_nothing_behind() {
    isolated(eagain_at_the_limit_of_a_group);
}

#[forkyard::task]
fn first_start_with_little_memory(start: u32, spare: Option<u64>) -> Seen {
    let statm = std::fs::read_to_string("/proc/self/statm").unwrap();
    let pages: u64 = statm.split(' ').next().unwrap().parse().unwrap();
    limited("as", spare.map(|spare| pages * 4096 + spare), || start_and_join(start, false))
}

#[forkyard::task]
fn enomem() {
    for start in 0..3 {
        let probe = |spare| {
            let task = Builder::new().start(Start::Spawn);
            task.spawn(first_start_with_little_memory, (start, spare)).unwrap().join()
        };
        let free = probe(None).unwrap();
        let mut refused = 0;
        for spare in (0..).map(|n| n * 700_000) {
            match probe(Some(spare)) {
                Ok(seen) if seen.error.is_none() => break,
                // A zygote without memory ends in ways of its own; what counts is what is left.
                Ok(seen) => {
                    refused += 1;
                    nothing_left(
                        &format!("{:?}, {spare} bytes: {:?}", METHODS[start as usize], seen.error),
                        &seen,
                        &free,
                    );
                }
                // The program itself had no memory for its next small allocation, and aborted.
                Err(error) => assert_eq!(error.exit_status().unwrap().signal(), Some(6), "{error}"),
            }
        }
        assert!(refused > 0);
    }
}

#[test]
fn a_start_without_memory_leaves_nothing_behind() {
    isolated(enomem);
}

/// What no encoder takes: a sequence whose length it does not know before.
#[derive(Debug)]
struct Endless;

impl Serialize for Endless {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serde::ser::SerializeSeq::end(serializer.serialize_seq(None)?)
    }
}

impl<'de> Deserialize<'de> for Endless {
    fn deserialize<D: serde::Deserializer<'de>>(_: D) -> Result<Endless, D::Error> {
        Ok(Endless)
    }
}

#[forkyard::task]
fn take(_: Endless) {}

#[forkyard::task]
fn give() -> Endless {
    Endless
}

#[forkyard::task]
fn give_back(fd: Fd) -> Fd {
    fd
}

#[forkyard::task]
fn not_encodable() {
    (0..4).for_each(|_| start_and_join(0, false).unwrap());
    let before = open_fds().len();
    for start in METHODS {
        let builder = || Builder::new().start(start);
        let error = builder().spawn(take, (Endless,)).unwrap_err();
        assert!(error.to_string().contains("encode the arguments of task refusal::take"), "{error}");
        let error = builder().spawn(give, ()).unwrap().join().unwrap_err();
        assert!(error.to_string().contains("encode a task's result"), "{start:?}: {error}");
        let file = memfd::holding("argument", b"").unwrap();
        let error = builder().spawn(give_back, (file.into(),)).unwrap().join().unwrap_err();
        assert!(error.to_string().contains("encode a task's result"), "{start:?}: {error}");
        assert!(!error.is_panic() && !error.is_child_ended(), "{error:?}");
        assert_eq!(builder().spawn(add, (1, 2)).unwrap().join().unwrap(), 3);
    }
    common::eventually("no descriptor of an ended process is left", || dead_pidfds() == 0);
    assert!(open_fds().len() <= before + SPARE_FDS, "{before} descriptors before, after: {:?}", open_fds());
}

#[test]
fn what_cannot_be_encoded_is_an_error_of_that_start_or_that_join() {
    isolated(not_encodable);
}

#[forkyard::task]
fn unknown() {
    use forkyard::__private::{Answer, Entry};
    // Not in the registry, as a task of another build would be.
    static STRANGER: Entry = Entry::new("refusal::stranger", |_| Ok(Answer::default()));
    let stranger = forkyard::Task::<fn()>::new(|| (), &STRANGER);
    for start in METHODS {
        let error = Builder::new().start(start).spawn(stranger, ()).unwrap().join().unwrap_err();
        assert!(error.to_string().contains("find task refusal::stranger"), "{error}");
        assert!(error.to_string().contains("no such #[forkyard::task]"), "{error}");
        assert_eq!(Builder::new().start(start).spawn(add, (1, 2)).unwrap().join().unwrap(), 3);
    }
}

#[test]
fn an_unknown_task_is_named() {
    isolated(unknown);
}
