//! Finding a family's shared memory among the descriptors of a process, and who else has it.

use std::fs::{self, File, Metadata};
use std::os::fd::OwnedFd;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;

use crate::error::{Error, Kind, Result};
use crate::shm;

/// How the link of its descriptor begins.
const LINK: &str = "/memfd:forkyard-arena";

/// Opens the arena of the family that a process belongs to, to read.
pub(super) fn open(pid: u32) -> Result<File> {
    let what = || format!("observe the family of process {pid}");
    let descriptors = fs::read_dir(format!("/proc/{pid}/fd")).map_err(|error| match error.kind() {
        std::io::ErrorKind::NotFound => Error::new(what(), Kind::Gone("there is no such process".to_owned())),
        _ => Error::io(what(), &error),
    })?;
    let arena = descriptors.flatten().map(|entry| entry.path()).find(is_arena);
    let path = arena.ok_or_else(|| {
        let why = "it takes part in none: no process of Forkyard's, or one that has started nothing and shared nothing";
        Error::new(what(), Kind::Invalid(why.to_owned()))
    })?;
    File::open(path).map_err(|error| Error::io(what(), &error))
}

fn is_arena(path: &PathBuf) -> bool {
    fs::read_link(path).is_ok_and(|link| link.to_string_lossy().starts_with(LINK))
}

/// Reads it as this process's own, without taking part.
pub(super) fn attach(file: &File) -> Result<()> {
    let fd = file.try_clone().map_err(|error| Error::io("observe a family", &error))?;
    shm::observe(OwnedFd::from(fd))
}

/// Bytes of memory that it has taken.
pub(super) fn used(file: &File) -> u64 {
    file.metadata().map_or(0, |metadata| metadata.blocks() * 512)
}

/// The processes that have it, as far as one may look.
pub(super) fn members(file: &File) -> Vec<u32> {
    let Ok(own) = file.metadata() else { return Vec::new() };
    let processes = fs::read_dir("/proc").into_iter().flatten().flatten();
    let pids = processes.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    pids.filter(|&pid| pid != std::process::id() && has(pid, &own)).collect()
}

fn has(pid: u32, arena: &Metadata) -> bool {
    let descriptors = fs::read_dir(format!("/proc/{pid}/fd")).into_iter().flatten().flatten();
    let mut arenas =
        descriptors.map(|entry| entry.path()).filter(is_arena).filter_map(|path| fs::metadata(path).ok());
    arenas.any(|other| (other.dev(), other.ino()) == (arena.dev(), arena.ino()))
}
