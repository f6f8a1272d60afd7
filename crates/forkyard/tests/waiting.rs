//! Waiting: for any child, for one by number, for several with other descriptors; each end is told once.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by a panic")]

mod common;

use std::collections::BTreeSet;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Barrier;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use common::{METHODS, eventually, isolated};
use forkyard::process::{self, Builder, Fd, Pid, Process, Start};

const SOON: Duration = Duration::from_millis(30);

#[forkyard::task]
fn number(n: i32) -> i32 {
    n
}

#[forkyard::task]
fn park_for_ever() {
    loop {
        std::thread::park();
    }
}

/// Ends when the pipe is closed.
#[forkyard::task]
fn until_closed(pipe: Fd) {
    let mut byte = [0];
    let _ = std::io::Read::read(&mut std::fs::File::from(pipe), &mut byte);
}

fn parked(start: Start) -> Process<()> {
    Builder::new().start(start).spawn(park_for_ever, ()).unwrap()
}

#[forkyard::task]
fn any_child() {
    assert!(process::wait().unwrap_err().is_no_children());
    assert!(process::try_wait().unwrap_err().is_no_children());
    assert!(process::wait_timeout(SOON).unwrap_err().is_no_children());
    let mut children = Vec::new();
    for n in 0..12 {
        let start = METHODS[n as usize % 3];
        children.push(Builder::new().name(format!("child {n}")).start(start).spawn(number, (n,)).unwrap());
    }
    let mut told = BTreeSet::new();
    for i in 0..12 {
        let exited = match i % 3 {
            0 => process::wait().unwrap(),
            1 => process::wait_timeout(common::DEADLINE).unwrap(),
            _ => process::wait_deadline(Instant::now() + common::DEADLINE).unwrap(),
        };
        assert!(exited.status.success() && exited.status.usage().is_some(), "{exited:?}");
        assert!(children.iter().any(|c| c.pid() == exited.pid && c.name() == exited.name), "{exited:?}");
        assert!(told.insert(exited.name.clone()), "told twice: {exited:?}");
        assert_eq!(common::state_of(exited.pid.as_raw_nonzero().get()), None, "reaped");
    }
    assert!(process::wait().unwrap_err().is_no_children());
    // The results are still there, for the joins.
    for (n, child) in children.iter().enumerate() {
        assert_eq!(usize::try_from(child.join().unwrap()).unwrap(), n);
    }
    assert!(process::try_wait().unwrap_err().is_no_children());
}

#[test]
fn a_wait_for_any_child_tells_of_each_once() {
    isolated(any_child);
}

#[forkyard::task]
fn not_yet() {
    let child = parked(Start::Zygote);
    assert!(process::try_wait().unwrap().is_none());
    let error = process::wait_timeout(SOON).unwrap_err();
    assert!(error.is_timeout() && !error.is_no_children());
    let error = process::wait_deadline(Instant::now() - SOON).unwrap_err();
    assert!(error.is_timeout());
    child.terminate().unwrap();
    let exited = process::wait().unwrap();
    assert_eq!((exited.pid, exited.status.signal()), (child.pid(), Some(15)));
    // What a join has told of, no wait tells again.
    let joined = process::spawn(number, (1,)).unwrap();
    let other = process::spawn(number, (2,)).unwrap();
    joined.join().unwrap();
    assert_eq!(process::wait().unwrap().pid, other.pid());
    assert!(process::try_wait().unwrap_err().is_no_children());
    // Nor does the library's own reaping hide it from a wait.
    let unseen = process::spawn(number, (3,)).unwrap();
    eventually("it is reaped by the library", || {
        common::state_of(unseen.pid().as_raw_nonzero().get()).is_none()
    });
    assert_eq!(process::wait().unwrap().pid, unseen.pid());
}

#[test]
fn a_wait_that_gives_up_takes_nothing_and_a_join_counts_as_told() {
    isolated(not_yet);
}

#[forkyard::task]
fn one_child() {
    let (first, second) = (parked(Start::Zygote), process::spawn(number, (5,)).unwrap());
    let exited = process::waitpid(second.pid()).unwrap();
    assert_eq!((exited.pid, exited.status.code()), (second.pid(), Some(0)));
    assert!(process::waitpid(second.pid()).unwrap_err().is_not_a_child(), "it was told");
    assert_eq!(second.join().unwrap(), 5);
    assert!(process::try_waitpid(first.pid()).unwrap().is_none());
    assert!(process::waitpid_timeout(first.pid(), Duration::ZERO).unwrap_err().is_timeout());
    assert!(process::waitpid_deadline(first.pid(), Instant::now()).unwrap_err().is_timeout());
    assert!(first.wait_ended_deadline(Instant::now()).unwrap_err().is_timeout());
    first.kill().unwrap();
    eventually("it is told", || match process::try_waitpid(first.pid()).unwrap() {
        Some(exited) => exited.status.signal() == Some(9),
        None => false,
    });
    assert!(process::try_waitpid(first.pid()).unwrap_err().is_not_a_child());
}

#[test]
fn a_wait_for_one_child_leaves_the_others() {
    isolated(one_child);
}

#[forkyard::task]
fn wait_for_parent(pid: i32) {
    let pid = Pid::from_raw(pid).unwrap();
    assert_eq!(pid, process::parent().unwrap().pid());
    assert!(process::waitpid(pid).unwrap_err().is_not_a_child());
    assert!(process::wait().unwrap_err().is_no_children());
}

#[forkyard::task]
fn strangers() {
    let own = process::current().pid();
    for error in [process::waitpid(own).unwrap_err(), process::try_waitpid(own).unwrap_err()] {
        assert!(error.is_join_self(), "{error}");
        assert!(error.to_string().contains("would wait for itself"), "{error}");
    }
    let nobody = Pid::from_raw(i32::MAX).unwrap();
    assert!(process::waitpid(nobody).unwrap_err().is_not_a_child());
    let init = Pid::from_raw(1).unwrap();
    assert!(process::waitpid(init).unwrap_err().is_not_a_child());
    for start in METHODS {
        let child = Builder::new().start(start).spawn(wait_for_parent, (common::own_pid(),)).unwrap();
        child.join().unwrap();
    }
    // A child of the host program is not the library's.
    let mut host = std::process::Command::new("true").spawn().unwrap();
    let pid = Pid::from_raw(i32::try_from(host.id()).unwrap()).unwrap();
    assert!(process::waitpid(pid).unwrap_err().is_not_a_child());
    assert!(host.wait().unwrap().success());
}

#[test]
fn a_wait_for_oneself_or_a_stranger_is_an_error() {
    isolated(strangers);
}

#[forkyard::task]
fn handles_in_a_fork() {
    let mine = parked(Start::Zygote);
    let ended = process::spawn(number, (7,)).unwrap();
    ended.wait_ended().unwrap();
    let told: Vec<bool> = process::fork(|| {
        vec![
            mine.join().unwrap_err().is_not_a_child(),
            mine.try_join().unwrap_err().is_not_a_child(),
            mine.join_timeout(SOON).unwrap_err().is_not_a_child(),
            mine.wait_ended().unwrap_err().is_not_a_child(),
            ended.join().unwrap_err().is_not_a_child(),
            process::waitpid(mine.pid()).unwrap_err().is_not_a_child(),
            process::wait().unwrap_err().is_no_children(),
            !mine.is_alive() && mine.exit_status().is_none(),
            process::children().is_empty(),
            // It has children of its own.
            process::spawn(number, (1,)).unwrap().join().unwrap() == 1,
            process::fork(|| 2).unwrap().join().unwrap() == 2,
        ]
    })
    .unwrap()
    .join()
    .unwrap();
    assert_eq!(told, [true; 11]);
    assert!(mine.is_alive());
    assert_eq!(ended.join().unwrap(), 7);
    mine.kill().unwrap();
    assert_eq!(mine.join().unwrap_err().exit_status().unwrap().signal(), Some(9));
}

#[test]
fn a_handle_in_a_fork_of_its_parent_is_no_childs() {
    isolated(handles_in_a_fork);
}

#[forkyard::task]
fn many_at_once() {
    let children: Vec<_> = (0..30).map(|n| parked(METHODS[n % 3])).collect();
    let pipes: Vec<_> = (0..10).map(|_| std::io::pipe().unwrap()).collect();
    let mut fds: Vec<BorrowedFd<'_>> = children.iter().map(AsFd::as_fd).collect();
    fds.extend(pipes.iter().map(|(reader, _)| reader.as_fd()));
    assert!(process::wait_any_timeout(&fds, SOON).unwrap_err().is_timeout());
    assert!(process::wait_any_deadline(&fds, Instant::now()).unwrap_err().is_timeout());
    std::io::Write::write_all(&mut &pipes[4].1, b"x").unwrap();
    assert_eq!(process::wait_any(&fds).unwrap(), [34]);
    children[17].kill().unwrap();
    children[3].kill().unwrap();
    eventually("three are ready", || process::wait_any(&fds).unwrap() == [3, 17, 34]);
    // A joined handle stays ready, and a wait for any takes nothing.
    children[3].join().unwrap_err();
    assert_eq!(children[17].exit_status().unwrap().signal(), Some(9));
    eventually("they stay ready", || process::wait_any(&fds).unwrap() == [3, 17, 34]);
    children.iter().for_each(|child| child.kill().unwrap());
    eventually("all children are", || process::wait_any_timeout(&fds, SOON).unwrap().len() == 31);
    assert_eq!(children.iter().filter(|child| child.join().is_err()).count(), 30);
}

#[test]
fn several_handles_and_pipes_are_waited_for_at_once() {
    isolated(many_at_once);
}

#[forkyard::task]
fn no_descriptors() {
    assert!(process::wait_any_timeout(&[], SOON).unwrap_err().is_timeout());
    let (reader, writer) = std::io::pipe().unwrap();
    drop(writer);
    assert_eq!(process::wait_any(&[reader.as_fd()]).unwrap(), [0], "a closed pipe is ready");
}

#[test]
fn a_wait_for_nothing_times_out_and_a_closed_pipe_is_ready() {
    isolated(no_descriptors);
}

#[forkyard::task]
fn lists() {
    assert!(process::children().is_empty());
    let mut children: Vec<_> = (0..6).map(|n| parked(METHODS[n % 3])).collect();
    let pids = || process::children().iter().map(|child| child.pid()).collect::<Vec<_>>();
    assert_eq!(pids(), children.iter().map(|child| child.pid()).collect::<Vec<_>>(), "oldest first");
    let gone = children.remove(2);
    gone.kill().unwrap();
    gone.wait_ended().unwrap();
    assert_eq!(pids(), children.iter().map(|child| child.pid()).collect::<Vec<_>>());
    // Handles from the list do what any handle does, and outlive the typed one.
    let listed = process::children();
    drop(children);
    for child in listed {
        assert!(child.is_alive());
        child.terminate().unwrap();
        assert_eq!(child.wait_ended().unwrap().signal(), Some(15));
    }
    assert!(process::children().is_empty());
}

#[test]
fn living_children_are_listed_oldest_first() {
    isolated(lists);
}

#[forkyard::task]
fn two_waiters() {
    for _ in 0..50 {
        let (told, none) = (AtomicUsize::new(0), AtomicUsize::new(0));
        let children: Vec<_> = (0..3).map(|n| process::spawn(number, (n,)).unwrap()).collect();
        let ready = Barrier::new(4);
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    ready.wait();
                    loop {
                        match process::wait() {
                            Ok(_) => told.fetch_add(1, Ordering::Relaxed),
                            Err(error) if error.is_no_children() => {
                                break none.fetch_add(1, Ordering::Relaxed);
                            }
                            Err(error) => panic!("{error}"),
                        };
                    }
                });
            }
        });
        assert_eq!((told.into_inner(), none.into_inner()), (3, 4));
        drop(children);
    }
}

#[test]
fn several_threads_that_wait_share_the_ends_among_them() {
    isolated(two_waiters);
}

/// The library's own reaping races with each of these.
#[forkyard::task]
fn races() {
    for n in 0..400 {
        let joined = process::spawn(number, (n,)).unwrap();
        if n % 2 == 0 {
            eventually("it has ended", || common::is_gone(joined.pid().as_raw_nonzero().get()));
        }
        assert_eq!(joined.join().unwrap(), n);
        assert!(process::try_wait().unwrap_err().is_no_children(), "told twice");
        let waited = process::spawn(number, (n,)).unwrap();
        if n % 2 == 0 {
            eventually("it has ended", || common::is_gone(waited.pid().as_raw_nonzero().get()));
        }
        assert_eq!(process::waitpid(waited.pid()).unwrap().pid, waited.pid());
        assert!(process::try_wait().unwrap_err().is_no_children(), "told twice");
        assert_eq!(waited.join().unwrap(), n);
    }
}

#[test]
fn a_join_or_wait_beside_the_librarys_own_reaping_tells_once() {
    isolated(races);
}

#[forkyard::task]
fn born_later() {
    let (reader, writer) = std::io::pipe().unwrap();
    let long = process::spawn(until_closed, (reader.into(),)).unwrap();
    std::thread::scope(|scope| {
        let (sender, receiver) = std::sync::mpsc::channel();
        let waiter = scope.spawn(move || {
            sender.send(std::fs::read_link("/proc/thread-self").unwrap()).unwrap();
            process::wait()
        });
        // Its wait has begun, as far as that can be seen; nothing depends on it.
        let stat = std::path::Path::new("/proc").join(receiver.recv().unwrap()).join("stat");
        eventually("the other thread sleeps", || std::fs::read_to_string(&stat).unwrap().contains(") S "));
        let short = process::spawn(number, (1,)).unwrap();
        // wait(2) tells of a child that was born while it waits.
        assert_eq!(waiter.join().unwrap().unwrap().pid, short.pid());
    });
    drop(writer);
    long.join().unwrap();
}

#[test]
fn a_wait_tells_of_a_child_that_another_thread_starts_meanwhile() {
    isolated(born_later);
}
