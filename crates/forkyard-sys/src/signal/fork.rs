//! Hooks around every fork(3) of the process, also of foreign code.
//!
//! # Safety
//! The one raw call registers plain functions, which are valid as long as the program.
#![allow(unsafe_code)]

use rustix::io::Errno;

use crate::Result;

/// Has glibc call `prepare` before every fork, and `parent` and `child` after it, all in the forking thread.
///
/// # Errors
/// `ENOMEM`: no room for another hook.
#[doc(alias = "pthread_atfork")]
pub fn hooks(prepare: extern "C" fn(), parent: extern "C" fn(), child: extern "C" fn()) -> Result<()> {
    let call = |hook: extern "C" fn()| Some(hook as unsafe extern "C" fn());
    // SAFETY: three functions without arguments that live as long as the program.
    match unsafe { libc::pthread_atfork(call(prepare), call(parent), call(child)) } {
        0 => Ok(()),
        errno => Err(Errno::from_raw_os_error(errno)),
    }
}
