//! Daemons, orphans, zombies: what remains of a family, and when.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by a panic")]

mod common;

use std::io::{Read, Write};
use std::os::fd::OwnedFd;
use std::process::Command;

use common::{METHODS, children_of, eventually, is_gone, isolated, kill, own_pid, zygote, zygote_of};
use forkyard::process::{self, Builder, Fd, Process, Start};

const SIGKILL: i32 = 9;
const SIGSTOP: i32 = 19;
const SIGCONT: i32 = 18;

#[forkyard::task]
fn park_for_ever() {
    loop {
        std::thread::park();
    }
}

#[forkyard::task]
fn nothing() {}

/// Writes a line in one piece: others write to the same pipe.
fn line(out: &mut std::fs::File, what: &impl std::fmt::Display) {
    out.write_all(format!("{what}\n").as_bytes()).unwrap();
}

/// Tells its pid and those of all that it starts, a line each, and stays.
#[forkyard::task]
fn tell_and_stay(tell: Fd, depth: u32, daemon: bool) {
    let mut out = std::fs::File::from(OwnedFd::from(tell.try_clone().unwrap()));
    line(&mut out, &std::process::id());
    if depth > 0 {
        let grandchild = Builder::new()
            .daemon(daemon)
            .allow_children(true)
            .spawn(tell_and_stay, (tell, depth - 1, daemon));
        let grandchild: Process<()> = grandchild.unwrap();
        line(&mut out, &a_zygote());
        drop(out);
        drop(grandchild);
    } else {
        // A program, which starts another and leaves it behind in a session of its own.
        let mut shell = Command::new("sh");
        shell.args(["-c", "echo $$; setsid sleep 1000 & echo $!; exec sleep 1000"]);
        drop(shell.stdout(out.try_clone().unwrap()).spawn().unwrap());
        drop(out);
    }
    loop {
        std::thread::park();
    }
}

/// Reads one pid a line until so many have come.
fn pids(reader: &mut impl Read, count: usize) -> Vec<i32> {
    let mut text = String::new();
    let mut byte = [0];
    while text.lines().count() < count || !text.ends_with('\n') {
        assert_eq!(reader.read(&mut byte).unwrap(), 1, "only {text:?}");
        text.push(byte[0] as char);
    }
    text.lines().map(|line| line.parse().unwrap()).collect()
}

/// A process that starts a child in some way, tells all pids, and waits to be killed.
#[forkyard::task]
fn parent_of(start: u32, daemon: bool, tell: Fd) {
    let start = METHODS[start as usize];
    let builder = Builder::new().start(start).daemon(daemon).allow_children(true);
    let child: Process<()> = builder.spawn(tell_and_stay, (tell, 1, daemon)).unwrap();
    drop(child);
    loop {
        std::thread::park();
    }
}

#[forkyard::task]
fn parent_killed() {
    for (start, replace_zygote) in (0..3).flat_map(|start| [(start, false), (start, true)]) {
        let (mut reader, writer) = std::io::pipe().unwrap();
        let parent =
            Builder::new().start(Start::Spawn).spawn(parent_of, (start, true, writer.into())).unwrap();
        let mut family = pids(&mut reader, 5);
        let parent_pid = parent.pid().as_raw_nonzero().get();
        if replace_zygote {
            // The one that comes guards what the one before had started.
            let zygote = zygote_of(parent_pid).unwrap();
            kill(zygote, SIGKILL);
            eventually("it is replaced", || zygote_of(parent_pid).is_some_and(|new| new != zygote));
        }
        family.extend(children_of(parent_pid));
        let began = std::time::Instant::now();
        parent.kill().unwrap();
        parent.wait_ended().unwrap();
        eventually("the family is gone", || family.iter().all(|&pid| is_gone(pid)));
        let took = began.elapsed();
        println!("{:?}: {} processes gone after {took:?}", METHODS[start as usize], family.len());
        assert!(took.as_millis() < 1000, "contract D7 says within 1 s, took {took:?}");
        // Every holder of the pipe is gone.
        assert_eq!(reader.read(&mut [0]).unwrap(), 0);
    }
}

#[test]
fn nothing_daemonic_outlives_a_killed_parent() {
    isolated(parent_killed);
}

/// As `parent_of`, with a child that starts no processes but programs.
#[forkyard::task]
fn parent_of_program_starter(start: u32, tell: Fd) {
    let builder = Builder::new().start(METHODS[start as usize]).daemon(true);
    drop(builder.spawn(tell_and_stay, (tell, 0, true)).unwrap());
    loop {
        std::thread::park();
    }
}

#[forkyard::task]
fn programs_of_daemons() {
    for start in 0..3 {
        let (mut reader, writer) = std::io::pipe().unwrap();
        let parent = Builder::new().start(Start::Spawn);
        let parent = parent.spawn(parent_of_program_starter, (start, writer.into())).unwrap();
        let mut family = pids(&mut reader, 3);
        family.extend(children_of(parent.pid().as_raw_nonzero().get()));
        parent.kill().unwrap();
        parent.wait_ended().unwrap();
        eventually("the programs are gone", || family.iter().all(|&pid| is_gone(pid)));
    }
}

#[test]
fn no_program_of_a_daemon_outlives_a_killed_parent() {
    isolated(programs_of_daemons);
}

#[forkyard::task]
fn survivor(tell: Fd) {
    let mut out = std::fs::File::from(OwnedFd::from(tell));
    line(&mut out, &std::process::id());
    eventually("the parent dies", || !process::parent().unwrap().is_alive());
    line(&mut out, &"survived");
}

#[forkyard::task]
fn parent_of_survivor(start: u32, tell: Fd) {
    drop(Builder::new().start(METHODS[start as usize]).spawn(survivor, (tell,)).unwrap());
    loop {
        std::thread::park();
    }
}

#[forkyard::task]
fn parent_of_free_child_killed() {
    for start in 0..3 {
        let (mut reader, writer) = std::io::pipe().unwrap();
        let parent =
            Builder::new().start(Start::Spawn).spawn(parent_of_survivor, (start, writer.into())).unwrap();
        pids(&mut reader, 1);
        parent.kill().unwrap();
        parent.wait_ended().unwrap();
        let mut text = String::new();
        reader.read_to_string(&mut text).unwrap();
        assert_eq!(text, "survived\n");
    }
}

#[test]
fn a_child_that_is_not_daemonic_outlives_a_killed_parent() {
    isolated(parent_of_free_child_killed);
}

#[forkyard::task]
fn main_that_ends(start: u32, how: String, tell: Fd) {
    let start = METHODS[start as usize];
    let (mut reader, writer) = std::io::pipe().unwrap();
    let daemon = Builder::new().start(start).daemon(true).allow_children(true);
    drop(daemon.spawn(tell_and_stay, (writer.into(), 1, true)).unwrap());
    let family = pids(&mut reader, 5);
    let joined = Builder::new().start(start).spawn(slow, (tell.try_clone().unwrap(),)).unwrap();
    let mut out = std::fs::File::from(OwnedFd::from(tell));
    for pid in family {
        line(&mut out, &pid);
    }
    drop(joined);
    match how.as_str() {
        "panic" => panic!("the end of main"),
        "exit" => process::exit(7),
        _ => {}
    }
}

#[forkyard::task]
fn slow(tell: Fd) {
    std::thread::sleep(std::time::Duration::from_millis(100));
    let mut out = std::fs::File::from(OwnedFd::from(tell));
    line(&mut out, &"0");
}

#[forkyard::task]
fn main_ends() {
    for start in 0..3 {
        for how in ["return", "panic", "exit"] {
            let (mut reader, writer) = std::io::pipe().unwrap();
            let main = Builder::new()
                .start(Start::Spawn)
                .spawn(main_that_ends, (start, how.to_owned(), writer.into()))
                .unwrap();
            let status = main.wait_ended().unwrap();
            assert_eq!(
                status.code(),
                Some(match how {
                    "panic" => 101,
                    "exit" => 7,
                    _ => 0,
                })
            );
            // The child that is not daemonic was joined: it has told its line by now.
            let told = pids(&mut reader, 6);
            assert!(told.contains(&0));
            let family: Vec<i32> = told.into_iter().filter(|&pid| pid != 0).collect();
            eventually("the daemons are gone", || family.iter().all(|&pid| is_gone(pid)));
        }
    }
}

#[test]
fn at_the_end_of_main_daemons_end_and_others_are_joined() {
    isolated(main_ends);
}

#[forkyard::task]
fn has_a_child(allowed: bool) -> String {
    let (builder, what) = (Builder::new(), "child");
    match builder.name(what).spawn(nothing, ()) {
        Ok(child) => {
            assert!(allowed && child.is_daemon());
            child.join().unwrap();
            "had one".to_owned()
        }
        Err(error) => {
            assert!(error.is_daemonic());
            error.to_string()
        }
    }
}

#[forkyard::task]
fn classic_rule() {
    for start in METHODS {
        let refused =
            Builder::new().name("d").daemon(true).start(start).spawn(has_a_child, (false,)).unwrap();
        let text = refused.join().unwrap();
        assert!(text.contains("daemonic process") && text.contains("\"d\""), "{text}");
        let allowed = Builder::new()
            .daemon(true)
            .allow_children(true)
            .start(start)
            .spawn(has_a_child, (true,))
            .unwrap();
        assert_eq!(allowed.join().unwrap(), "had one");
    }
}

#[test]
fn a_daemon_has_no_children_unless_told_otherwise() {
    isolated(classic_rule);
}

#[forkyard::task]
fn nobody_joins() {
    let before = common::open_fds().len();
    let mut handles = Vec::new();
    for start in METHODS {
        for i in 0..20 {
            let child = Builder::new().start(start).spawn(nothing, ()).unwrap();
            if i % 2 == 0 {
                handles.push(child);
            }
        }
    }
    // Looking at /proc reaps nobody.
    let is_reaped = |child: &Process<()>| common::state_of(child.pid().as_raw_nonzero().get()).is_none();
    eventually("only the zygote and its spares are left", || {
        handles.iter().all(is_reaped) && children_of(own_pid()).len() <= 3
    });
    for child in &handles {
        assert!(child.exit_status().unwrap().success(), "the status stays readable");
        child.join().unwrap();
    }
    drop(handles);
    // The runtime's own descriptors stay: two sockets, epoll, eventfd, board, own pidfd, zygote, its reserve, and the
    // spares' two each.
    let after = common::open_fds().len();
    assert!(after <= before + 14, "{before} descriptors before, {after} after");
}

#[test]
fn children_that_nobody_joins_are_no_zombies_and_keep_their_status() {
    isolated(nobody_joins);
}

#[forkyard::task]
fn foreign_children() {
    let mut mine = Command::new("sleep").arg("1000").spawn().unwrap();
    for _ in 0..50 {
        process::spawn(nothing, ()).unwrap().join().unwrap();
    }
    assert!(mine.try_wait().unwrap().is_none());
    mine.kill().unwrap();
    eventually("it is a zombie that waits for its own parent's wait", || {
        common::state_of(i32::try_from(mine.id()).unwrap()) == Some('Z')
    });
    process::spawn(nothing, ()).unwrap().join().unwrap();
    assert!(process::children().is_empty());
    assert!(process::wait().is_err() || process::try_wait().is_err());
    use std::os::unix::process::ExitStatusExt;
    assert_eq!(mine.wait().unwrap().signal(), Some(SIGKILL));
}

#[test]
fn the_host_programs_own_children_are_its_own() {
    isolated(foreign_children);
}

/// This process's zygote. A child that was started without one may be there before it; and of a list that is read while another child
/// is reaped, the kernel may leave one out.
fn a_zygote() -> i32 {
    let mut found = None;
    eventually("there is a zygote", || {
        found = zygote();
        found.is_some()
    });
    found.unwrap()
}

#[forkyard::task]
fn zygote_dies() {
    let before = Builder::new().name("before").spawn(park_for_ever, ()).unwrap();
    // A child that has not come to its name yet could be taken for a zygote.
    let comm = format!("/proc/{}/comm", before.pid().as_raw_nonzero());
    eventually("it has its name", || std::fs::read_to_string(&comm).is_ok_and(|name| name == "before\n"));
    for _ in 0..30 {
        let pid = a_zygote();
        kill(pid, SIGKILL);
        process::spawn(nothing, ()).unwrap().join().unwrap();
        eventually("it is replaced", || {
            zygote().is_some_and(|new| new != pid) && common::state_of(pid).is_none()
        });
    }
    assert!(before.is_alive(), "children of the old zygotes live on");
    before.kill().unwrap();
    assert_eq!(before.join().unwrap_err().exit_status().unwrap().signal(), Some(SIGKILL));
    // While it is idle it is replaced too, because it guards.
    let pid = a_zygote();
    kill(pid, SIGKILL);
    eventually("an idle zygote is replaced", || zygote().is_some_and(|new| new != pid));
}

#[test]
fn a_killed_zygote_is_replaced_and_nobody_notices() {
    isolated(zygote_dies);
}

#[forkyard::task]
fn zygote_stops() {
    for _ in 0..3 {
        process::spawn(nothing, ()).unwrap().join().unwrap();
    }
    let pid = a_zygote();
    kill(pid, SIGSTOP);
    // The spares that are there already may serve two starts; what needs the zygote finds out that it is stopped.
    for _ in 0..4 {
        process::spawn(nothing, ()).unwrap().join().unwrap();
    }
    if forkyard_sys::fallback::forced(forkyard_sys::fallback::Feature::CloneParent) {
        // Nothing was asked of it, and it has to end with this process.
        kill(pid, SIGCONT);
    } else {
        assert_eq!(common::state_of(pid), None, "the stuck one is gone");
        assert_ne!(zygote(), Some(pid));
    }
}

#[test]
fn a_stopped_zygote_is_replaced() {
    isolated(zygote_stops);
}

#[forkyard::task]
fn executes_another_program() {
    for _ in 0..3 {
        process::spawn(nothing, ()).unwrap().join().unwrap();
    }
    assert!(process::exec("no-such-program", [""; 0]).errno().is_some());
    process::spawn(nothing, ()).unwrap().join().unwrap();
    let error = process::exec("sleep", ["1000"]);
    panic!("{error}");
}

#[forkyard::task]
fn another_program() {
    let child = process::spawn(executes_another_program, ()).unwrap();
    let pid = child.pid().as_raw_nonzero().get();
    let comm = || std::fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
    eventually("it is another program", || comm() == "sleep\n");
    assert!(children_of(pid).is_empty(), "it has children that it knows nothing of");
    child.kill().unwrap();
    child.join().unwrap_err();
}

#[test]
fn a_program_that_takes_the_place_of_this_one_gets_no_child_of_the_librarys() {
    isolated(another_program);
}

fn spares() -> Vec<i32> {
    let name = |pid: &i32| std::fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
    children_of(own_pid()).into_iter().filter(|pid| name(pid) == "forkyard-spare\n").collect()
}

#[forkyard::task]
fn spares_stop() {
    if forkyard_sys::fallback::forced(forkyard_sys::fallback::Feature::CloneParent) {
        return;
    }
    for _ in 0..3 {
        process::spawn(nothing, ()).unwrap().join().unwrap();
    }
    eventually("there are spares", || spares().len() == 2);
    let stopped = spares();
    stopped.iter().for_each(|&pid| kill(pid, SIGSTOP));
    eventually("they are stopped", || stopped.iter().all(|&pid| common::state_of(pid) == Some('T')));
    let child = process::spawn(nothing, ()).unwrap();
    assert!(!stopped.contains(&child.pid().as_raw_nonzero().get()));
    child.join().unwrap();
    assert!(stopped.iter().all(|&pid| is_gone(pid)));
}

#[test]
fn a_stopped_spare_gets_no_task() {
    isolated(spares_stop);
}
