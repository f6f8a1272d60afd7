//! Looking a program up in `PATH`, in the caller, before anything is started.

use std::ffi::{CString, OsStr};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::Path;

use rustix::fs::{Access, AtFlags, CWD, accessat, stat};
use rustix::io::Errno;

use crate::Result;

/// Where programs are looked up without a `PATH`, as execvp(3) does.
const DEFAULT_PATH: &str = "/bin:/usr/bin";

/// Finds the file that `name` means: `name` itself if it contains a slash, else the first executable file of
/// that name in the directories of `path` (an empty one is the current directory).
///
/// # Errors
/// `ENOENT` if there is none; `EACCES` if there are only ones that this process may not execute or see;
/// `EINVAL` if the name contains a NUL byte.
#[doc(alias = "execvp")]
pub fn find_program(name: &OsStr, path: Option<&OsStr>) -> Result<CString> {
    let bytes = name.as_bytes();
    if bytes.is_empty() {
        return Err(Errno::NOENT);
    }
    if bytes.contains(&b'/') {
        return CString::new(bytes).map_err(|_| Errno::INVAL);
    }
    let mut verdict = Errno::NOENT;
    let path = path.unwrap_or(OsStr::new(DEFAULT_PATH));
    for directory in path.as_bytes().split(|&byte| byte == b':') {
        let directory = if directory.is_empty() { b".".as_slice() } else { directory };
        let file = Path::new(OsStr::from_bytes(directory)).join(name).into_os_string().into_vec();
        let file = CString::new(file).map_err(|_| Errno::INVAL)?;
        match check_executable(&file) {
            Ok(()) => return Ok(file),
            Err(Errno::ACCESS) => verdict = Errno::ACCESS,
            Err(_) => {}
        }
    }
    Err(verdict)
}

fn check_executable(file: &CString) -> Result<()> {
    let mode = stat(file)?.st_mode;
    if mode & libc::S_IFMT != libc::S_IFREG {
        return Err(Errno::ACCESS);
    }
    accessat(CWD, file, Access::EXEC_OK, AtFlags::empty())
}
