//! Who a child is, and who its parent: numbers, names, flags.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by a panic")]

mod common;

use common::{METHODS, builder, eventually, isolated, own_pid, state_of};
use forkyard::process::{self, Builder, Start};

/// What `/proc` calls a process.
fn comm(pid: i32) -> String {
    let text = std::fs::read(format!("/proc/{pid}/comm")).unwrap();
    String::from_utf8_lossy(&text).trim_end_matches('\n').to_owned()
}

fn number(pid: process::Pid) -> i32 {
    pid.as_raw_nonzero().get()
}

#[forkyard::task]
fn who_am_i() -> (i32, i32, String, String, bool) {
    let current = process::current();
    (number(current.pid()), own_pid(), current.name(), comm(own_pid()), current.is_daemon())
}

#[forkyard::task]
fn who_is_my_parent() -> (i32, i32, String, bool) {
    let parent = process::parent().unwrap();
    let ppid = i32::try_from(std::os::unix::process::parent_id()).unwrap();
    (number(parent.pid()), ppid, parent.name().to_owned(), parent.is_alive())
}

#[forkyard::task]
fn park_for_ever() {
    loop {
        std::thread::park();
    }
}

#[forkyard::task]
fn nothing() {}

#[forkyard::task]
fn numbers() {
    for start in METHODS {
        let child = builder(start).spawn(who_am_i, ()).unwrap();
        let pid = number(child.pid());
        let (told, own, ..) = child.join().unwrap();
        assert_eq!((told, own), (pid, pid), "{start:?}");
        let (parent, ppid, name, alive) = builder(start).spawn(who_is_my_parent, ()).unwrap().join().unwrap();
        assert_eq!((parent, ppid, alive), (own_pid(), own_pid(), true), "{start:?}");
        assert_eq!(name, "isolated");
    }
}

#[test]
fn parent_and_child_agree_on_their_numbers() {
    isolated(numbers);
}

#[test]
fn a_process_that_forkyard_did_not_start_is_main_and_has_no_parent() {
    assert_eq!(process::current().name(), "main");
    assert!(process::parent().is_none() && !process::current().is_daemon());
    assert_eq!(number(process::current().pid()), own_pid());
}

#[forkyard::task]
fn default_names() {
    let mut names = Vec::new();
    for start in METHODS {
        let child = builder(start).spawn(who_am_i, ()).unwrap();
        names.push(child.name().to_owned());
        let (.., name, shown, daemon) = child.join().unwrap();
        assert_eq!((name.as_str(), shown.as_str(), daemon), (child.name(), child.name(), false), "{start:?}");
    }
    assert_eq!(names, ["Process-1", "Process-2", "Process-3"]);
    // A child counts its own children.
    let grandchild = process::spawn(first_grandchild, ()).unwrap().join().unwrap();
    assert_eq!(grandchild, "Process-1");
}

#[forkyard::task]
fn first_grandchild() -> String {
    let child = process::spawn(nothing, ()).unwrap();
    child.join().unwrap();
    child.name().to_owned()
}

#[test]
fn a_child_without_a_name_is_called_process_n() {
    isolated(default_names);
}

#[forkyard::task]
fn given_names() {
    // 15 bytes are shown, and no half character.
    let names = [
        ("worker", "worker"),
        ("exactly-fifteen", "exactly-fifteen"),
        ("a name of more than fifteen bytes", "a name of more "),
        ("äääääääää", "äääääää"),
        ("", ""),
    ];
    for start in METHODS {
        for (name, shown) in names {
            let child = builder(start).name(name).spawn(who_am_i, ()).unwrap();
            assert_eq!(child.name(), name);
            let told = child.join().unwrap();
            assert_eq!((told.2.as_str(), told.3.as_str()), (name, shown), "{start:?}");
        }
    }
}

#[test]
fn a_given_name_is_told_in_full_and_shown_as_far_as_the_kernel_goes() {
    isolated(given_names);
}

#[forkyard::task]
fn renames_itself() {
    for (name, shown) in [
        ("another", "another"),
        ("a name of more than fifteen bytes", "a name of more "),
        ("äääääääää", "äääääää"),
        ("", ""),
    ] {
        process::current().set_name(name).unwrap();
        assert_eq!(process::current().name(), name);
        assert_eq!(comm(own_pid()), shown);
    }
    std::thread::spawn(|| process::current().set_name("by a thread").unwrap()).join().unwrap();
    assert_eq!(comm(own_pid()), "by a thread", "the process is named, not the thread");
}

#[forkyard::task]
fn new_names() {
    for start in METHODS {
        let child = builder(start).name("before").spawn(renames_itself, ()).unwrap();
        child.join().unwrap();
        assert_eq!(child.name(), "before", "the parent calls it as it did");
    }
}

#[test]
fn a_process_can_give_itself_another_name() {
    isolated(new_names);
}

#[forkyard::task]
fn renamed_parent() {
    // The zygote is older than the new name.
    process::spawn(nothing, ()).unwrap().join().unwrap();
    for name in ["first", "second"] {
        process::current().set_name(name).unwrap();
        for start in METHODS {
            let told = builder(start).spawn(who_is_my_parent, ()).unwrap().join().unwrap();
            assert_eq!(told.2, name, "{start:?}");
        }
    }
}

#[test]
fn a_child_knows_its_parents_name_at_its_start() {
    isolated(renamed_parent);
}

#[forkyard::task]
fn daemon_flags() {
    for start in METHODS {
        for flag in [false, true] {
            let child = builder(start).daemon(flag).spawn(who_am_i, ()).unwrap();
            assert_eq!(child.is_daemon(), flag);
            assert_eq!(child.join().unwrap().4, flag, "{start:?}");
        }
        // It goes on to grandchildren, unless they are told otherwise.
        let parent = builder(start).daemon(true).allow_children(true);
        assert_eq!(parent.spawn(flags_of_children, ()).unwrap().join().unwrap(), [true, false, true]);
    }
}

#[forkyard::task]
fn flags_of_children() -> Vec<bool> {
    let builders = [Builder::new(), Builder::new().daemon(false), Builder::new().daemon(true)];
    let told = builders.map(|builder| builder.spawn(who_am_i, ()).unwrap().join().unwrap().4);
    told.to_vec()
}

#[test]
fn the_daemon_flag_is_known_on_both_sides_and_inherited() {
    isolated(daemon_flags);
}

#[forkyard::task]
fn handle_shows() {
    for start in METHODS {
        let child = builder(start).name("shown").spawn(park_for_ever, ()).unwrap();
        let pid = number(child.pid());
        assert_eq!(child.child().to_string(), format!("process \"shown\" (pid {pid})"));
        assert_eq!(format!("{child:?}"), format!("<process \"shown\" (pid {pid})>"));
        eventually("it is called so", || comm(pid) == "shown");
        child.kill().unwrap();
        child.wait_ended().unwrap();
        assert_eq!(format!("{child:?}"), format!("<process \"shown\" (pid {pid}), signal 9>"));
        assert_eq!(state_of(pid), None);
    }
}

#[test]
fn a_handle_says_whose_it_is_and_how_it_ended() {
    isolated(handle_shows);
}

/// Waits until its parent is gone, by its pidfd, and tells what it saw then.
#[forkyard::task]
fn outlive(tell: process::Fd) {
    use std::io::Write;
    let parent = process::parent().unwrap();
    assert!(parent.is_alive());
    let mut out = std::fs::File::from(tell);
    out.write_all(b"ready\n").unwrap();
    assert_eq!(process::wait_any(&[std::os::fd::AsFd::as_fd(parent)]).unwrap(), [0]);
    let orphan = i32::try_from(std::os::unix::process::parent_id()).unwrap() != number(parent.pid());
    out.write_all(format!("alive {} orphan {orphan}\n", parent.is_alive()).as_bytes()).unwrap();
}

#[forkyard::task]
fn start_and_end(start: u32, tell: process::Fd) {
    drop(builder(METHODS[start as usize]).spawn(outlive, (tell,)).unwrap());
    park_for_ever();
}

#[forkyard::task]
fn dead_parent() {
    use std::io::BufRead;
    for start in 0..3 {
        let (reader, writer) = std::io::pipe().unwrap();
        let parent = builder(Start::Spawn).spawn(start_and_end, (start, writer.into())).unwrap();
        let mut lines = std::io::BufReader::new(reader).lines();
        assert_eq!(lines.next().unwrap().unwrap(), "ready");
        parent.kill().unwrap();
        parent.join().unwrap_err();
        assert_eq!(lines.next().unwrap().unwrap(), "alive false orphan true");
        assert!(lines.next().is_none());
    }
}

#[test]
fn a_child_can_tell_whether_its_parent_lives() {
    isolated(dead_parent);
}
