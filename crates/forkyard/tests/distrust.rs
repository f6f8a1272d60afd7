//! A child that writes where it may not, or sends what nobody asked for, harms itself and at worst its siblings.

#![allow(
    unsafe_code,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test fails by a panic; each unsafe block has its own reason"
)]

mod common;

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::FileExt;
use std::process::Command;
use std::time::{Duration, Instant};

use common::{METHODS, eventually, is_gone, isolated, kill, own_pid, zygote};
use forkyard::process::{self, Builder, Fd, Process, Start};
use forkyard_sys::{fallback, socket};

const SIGCONT: i32 = 18;
const SIGSTOP: i32 = 19;
/// Longer than the library's patience with a zygote that does not answer, and shorter than the tests' deadline.
const SOON: Duration = Duration::from_secs(20);
const SLOT: usize = 512;

#[forkyard::task]
fn add(a: u64, b: u64) -> u64 {
    a + b
}

/// Stays until the pipe is closed at its other end; its result is `size` bytes long.
#[forkyard::task]
fn stay(until: Fd, size: usize) -> String {
    let mut until = File::from(OwnedFd::from(until));
    until.read_to_end(&mut Vec::new()).unwrap();
    "x".repeat(size)
}

/// True for what may become of a process in such a family: anything that is told within a time.
fn is_told<T>(result: forkyard::Result<T>) -> bool {
    match result {
        Ok(_) => true,
        Err(error) => {
            assert!(!error.is_panic() && !error.to_string().is_empty(), "{error}");
            !error.is_timeout()
        }
    }
}

/// The family works again, and is given a few tries: a spare may have been hit.
fn recovers() {
    let works = |start| {
        let child = Builder::new().start(start).spawn(add, (2, 3));
        child.and_then(|child| child.join_timeout(SOON)).is_ok_and(|sum| sum == 5)
    };
    for start in METHODS {
        assert!((0..5).any(|_| works(start)), "{start:?} does not work any more");
    }
}

/// Where this process has the outcome board.
fn board() -> std::ops::Range<u64> {
    let maps = std::fs::read_to_string("/proc/self/maps").unwrap();
    let line = maps.lines().find(|line| line.contains("forkyard-outcomes")).unwrap();
    let (start, end) = line.split_whitespace().next().unwrap().split_once('-').unwrap();
    u64::from_str_radix(start, 16).unwrap()..u64::from_str_radix(end, 16).unwrap()
}

fn random<const N: usize>() -> [u8; N] {
    forkyard_sys::random::bytes().unwrap()
}

/// A slot of random bytes; or of numbers that may make sense: a state, a pid, a length.
fn rubbish(plausible: bool) -> [u8; SLOT] {
    let mut bytes = [0; SLOT];
    for part in bytes.chunks_mut(64) {
        part.copy_from_slice(&random::<64>());
    }
    if plausible {
        let pid = if bytes[0] < 128 { std::process::id() } else { u32::from(bytes[1]) };
        let len = u32::from(bytes[2]) * 3;
        let state = u32::from(bytes[3] % 9);
        bytes[0..4].copy_from_slice(&state.to_ne_bytes());
        bytes[4..8].copy_from_slice(&pid.to_ne_bytes());
        bytes[8..12].copy_from_slice(&len.to_ne_bytes());
    }
    bytes
}

/// Overwrites its own slot, or those of others, or all; then ends in one of two ways.
#[forkyard::task]
fn scribble(whose: String, plausible: bool, returns: bool) -> u64 {
    let (board, memory) = (board(), File::options().read(true).write(true).open("/proc/self/mem").unwrap());
    let all = (board.end - board.start) / SLOT as u64;
    // Those behind have never been used, and have no memory.
    let slots = if whose == "all" { all } else { 256 };
    for index in 0..slots {
        let at = board.start + index * SLOT as u64;
        let mut born = [0; 4];
        memory.read_exact_at(&mut born, at + 4).unwrap();
        let own = u32::from_ne_bytes(born) == std::process::id();
        if whose == "all" || own == (whose == "own") {
            memory.write_all_at(&rubbish(plausible), at).unwrap();
        }
    }
    if returns { 7 } else { process::_exit(0) }
}

#[forkyard::task]
fn family_of_a_scribbler() {
    for (round, whose) in ["own", "others", "all"].into_iter().cycle().take(12).enumerate() {
        let start = METHODS[round % 3];
        let (plausible, returns) = (round % 2 == 0, round % 4 < 2);
        let mut siblings: Vec<Process<String>> = Vec::new();
        let (until, writer) = std::io::pipe().unwrap();
        // Forks would keep the other end open.
        for (start, size) in
            [(Start::Zygote, 3), (Start::Zygote, 9000), (Start::Spawn, 3), (Start::Spawn, 9000)]
        {
            let until = Fd::from(OwnedFd::from(until.try_clone().unwrap()));
            siblings.push(Builder::new().start(start).spawn(stay, (until, size)).unwrap());
        }
        let child = Builder::new().start(start).spawn(scribble, (whose.to_owned(), plausible, returns));
        let result = child.unwrap().join_timeout(SOON);
        assert!(is_told(result), "{whose} {plausible} {returns}");
        drop(writer);
        for sibling in siblings {
            let result = sibling.join_timeout(SOON);
            if whose == "own" {
                assert!(result.unwrap().starts_with("xxx"));
            } else {
                assert!(is_told(result));
            }
        }
        recovers();
    }
}

#[test]
fn a_child_that_scribbles_over_the_outcomes_harms_its_family_only() {
    isolated(family_of_a_scribbler);
}

#[forkyard::task]
fn scribble_for_ever() {
    loop {
        scribble("others".to_owned(), random::<1>()[0] < 128, true);
    }
}

#[forkyard::task]
fn starts_beside_a_scribbler() {
    let scribbler = process::spawn(scribble_for_ever, ()).unwrap();
    for i in 0..40 {
        if let Ok(child) = process::spawn(add, (i, 1)) {
            // One that waits for ever, because its slot says so, is ended like any that takes too long.
            if !is_told(child.join_timeout(Duration::from_millis(300))) {
                child.kill().unwrap();
                assert!(is_told(child.join_timeout(SOON)));
            }
        }
    }
    assert!(scribbler.is_alive());
    scribbler.kill().unwrap();
    assert!(is_told(scribbler.join_timeout(SOON)));
    recovers();
}

#[test]
fn a_child_that_scribbles_without_end_does_not_hang_its_parent() {
    isolated(starts_beside_a_scribbler);
}

/// The parcel socket: the only one that a child of the zygote has.
fn parcels() -> BorrowedFd<'static> {
    let fd = common::open_fds().into_iter().find(|fd| {
        std::fs::read_link(format!("/proc/self/fd/{fd}"))
            .is_ok_and(|link| link.to_string_lossy().starts_with("socket:"))
    });
    // SAFETY: the library keeps it open for as long as this process lives.
    unsafe { BorrowedFd::borrow_raw(fd.unwrap()) }
}

/// A parcel of a task's result, for a slot.
fn parcel(slot: u32, result: &[u8]) -> Vec<u8> {
    let mut packet = vec![0];
    for mut number in [slot, 0, u32::try_from(result.len()).unwrap()] {
        while number >= 128 {
            packet.push((number % 128) as u8 | 128);
            number /= 128;
        }
        packet.push(number as u8);
    }
    packet.extend(result);
    packet
}

/// One of each kind of what nobody asked for.
fn send_rubbish(to: BorrowedFd<'_>) {
    let garbage = random::<64>();
    socket::send(to, &garbage, &[], false).unwrap();
    socket::send(to, &[], &[], false).unwrap();
    socket::send(to, &[0; 20_000], &[], false).unwrap();
    socket::send(to, &[1], &[], false).unwrap();
    // A file that is said to be long, and has no memory.
    let sparse = File::from(forkyard_sys::memfd::holding("sparse", b"x").unwrap());
    sparse.set_len(1 << 39).unwrap();
    socket::send(to, &[1], &[sparse.as_fd()], false).unwrap();
    let (reader, writer) = std::io::pipe().unwrap();
    socket::send(to, &[1], &[reader.as_fd(), writer.as_fd()], false).unwrap();
    let here = File::open("/proc/self/mem").unwrap();
    socket::send(to, &[1], &[here.as_fd()], false).unwrap();
    let write_only = File::options().write(true).open("/dev/null").unwrap();
    socket::send(to, &[1], &[write_only.as_fd()], false).unwrap();
    for slot in (0..64).chain([65_535, 65_536, u32::MAX]) {
        // As a string: "spoof".
        socket::send(to, &parcel(slot, b"\x05spoof"), &[], false).unwrap();
    }
}

#[forkyard::task]
fn flood(parcels_of_others: u32) {
    let to = parcels();
    send_rubbish(to);
    for slot in 0..parcels_of_others {
        socket::send(to, &parcel(slot + 64, &[0; 4000]), &[], false).unwrap();
    }
}

#[forkyard::task]
fn flood_for_ever() {
    loop {
        send_rubbish(parcels());
    }
}

fn resident_kib() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

#[forkyard::task]
fn parent_of_a_flooder() {
    recovers();
    let before = resident_kib();
    let flooder = process::spawn(flood, (20_000,)).unwrap();
    flooder.join_timeout(SOON).unwrap();
    let grown = resident_kib().saturating_sub(before);
    assert!(grown < 32 * 1024, "80 MB of parcels for slots of nobody were sent, {grown} KiB are kept");
    recovers();
}

#[test]
fn parcels_that_nobody_waits_for_are_not_kept() {
    isolated(parent_of_a_flooder);
}

#[forkyard::task]
fn siblings_of_a_flooder() {
    for start in [Start::Zygote, Start::Spawn] {
        let (until, writer) = std::io::pipe().unwrap();
        let siblings: Vec<_> = (0..4)
            .map(|_| {
                let until = Fd::from(OwnedFd::from(until.try_clone().unwrap()));
                Builder::new().start(start).spawn(stay, (until, 100_000)).unwrap()
            })
            .collect();
        let flooders: Vec<_> = (0..2).map(|_| process::spawn(flood_for_ever, ()).unwrap()).collect();
        // The flood has begun when what was sent before is taken.
        assert_eq!(process::spawn(add, (1, 1)).unwrap().join().unwrap(), 2);
        drop(writer);
        for sibling in siblings {
            assert!(sibling.join_timeout(SOON).unwrap() == "x".repeat(100_000), "not its own result");
        }
        for flooder in flooders {
            assert!(flooder.is_alive());
            flooder.kill().unwrap();
            assert!(is_told(flooder.join_timeout(SOON)));
        }
    }
    recovers();
}

#[test]
fn a_flood_of_parcels_spoils_no_siblings_result() {
    isolated(siblings_of_a_flooder);
}

#[test]
fn an_ordinary_start_is_ordinary() {
    assert_eq!(process::spawn(add, (20, 1)).unwrap().join().unwrap(), 21);
    println!("main ran once");
}

#[test]
fn the_zygotes_variables_in_the_users_environment_do_nothing() {
    for mode in ["template", "once", "", "1"] {
        for family in [None, Some(String::new()), Some("0".repeat(32)), Some("f".repeat(1000))] {
            let mut program = Command::new(std::env::current_exe().unwrap());
            program.args(["--exact", "an_ordinary_start_is_ordinary", "--nocapture"]);
            program.env("FORKYARD_ZYGOTE", mode).env_remove("FORKYARD_FAMILY");
            if let Some(family) = &family {
                program.env("FORKYARD_FAMILY", family);
            }
            let output = program.output().unwrap();
            let text = String::from_utf8_lossy(&output.stdout);
            assert!(output.status.success(), "{mode} {family:?}: {text}");
            assert_eq!(text.matches("main ran once").count(), 1, "{mode} {family:?}: {text}");
        }
    }
}

#[forkyard::task]
fn zygote_is_stopped() {
    recovers();
    let stopped = zygote().unwrap();
    kill(stopped, SIGSTOP);
    let began = Instant::now();
    // The first two may find a spare; the third needs another zygote.
    for _ in 0..3 {
        assert_eq!(process::spawn(add, (1, 2)).unwrap().join().unwrap(), 3);
    }
    println!("three starts beside a stopped zygote took {:?}", began.elapsed());
    // Where siblings are refused, it only stands guard and nobody asks it for a child.
    if !fallback::forced(fallback::Feature::CloneParent) {
        assert!(zygote().is_some_and(|pid| pid != stopped), "it was replaced");
        eventually("it is gone", || is_gone(stopped));
    }
    if !is_gone(stopped) {
        kill(stopped, SIGCONT);
    }
    recovers();
    eventually("only the zygote and its spares are left", || common::children_of(own_pid()).len() <= 3);
}

#[test]
fn a_stopped_zygote_is_replaced_by_the_next_start() {
    isolated(zygote_is_stopped);
}

#[forkyard::task]
fn without_descriptors() {
    let (until, writer) = std::io::pipe().unwrap();
    let stays = process::spawn(stay, (until.into(), 3)).unwrap();
    let ended = process::spawn(add, (1, 1)).unwrap();
    assert!(ended.wait_ended().unwrap().success());
    for fd in common::open_fds().range(3..) {
        // SAFETY: not safe at all: this is what the test is about. Whoever has it finds it closed.
        unsafe { libc::close(*fd) };
    }
    // Their drop would close once more, which Rust answers with an abort in debug builds.
    std::mem::forget(writer);
    for start in METHODS {
        let error = Builder::new().start(start).spawn(add, (1, 1)).err();
        let Some(error) = error else { panic!("{start:?} works without descriptors") };
        assert!(!error.is_timeout() && error.to_string().len() > 10);
        let _ = writeln!(std::io::stderr(), "{start:?}: {error}");
    }
    assert_eq!(ended.join().unwrap(), 2, "it was told before");
    // Its value, if the keeper was faster.
    assert!(is_told(stays.join_timeout(SOON)));
    assert!(is_told(process::try_wait()));
    std::mem::forget((stays, ended));
}

#[test]
fn closed_descriptors_are_errors() {
    isolated(without_descriptors);
}
