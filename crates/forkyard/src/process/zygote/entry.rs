//! Where a process finds out that it is to be a zygote: before main.
//!
//! The function here stands in `.init_array`, so it runs in every program that links this crate, after the standard
//! library's own initialiser. In an ordinary start it looks for one environment variable and returns. In a zygote it
//! never returns: the program's main function does not run a second time.
//!
//! The variable alone is not enough: descriptor 3 must be a packet socket, and the family's variable must be there;
//! anything else is an ordinary start with a stray variable. The socket's other end must have been made by this
//! process's parent: if it was not, that one has been killed in between, and this process ends at once.
//!
//! # Safety
//! Before main there is one thread, so the environment may be changed. The marker points into the initial
//! environment block, which lies in this process's own memory for as long as it lives.
#![allow(unsafe_code)]

use std::ffi::{CStr, c_char};
use std::os::fd::{BorrowedFd, FromRawFd, OwnedFd};

use forkyard_sys::{clone, prctl, socket};

use crate::{channel, shm, sync};

/// Marks a zygote: `template`, or `once` for one that becomes the first child it is asked for.
pub(crate) const VARIABLE: &str = "FORKYARD_ZYGOTE";
/// Tokens of the zygotes above a guarded process, innermost last, separated by colons. A zygote starts with dashes in
/// the place of its own token, in the initial environment block: a guarded copy overwrites them there, which
/// `/proc/PID/environ` shows and which programs that it executes inherit, all by one write.
pub(crate) const FAMILY: &str = "FORKYARD_FAMILY";
/// Bytes of a token, in text.
pub(crate) const TOKEN: usize = 32;
/// The value of `LD_BIND_NOW` (ld.so(8)) in a zygote: any text means yes.
pub(crate) const BIND_NOW: &str = "forkyard";
/// The descriptor of the request socket.
pub(crate) const SOCKET: i32 = 3;

#[used]
#[unsafe(link_section = ".init_array")]
static CONSTRUCTOR: extern "C" fn() = constructor;

unsafe extern "C" {
    fn getenv(name: *const c_char) -> *mut c_char;
}

extern "C" fn constructor() {
    // This is the process's first thread, and nothing else of the program has run.
    forkyard_sys::robust::link_early();
    shm::set_reaper(sync::reap);
    channel::set_hooks();
    // SAFETY: getenv reads the environment, which nobody changes before main.
    let value = unsafe { getenv(c"FORKYARD_ZYGOTE".as_ptr()) };
    if value.is_null() || forkyard_sys::fallback::set_uid() {
        return;
    }
    // SAFETY: fcntl on a number that may be closed is an error, not undefined; the borrow ends with this function.
    let fd = unsafe { BorrowedFd::borrow_raw(SOCKET) };
    if !socket::is_pair(fd) {
        return;
    }
    // SAFETY: a non-null result of getenv is a string.
    let once = unsafe { CStr::from_ptr(value) } == c"once";
    // SAFETY: as above.
    let Some(marker) = Marker::find(unsafe { getenv(c"FORKYARD_FAMILY".as_ptr()) }) else { return };
    if !prctl::parent().is_some_and(|parent| socket::is_pair_made_by(fd, parent)) {
        // The requester was killed before this process got here. Its main must not run again as an orphan.
        clone::exit_now(0);
    }
    // SAFETY: one thread.
    unsafe { std::env::remove_var(VARIABLE) };
    // SAFETY: as above.
    unsafe { std::env::remove_var("LD_BIND_NOW") };
    // SAFETY: the socket was put there for this process by its parent, and nobody else here knows it.
    let socket = unsafe { OwnedFd::from_raw_fd(SOCKET) };
    super::inside::main(socket, once, marker)
}

/// The place for this zygote's token in the initial environment block.
pub(crate) struct Marker {
    /// Of the variable's value.
    value: *mut c_char,
    len: usize,
}

// SAFETY: used by the one thread of a zygote or of its copy.
unsafe impl Send for Marker {}
// SAFETY: as above.
unsafe impl Sync for Marker {}

impl Marker {
    fn find(value: *mut c_char) -> Option<Marker> {
        if value.is_null() {
            return None;
        }
        // SAFETY: a non-null result of getenv is a string.
        let len = unsafe { CStr::from_ptr(value) }.count_bytes();
        (len >= TOKEN).then_some(Marker { value, len })
    }

    /// Writes the token: this process does not outlive its requester, nor does anything that it makes.
    pub(crate) fn write(&self, token: &str) {
        let at = self.value.wrapping_add(self.len - TOKEN).cast();
        // SAFETY: the last bytes of the value, in memory that belongs to this process; the token's length is checked
        // by the min.
        unsafe { std::ptr::copy_nonoverlapping(token.as_ptr(), at, token.len().min(TOKEN)) };
    }

    /// The whole value as it is now.
    pub(crate) fn line(&self) -> String {
        // SAFETY: a string that only this thread writes.
        unsafe { CStr::from_ptr(self.value) }.to_string_lossy().into_owned()
    }
}

/// Replaces all variables of this process, and says to which family it belongs.
pub(crate) fn replace_variables(variables: &[(Vec<u8>, Vec<u8>)], family: &str) {
    use std::ffi::OsStr;
    use std::os::unix::ffi::OsStrExt;
    let old: Vec<_> = std::env::vars_os().map(|(name, _)| name).collect();
    for name in old {
        // SAFETY: called by a copy of a zygote before its task: one thread.
        unsafe { std::env::remove_var(name) };
    }
    for (name, value) in variables {
        // SAFETY: as above.
        unsafe { std::env::set_var(OsStr::from_bytes(name), OsStr::from_bytes(value)) };
    }
    // SAFETY: as above.
    unsafe { std::env::set_var(FAMILY, family) };
}

/// Adds a token to the family of this process, a fork with one thread: what it executes inherits it.
pub(crate) fn join_family(token: &str) {
    let above = std::env::var_os(FAMILY).map(|above| format!("{}:", above.to_string_lossy()));
    // SAFETY: one thread.
    unsafe { std::env::set_var(FAMILY, above.unwrap_or_default() + token) };
}
