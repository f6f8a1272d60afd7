//! Where a process finds out that it is to be a zygote: before main.
//!
//! The function here stands in `.init_array`, so it runs in every program that links this crate, after the standard
//! library's own initialiser. In an ordinary start it looks for one environment variable and returns. In a zygote it
//! never returns: the program's main function does not run a second time.
//!
//! The variable alone is not enough: descriptor 3 must be a packet socket whose other end was made by this
//! process's parent. Anything else is an ordinary start with a stray variable.
//!
//! # Safety
//! Before main there is one thread, so the environment may be changed. The marker points into the initial
//! environment block, which lies in this process's own memory for as long as it lives.
#![allow(unsafe_code)]

use std::ffi::{CStr, c_char};
use std::os::fd::{BorrowedFd, FromRawFd, OwnedFd};

use forkyard_sys::{prctl, socket};

/// Marks a zygote: `template:TOKEN` or `once:TOKEN`.
pub(crate) const VARIABLE: &str = "FORKYARD_ZYGOTE";
/// Tokens of the zygotes above a guarded process, innermost last, separated by colons.
pub(crate) const FAMILY: &str = "FORKYARD_FAMILY";
/// The descriptor of the request socket.
pub(crate) const SOCKET: i32 = 3;

#[used]
#[unsafe(link_section = ".init_array")]
static CONSTRUCTOR: extern "C" fn() = constructor;

unsafe extern "C" {
    fn getenv(name: *const c_char) -> *mut c_char;
}

extern "C" fn constructor() {
    // SAFETY: getenv reads the environment, which nobody changes before main.
    let value = unsafe { getenv(c"FORKYARD_ZYGOTE".as_ptr()) };
    if value.is_null() || forkyard_sys::fallback::set_uid() {
        return;
    }
    // SAFETY: fcntl on a number that may be closed is an error, not undefined; the borrow ends with this function.
    let fd = unsafe { BorrowedFd::borrow_raw(SOCKET) };
    if !prctl::parent().is_some_and(|parent| socket::is_pair_made_by(fd, parent)) {
        return;
    }
    // SAFETY: a non-null result of getenv is a string.
    let text = unsafe { CStr::from_ptr(value) }.to_bytes();
    let Some((mode, token)) = std::str::from_utf8(text).ok().and_then(|text| text.split_once(':')) else {
        return;
    };
    let (once, token) = (mode == "once", token.to_owned());
    let marker = Marker { address: value, len: text.len() };
    // SAFETY: one thread.
    unsafe { std::env::remove_var(VARIABLE) };
    // SAFETY: the socket was put there for this process by its parent, and nobody else here knows it.
    let socket = unsafe { OwnedFd::from_raw_fd(SOCKET) };
    super::inside::main(socket, once, token, marker)
}

/// The place in this process's initial environment that `/proc/PID/environ` shows, and copies inherit.
pub(crate) struct Marker {
    address: *mut c_char,
    len: usize,
}

// SAFETY: used by the one thread of a zygote or of its copy.
unsafe impl Send for Marker {}
// SAFETY: as above.
unsafe impl Sync for Marker {}

impl Marker {
    /// Overwrites it: this process is meant to outlive its requester.
    pub(crate) fn erase(&self) {
        // SAFETY: the bytes of the value, without its NUL, in memory that belongs to this process.
        unsafe { std::ptr::write_bytes(self.address, b'-', self.len) };
    }
}

/// Sets or removes a variable of this process.
pub(crate) fn set_variable(name: &str, value: Option<&str>) {
    match value {
        // SAFETY: called by a zygote, or by its copy before the task: one thread.
        Some(value) => unsafe { std::env::set_var(name, value) },
        // SAFETY: as above.
        None => unsafe { std::env::remove_var(name) },
    }
}

/// Replaces all variables of this process.
pub(crate) fn replace_variables(variables: &[(Vec<u8>, Vec<u8>)]) {
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
}
