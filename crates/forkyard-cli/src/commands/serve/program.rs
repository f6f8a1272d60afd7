//! Whether the program after `--` can be executed, found out before anybody connects.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use crate::exit;

/// The exit code and the message for a program that cannot be executed.
pub(super) fn check(words: &[OsString]) -> Result<(), (u8, String)> {
    let Some(name) = words.first() else { return Ok(()) };
    let shown = name.to_string_lossy();
    let mut unusable = None;
    for path in candidates(name) {
        match std::fs::metadata(&path) {
            Ok(found) if found.is_file() && found.permissions().mode() & 0o111 != 0 => return Ok(()),
            Ok(found) => unusable = unusable.or(Some((path, found.is_dir()))),
            Err(_) => {}
        }
    }
    Err(match unusable {
        Some((path, true)) => {
            (exit::NOT_EXECUTABLE, format!("cannot execute {}: it is a directory", path.display()))
        }
        Some((path, false)) => {
            let path = path.display();
            (
                exit::NOT_EXECUTABLE,
                format!("cannot execute {path}: it is not marked executable; chmod +x {path}"),
            )
        }
        None if name.as_bytes().contains(&b'/') => (exit::NOT_FOUND, format!("there is no program {shown}")),
        None => (
            exit::NOT_FOUND,
            format!("there is no program \"{shown}\" in PATH; write ./{shown} for one in this directory"),
        ),
    })
}

/// Where a program of this name may be: itself if it has a slash, else in the directories of `PATH`.
fn candidates(name: &OsStr) -> Vec<PathBuf> {
    if name.as_bytes().contains(&b'/') {
        return vec![Path::new(name).to_owned()];
    }
    let path = std::env::var_os("PATH").unwrap_or_else(|| "/usr/local/bin:/usr/bin:/bin".into());
    std::env::split_paths(&path).map(|directory| directory.join(name)).collect()
}
