//! What a child finds around itself: arguments, environment, directory, signal mask, descriptors.

#![allow(
    unsafe_code,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test fails by a panic; each unsafe block has its own reason"
)]

mod common;

use std::collections::BTreeMap;
use std::io::{ErrorKind, Read, Write};
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::PathBuf;

use common::{METHODS, builder, isolated};
use forkyard::process::{self, Fd, Start};
use forkyard::signal::{self, Signal};

#[forkyard::task]
fn nothing() {}

#[forkyard::task]
fn arguments() -> Vec<String> {
    std::env::args().collect()
}

#[forkyard::task]
fn same_arguments() {
    for start in METHODS {
        let child = builder(start).spawn(arguments, ()).unwrap();
        assert_eq!(child.join().unwrap(), std::env::args().collect::<Vec<_>>(), "{start:?}");
    }
}

#[test]
fn a_child_has_its_parents_command_line() {
    isolated(same_arguments);
}

/// All variables but the library's own one.
#[forkyard::task]
fn variables() -> BTreeMap<String, String> {
    std::env::vars().filter(|(name, _)| name != "FORKYARD_FAMILY").collect()
}

#[forkyard::task]
fn changed_environment() {
    let check = |what: &str| {
        for start in METHODS {
            let child = builder(start).spawn(variables, ()).unwrap();
            assert_eq!(child.join().unwrap(), variables(), "{what}, {start:?}");
        }
    };
    check("untouched");
    // SAFETY: this process has no thread that reads the environment but this one.
    unsafe { std::env::set_var("FORKYARD_SURROUNDINGS", "set, with = and \n in it") };
    check("set");
    // SAFETY: as above.
    unsafe { std::env::set_var("FORKYARD_SURROUNDINGS", "x".repeat(100_000)) };
    check("long");
    // SAFETY: as above.
    unsafe { std::env::remove_var("FORKYARD_SURROUNDINGS") };
    // SAFETY: as above.
    unsafe { std::env::remove_var("PATH") };
    check("removed");
}

#[test]
fn a_child_has_its_parents_environment_as_it_is_now() {
    isolated(changed_environment);
}

/// The directory by path, where it has one, and by its identity.
#[forkyard::task]
fn directory() -> (Option<PathBuf>, (u64, u64)) {
    use std::os::unix::fs::MetadataExt;
    let metadata = std::fs::metadata(".").unwrap();
    (std::env::current_dir().ok(), (metadata.dev(), metadata.ino()))
}

/// A directory of the test's own.
struct Scratch(PathBuf);

impl Scratch {
    fn new() -> Scratch {
        let path = std::env::temp_dir().join(format!("forkyard-surroundings-{}", std::process::id()));
        std::fs::create_dir(&path).unwrap();
        Scratch(path.canonicalize().unwrap())
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        std::fs::remove_dir_all(&self.0).unwrap();
    }
}

#[forkyard::task]
fn changed_directory() {
    let scratch = Scratch::new();
    let check = |what: &str| {
        for start in METHODS {
            let child = builder(start).spawn(directory, ()).unwrap();
            assert_eq!(child.join().unwrap(), directory(), "{what}, {start:?}");
        }
    };
    check("untouched");
    let below = scratch.0.join("below");
    std::fs::create_dir(&below).unwrap();
    std::env::set_current_dir(&below).unwrap();
    check("entered");
    std::fs::rename(&below, scratch.0.join("elsewhere")).unwrap();
    check("renamed");
    std::fs::create_dir(&below).unwrap();
    check("another has its old name");
    std::fs::remove_dir(scratch.0.join("elsewhere")).unwrap();
    assert!(std::env::current_dir().is_err());
    check("removed");
    std::env::set_current_dir("/").unwrap();
    check("left");
}

#[test]
fn a_child_starts_in_its_parents_directory_wherever_that_is_now() {
    isolated(changed_directory);
}

/// The zygote itself starts in a directory that is then replaced by another of the same name.
#[forkyard::task]
fn replaced_directory() {
    let scratch = Scratch::new();
    let below = scratch.0.join("below");
    std::fs::create_dir(&below).unwrap();
    std::env::set_current_dir(&below).unwrap();
    process::spawn(nothing, ()).unwrap().join().unwrap();
    std::fs::remove_dir(&below).unwrap();
    std::fs::create_dir(&below).unwrap();
    std::env::set_current_dir(&below).unwrap();
    for start in METHODS {
        assert_eq!(builder(start).spawn(directory, ()).unwrap().join().unwrap(), directory(), "{start:?}");
    }
}

#[test]
fn a_directory_is_known_by_more_than_its_name() {
    isolated(replaced_directory);
}

#[forkyard::task]
fn blocked() -> Vec<i32> {
    let mask = signal::mask();
    mask.iter().map(Signal::number).collect()
}

#[forkyard::task]
fn masks() {
    for start in METHODS {
        let before = blocked();
        assert_eq!(builder(start).spawn(blocked, ()).unwrap().join().unwrap(), before, "{start:?}");
        let guard = signal::block([Signal::USR1, Signal::TERM]);
        let told = builder(start).spawn(blocked, ()).unwrap().join().unwrap();
        assert_eq!(told, blocked(), "{start:?}");
        assert!(told.contains(&Signal::TERM.number()) && told.contains(&Signal::USR1.number()));
        // A blocked signal waits in the child, too.
        let child = builder(start).spawn(pending_term, ()).unwrap();
        child.terminate().unwrap();
        assert!(child.join().unwrap(), "{start:?}");
        drop(guard);
        assert_eq!(builder(start).spawn(blocked, ()).unwrap().join().unwrap(), before, "{start:?}");
    }
}

#[forkyard::task]
fn pending_term() -> bool {
    common::eventually("SIGTERM is pending", || signal::pending().contains(Signal::TERM));
    true
}

#[test]
fn the_signal_mask_of_the_starting_thread_crosses_the_start() {
    isolated(masks);
}

#[forkyard::task]
fn write_to_closed_pipe() -> bool {
    let (reader, mut writer) = std::io::pipe().unwrap();
    drop(reader);
    writer.write(b"x").unwrap_err().kind() == ErrorKind::BrokenPipe
}

#[forkyard::task]
fn broken_pipes() {
    for start in METHODS {
        assert!(builder(start).spawn(write_to_closed_pipe, ()).unwrap().join().unwrap(), "{start:?}");
    }
}

#[test]
fn a_broken_pipe_is_an_error_in_a_child_and_no_death() {
    isolated(broken_pipes);
}

#[forkyard::task]
fn say_and_close(to: Fd) -> i32 {
    let mut to = std::fs::File::from(to);
    to.write_all(b"said").unwrap();
    to.as_raw_fd()
}

#[forkyard::task]
fn read_all(from: Fd) -> String {
    let mut text = String::new();
    std::fs::File::from(from).read_to_string(&mut text).unwrap();
    text
}

#[forkyard::task]
fn passed_descriptors() {
    for start in METHODS {
        let (mut reader, writer) = std::io::pipe().unwrap();
        let fd = builder(start).spawn(say_and_close, (writer.into(),)).unwrap().join().unwrap();
        assert!(fd > 2);
        // The end comes because nobody else has the writer: not the parent, not the zygote.
        let mut text = String::new();
        reader.read_to_string(&mut text).unwrap();
        assert_eq!(text, "said");

        // A fork has a copy of the writer as well, and would wait for itself.
        if start != Start::Fork {
            let (reader, mut writer) = std::io::pipe().unwrap();
            let child = builder(start).spawn(read_all, (reader.into(),)).unwrap();
            writer.write_all(b"heard").unwrap();
            drop(writer);
            assert_eq!(child.join().unwrap(), "heard", "{start:?}");
        }

        let mut file = tempfile();
        file.write_all(b"kept").unwrap();
        std::io::Seek::rewind(&mut file).unwrap();
        assert_eq!(builder(start).spawn(read_all, (file.into(),)).unwrap().join().unwrap(), "kept");
    }
}

fn tempfile() -> std::fs::File {
    std::fs::File::from(forkyard_sys::memfd::holding("test", b"").unwrap())
}

#[test]
fn pipes_and_files_travel_as_arguments() {
    isolated(passed_descriptors);
}

#[forkyard::task]
fn which(fds: Vec<Fd>) -> Vec<(u64, u64)> {
    fds.into_iter().map(identity).collect()
}

fn identity(fd: Fd) -> (u64, u64) {
    use std::os::unix::fs::MetadataExt;
    let metadata = std::fs::File::from(fd).metadata().unwrap();
    (metadata.dev(), metadata.ino())
}

#[forkyard::task]
fn many_descriptors() {
    const MOST: usize = 245;
    let files: Vec<Fd> = (0..MOST + 1).map(|_| tempfile().into()).collect();
    let copies =
        |count: usize| files.iter().take(count).map(|fd| fd.try_clone().unwrap()).collect::<Vec<_>>();
    for start in METHODS {
        for count in [0, 1, 2, MOST - 1, MOST] {
            let told = builder(start).spawn(which, (copies(count),)).unwrap().join().unwrap();
            let expected: Vec<_> = copies(count).into_iter().map(identity).collect();
            assert_eq!(told, expected, "{start:?}: {count}, each in its place");
        }
        let error = builder(start).spawn(which, (copies(MOST + 1),)).unwrap_err();
        assert!(error.is_invalid(), "{error}");
        assert!(error.to_string().contains("246 file descriptors"), "{error}");
        assert!(error.to_string().contains("at most 245"), "{error}");
        builder(start).spawn(nothing, ()).unwrap().join().unwrap();
    }
}

#[test]
fn as_many_descriptors_travel_as_one_message_carries_and_one_more_is_an_error() {
    isolated(many_descriptors);
}

/// What a child has open: numbers, what they are, and whether they are closed by an exec.
#[forkyard::task]
fn open_here() -> Vec<(i32, String, bool)> {
    let describe = |fd: i32| {
        let link = std::fs::read_link(format!("/proc/self/fd/{fd}")).unwrap();
        // SAFETY: asks for a flag of a descriptor.
        let flags = unsafe { libc::fcntl(fd, libc::F_GETFD) };
        (fd, link.to_string_lossy().into_owned(), flags & libc::FD_CLOEXEC != 0)
    };
    common::open_fds().into_iter().map(describe).collect()
}

#[forkyard::task]
fn child_descriptors() {
    // None of these may show up in a child.
    let mine: Vec<OwnedFd> = (0..20).map(|_| OwnedFd::from(tempfile())).collect();
    let busy = process::spawn(busy_child, ()).unwrap();
    for start in [Start::Zygote, Start::Spawn] {
        for daemon in [false, true] {
            let open = builder(start).daemon(daemon).spawn(open_here, ()).unwrap().join().unwrap();
            let (standard, more): (Vec<_>, Vec<_>) = open.into_iter().partition(|(fd, ..)| *fd <= 2);
            assert_eq!(standard.len(), 3);
            // The children's end of the parcel socket, the parent's pidfd, and the family's arena.
            let kinds: Vec<_> = more.iter().map(|(_, link, _)| link.split(':').next().unwrap()).collect();
            assert!(kinds.len() == 3 && kinds.contains(&"socket"), "{start:?}: {more:?}");
            for what in ["pidfd", "forkyard-arena"] {
                assert!(more.iter().any(|(_, link, _)| link.contains(what)), "{start:?}: {more:?}");
            }
            assert!(more.iter().all(|(_, _, cloexec)| *cloexec), "{start:?}: {more:?}");
        }
    }
    busy.kill().unwrap();
    drop(mine);
}

#[forkyard::task]
fn busy_child() {
    loop {
        std::thread::park();
    }
}

#[test]
fn a_child_has_its_standard_streams_and_three_descriptors_of_the_librarys() {
    isolated(child_descriptors);
}

#[forkyard::task]
fn without_standard_streams() {
    for number in 0..3 {
        // SAFETY: this process's own; what uses them later finds others.
        assert_eq!(unsafe { libc::close(number) }, 0);
    }
    for start in METHODS {
        let open = builder(start).spawn(open_here, ()).unwrap().join().unwrap();
        assert!(open[..3].iter().all(|(fd, link, _)| *fd > 2 || link == "/dev/null"), "{open:?}");
        eprintln!("whoever has this number reads {start:?}");
        println!("and {start:?}");
    }
    assert!(common::open_fds().is_superset(&(0..3).collect()));
}

#[test]
fn a_process_that_closed_its_standard_streams_prints_into_nothing_of_the_librarys() {
    isolated(without_standard_streams);
}

/// A fork copies all descriptors of the program; of the library's own it closes those that would keep others waiting.
#[forkyard::task]
fn forked_descriptors() {
    let others: Vec<_> =
        (0..3).map(|_| builder(Start::Fork).daemon(true).spawn(busy_child, ()).unwrap()).collect();
    let before = common::open_fds().len();
    let open = builder(Start::Fork).spawn(open_here, ()).unwrap().join().unwrap();
    assert!(open.len() <= before, "{before} in the parent, in the child {open:?}");
    for other in &others {
        other.kill().unwrap();
        assert_eq!(other.join().unwrap_err().exit_status().unwrap().signal(), Some(9));
    }
}

#[test]
fn a_fork_has_no_more_descriptors_than_its_parent() {
    isolated(forked_descriptors);
}
