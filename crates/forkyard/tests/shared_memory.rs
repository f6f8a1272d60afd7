//! Shared memory by name and without one.

#![allow(
    unsafe_code,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test fails by a panic; each unsafe block has its own reason"
)]

mod common;

use std::os::fd::AsFd;
use std::path::PathBuf;

use common::{eventually, isolated, kill, own_pid};
use forkyard::SharedMemory;
use forkyard::process::{self, Builder, Fd, Start};

fn path(name: &str) -> PathBuf {
    PathBuf::from("/dev/shm").join(name.trim_start_matches('/'))
}

fn name_of(what: &str) -> String {
    format!("/forkyard-test-{}-{what}", own_pid())
}

#[forkyard::task]
fn reads(name: String) -> String {
    let memory = SharedMemory::attach(&name).unwrap();
    let mut bytes = [0; 5];
    memory.read(0, &mut bytes);
    memory.write(100, b"seen");
    String::from_utf8(bytes.to_vec()).unwrap()
}

#[test]
fn a_name_is_removed_by_its_owner_only() {
    let name = name_of("owner");
    let mut memory = SharedMemory::create(&name, 4096).unwrap();
    assert_eq!((memory.size(), memory.name()), (4096, Some(name.as_str())));
    memory.write(0, b"hello");
    assert_eq!(process::spawn(reads, (name.clone(),)).unwrap().join().unwrap(), "hello");
    let mut bytes = [0; 4];
    memory.read(100, &mut bytes);
    assert_eq!(&bytes, b"seen");
    drop(SharedMemory::attach(&name).unwrap());
    assert!(path(&name).exists(), "who only attaches does not unlink");
    assert!(SharedMemory::attach(&name).unwrap().unlink().unwrap_err().is_invalid());
    let taken = SharedMemory::create(&name, 10).unwrap_err();
    assert_eq!(taken.errno().unwrap().raw_os_error(), libc::EEXIST);
    memory.unlink().unwrap();
    assert!(!path(&name).exists());
    memory.read(100, &mut bytes);
    let dropped = SharedMemory::create(&name, 10).unwrap();
    drop(dropped);
    assert!(!path(&name).exists());
    assert_eq!(SharedMemory::attach(&name).unwrap_err().errno().unwrap().raw_os_error(), libc::ENOENT);
}

#[test]
fn what_is_no_name_or_no_size_is_an_error() {
    for wrong in ["", "/", "a/b", "/..", ".", &"x".repeat(300), "a\0b"] {
        assert!(SharedMemory::create(wrong, 10).unwrap_err().is_invalid(), "{wrong:?}");
        assert!(SharedMemory::attach(wrong).unwrap_err().is_invalid(), "{wrong:?}");
    }
    assert!(SharedMemory::create(&name_of("empty"), 0).is_err());
    assert!(SharedMemory::anonymous(0).is_err());
    let huge = SharedMemory::create(&name_of("huge"), usize::MAX / 4).unwrap_err();
    assert!(huge.errno().is_some(), "{huge}");
    assert!(!path(&name_of("huge")).exists());
}

#[forkyard::task]
fn owns_until_killed(name: String, ready: Fd) {
    let memory = SharedMemory::create(&name, 4096).unwrap();
    drop(ready);
    loop {
        std::thread::park();
        memory.write(0, b"x");
    }
}

#[forkyard::task]
fn killed_owner() {
    use std::io::Read;
    for start in [Start::Zygote, Start::Spawn, Start::Fork] {
        let name = name_of("killed");
        let (mut reader, writer) = std::io::pipe().unwrap();
        let child =
            Builder::new().start(start).spawn(owns_until_killed, (name.clone(), writer.into())).unwrap();
        reader.read_to_end(&mut Vec::new()).unwrap();
        assert!(path(&name).exists());
        child.kill().unwrap();
        child.wait_ended().unwrap();
        eventually("the name is removed", || !path(&name).exists());
    }
}

#[test]
fn the_name_of_a_killed_owner_is_removed() {
    isolated(killed_owner);
}

#[forkyard::task]
fn nothing() {}

#[test]
fn the_name_of_a_killed_family_is_removed_by_its_zygote() {
    const NAME: &str = "OWNED_NAME";
    if let Ok(name) = std::env::var(NAME) {
        // The first process of a family of its own.
        process::spawn(nothing, ()).unwrap().join().unwrap();
        let _memory = SharedMemory::create(&name, 4096).unwrap();
        loop {
            std::thread::park();
        }
    }
    let name = name_of("family");
    let mut program = std::process::Command::new(std::env::current_exe().unwrap());
    program.args(["--exact", "the_name_of_a_killed_family_is_removed_by_its_zygote"]).env(NAME, &name);
    let mut running = program.stdout(std::process::Stdio::null()).spawn().unwrap();
    eventually("it is made", || path(&name).exists());
    kill(i32::try_from(running.id()).unwrap(), 9);
    running.wait().unwrap();
    eventually("the name is removed", || !path(&name).exists());
}

#[forkyard::task]
fn fills(memory: Fd) {
    use std::os::unix::fs::FileExt;
    let file = std::fs::File::from(std::os::fd::OwnedFd::from(memory));
    file.write_all_at(b"by its descriptor", 0).unwrap();
}

#[test]
fn more_than_there_is_is_an_error_and_nobody_is_killed_for_it() {
    let much = usize::try_from(forkyard_sys::memory::available().unwrap() + (1 << 30)).unwrap();
    let error = SharedMemory::anonymous(much).unwrap_err();
    assert_eq!(error.errno(), Some(forkyard_sys::Errno::NOMEM), "{error}");
    let error = SharedMemory::create(&name_of("much"), much).unwrap_err();
    assert!(
        matches!(error.errno(), Some(forkyard_sys::Errno::NOMEM | forkyard_sys::Errno::NOSPC)),
        "{error}"
    );
    assert!(!path(&name_of("much")).exists());
}

#[forkyard::task]
fn adds_one(memory: SharedMemory) -> usize {
    let mut byte = [0];
    memory.read(0, &mut byte);
    memory.write(0, &[byte[0] + 1]);
    memory.size()
}

#[test]
fn memory_without_a_name_is_an_argument() {
    let memory = SharedMemory::anonymous(1 << 16).unwrap();
    memory.write(0, &[41]);
    for start in [Start::Zygote, Start::Spawn] {
        let again = SharedMemory::from_fd(memory.as_fd().try_clone_to_owned().unwrap()).unwrap();
        let child = Builder::new().start(start).spawn(adds_one, (again,)).unwrap();
        assert_eq!(child.join().unwrap(), 1 << 16);
    }
    let mut byte = [0];
    memory.read(0, &mut byte);
    assert_eq!(byte, [43]);
    let file = std::fs::File::open("/proc/self/exe").unwrap();
    assert!(SharedMemory::from_fd(file).unwrap_err().is_invalid(), "a file may be truncated");
    let named = SharedMemory::create(&name_of("argument"), 10).unwrap();
    assert!(process::spawn(adds_one, (named,)).is_err());
}

#[test]
fn a_symbolic_link_is_nobodys_memory() {
    let link = path(&name_of("link"));
    std::os::unix::fs::symlink("/proc/self/exe", &link).unwrap();
    let error = SharedMemory::attach(&name_of("link")).unwrap_err();
    std::fs::remove_file(&link).unwrap();
    assert_eq!(error.errno().unwrap().raw_os_error(), libc::ELOOP, "{error}");
}

#[test]
fn memory_without_a_name_travels_by_its_descriptor() {
    let memory = SharedMemory::anonymous(1 << 16).unwrap();
    assert_eq!(memory.name(), None);
    let fd = memory.as_fd().try_clone_to_owned().unwrap();
    process::spawn(fills, (Fd::from(fd),)).unwrap().join().unwrap();
    let mut bytes = [0; 17];
    memory.read(0, &mut bytes);
    assert_eq!(&bytes, b"by its descriptor");
}
