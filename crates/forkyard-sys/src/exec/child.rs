//! Everything between clone and exec, in plain sight.
//!
//! [`entry`] runs in the child on the caller's memory: it may not allocate, lock, panic or call anything of
//! the C library that is more than a system call. Rights are changed by raw system calls, because the C
//! library's own would change them in every thread of the caller. errno is the calling thread's, which is
//! suspended.
//!
//! # Safety
//! Every pointer handed to the kernel is into the [`Image`], which is complete before the clone, or to a
//! local variable. Integers need no argument.
#![allow(unsafe_code)]

use std::convert::Infallible;
use std::ffi::{CString, OsString};
use std::os::unix::ffi::OsStringExt;
use std::ptr;

use libc::{c_char, c_int, c_long, c_void};
use rustix::io::Errno;

use super::descriptors;
use super::plan::{Mask, Plan, SpawnError, Step};
use super::system_signals::ignored_for_now;
use crate::Result;
use crate::wait::last_errno;

/// A plan made ready: all that the child needs, allocated and laid out.
pub(super) struct Image<'plan> {
    plan: &'plan Plan<'plan>,
    argv: Vec<*const c_char>,
    envp: Vec<*const c_char>,
    descriptors: descriptors::Prepared,
    mask: u64,
    default_signals: u64,
    /// The process whose death the parent-death signal is about.
    parent: c_long,
    /// Owns what `envp` points to.
    _environment: Vec<CString>,
    failure: Option<SpawnError>,
}

impl<'plan> Image<'plan> {
    pub(super) fn prepare(plan: &'plan Plan<'plan>) -> std::result::Result<Image<'plan>, SpawnError> {
        let own = if plan.environment.is_none() { current_environment() } else { Vec::new() };
        let environment = plan.environment.as_ref().unwrap_or(&own);
        Ok(Image {
            argv: pointers(&plan.arguments),
            envp: pointers(environment),
            descriptors: descriptors::Prepared::new(plan).map_err(|errno| Step::Descriptors.failed(errno))?,
            mask: match plan.mask {
                Mask::Inherit => 0,
                Mask::Set(mask) => mask,
            },
            default_signals: plan.default_signals | ignored_for_now(),
            // SAFETY: no pointers.
            parent: unsafe { libc::syscall(libc::SYS_getpid) },
            _environment: own,
            plan,
            failure: None,
        })
    }

    /// Tells which mask the caller had before everything was blocked.
    pub(super) fn inherit_mask(&mut self, mask: u64) {
        if self.plan.mask == Mask::Inherit {
            self.mask = mask;
        }
    }

    pub(super) fn failure(&self) -> Option<SpawnError> {
        self.failure
    }
}

/// The array of pointers that exec wants, null at its end.
fn pointers(strings: &[CString]) -> Vec<*const c_char> {
    strings.iter().map(|s| s.as_ptr()).chain([ptr::null()]).collect()
}

fn current_environment() -> Vec<CString> {
    let variable = |(name, value): (OsString, OsString)| {
        let bytes = [name.into_vec(), b"=".to_vec(), value.into_vec()].concat();
        CString::new(bytes).ok()
    };
    std::env::vars_os().filter_map(variable).collect()
}

/// The child's first and last function. Runs on the caller's memory with all signals blocked.
pub(super) extern "C" fn entry(image: *mut c_void) -> c_int {
    // SAFETY: `spawn` passes a complete Image and is suspended, so this is the only reference in use.
    let image = unsafe { &mut *image.cast::<Image<'_>>() };
    forget_handlers();
    let Err(failure) = become_program(image);
    image.failure = Some(failure);
    // SAFETY: ends this process without running anything of the caller's.
    unsafe { libc::_exit(127) }
}

/// The steps, in their order. Runs in the child, or in the process that replaces itself.
fn become_program(image: &mut Image<'_>) -> std::result::Result<Infallible, SpawnError> {
    let plan = image.plan;
    let take = |step: Step, number: c_long, args: [usize; 4]| {
        // SAFETY: below, every pointer is into the image, with its length where the call wants one.
        unsafe { call(number, args) }.map_err(|errno| step.failed(errno))
    };
    if plan.new_session {
        take(Step::Session, libc::SYS_setsid, [0; 4])?;
    }
    if let Some(group) = plan.process_group {
        take(Step::ProcessGroup, libc::SYS_setpgid, [0, group as usize, 0, 0])?;
    }
    image.descriptors.arrange().map_err(|errno| Step::Descriptors.failed(errno))?;
    if let Some(umask) = plan.umask {
        // SAFETY: no pointers; this call cannot fail.
        unsafe { libc::umask(umask) };
    }
    for (resource, limit) in &plan.limits {
        let limit = ptr::from_ref(limit) as usize;
        take(Step::Limits, libc::SYS_prlimit64, [0, *resource as usize, limit, 0])?;
    }
    if plan.no_new_privileges {
        take(Step::NoNewPrivileges, libc::SYS_prctl, [libc::PR_SET_NO_NEW_PRIVS as usize, 1, 0, 0])?;
    }
    if let Some(groups) = &plan.groups {
        take(Step::Groups, libc::SYS_setgroups, [groups.len(), groups.as_ptr() as usize, 0, 0])?;
    }
    if let Some(gid) = plan.gid {
        take(Step::Gid, libc::SYS_setresgid, [gid as usize, gid as usize, gid as usize, 0])?;
    }
    if let Some(uid) = plan.uid {
        take(Step::Uid, libc::SYS_setresuid, [uid as usize, uid as usize, uid as usize, 0])?;
    }
    if let Some(directory) = &plan.directory {
        take(Step::Directory, libc::SYS_chdir, [directory.as_ptr() as usize, 0, 0, 0])?;
    }
    if let Some(signal) = plan.parent_death {
        // After the user id, because a change of that cancels it.
        take(Step::ParentDeath, libc::SYS_prctl, [libc::PR_SET_PDEATHSIG as usize, signal as usize, 0, 0])?;
        catch_up_with_parent_death(image.parent, signal);
    }
    for signal in signals_in(image.default_signals) {
        set_disposition(signal, &KernelSigaction::DEFAULT);
    }
    set_signal_mask(image.mask);
    let program = plan.program.as_ptr() as usize;
    let (argv, envp) = (image.argv.as_ptr() as usize, image.envp.as_ptr() as usize);
    take(Step::Exec, libc::SYS_execve, [program, argv, envp, 0])?;
    // execve returns only to tell an error.
    Err(Step::Exec.failed(Errno::IO))
}

/// Sends the signal that was missed if the parent ended before it was asked for. It stays pending while it
/// is blocked, across the exec too.
fn catch_up_with_parent_death(parent: c_long, signal: c_int) {
    // SAFETY: no pointers.
    unsafe {
        if libc::syscall(libc::SYS_getppid) != parent {
            let own = libc::syscall(libc::SYS_getpid);
            libc::syscall(libc::SYS_kill, own, signal);
        }
    }
}

/// [`super::replace`] once all is prepared. Handlers need no reset: exec does that, and until then this is
/// still the caller.
pub(super) fn replace(image: &mut Image<'_>) -> SpawnError {
    // SAFETY: no pointers.
    image.parent = unsafe { libc::syscall(libc::SYS_getppid) };
    let reset = signals_in(image.default_signals);
    let before: Vec<_> = reset.filter_map(|signal| Some((signal, disposition(signal)?))).collect();
    let mask = set_signal_mask(u64::MAX);
    image.inherit_mask(mask);
    let Err(failure) = become_program(image);
    for (signal, action) in &before {
        set_disposition(*signal, action);
    }
    set_signal_mask(mask);
    failure
}

/// Resets every signal that has a handler. Ignored ones stay ignored.
fn forget_handlers() {
    for signal in signals_in(u64::MAX) {
        match disposition(signal) {
            Some(action) if action.handler > libc::SIG_IGN => {
                set_disposition(signal, &KernelSigaction::DEFAULT);
            }
            _ => {}
        }
    }
}

fn signals_in(set: u64) -> impl Iterator<Item = c_int> {
    (1..=64).filter(move |signal| set & (1 << (signal - 1)) != 0)
}

/// `struct sigaction` as the kernel of both architectures has it.
#[repr(C)]
#[derive(Clone, Copy)]
pub(super) struct KernelSigaction {
    pub(super) handler: usize,
    flags: usize,
    restorer: usize,
    mask: u64,
}

impl KernelSigaction {
    pub(super) const DEFAULT: KernelSigaction =
        KernelSigaction { handler: libc::SIG_DFL, flags: 0, restorer: 0, mask: 0 };
    pub(super) const IGNORE: KernelSigaction =
        KernelSigaction { handler: libc::SIG_IGN, ..KernelSigaction::DEFAULT };
}

/// The kernel's size of a signal set.
const SIGSET_SIZE: usize = size_of::<u64>();

pub(super) fn disposition(signal: c_int) -> Option<KernelSigaction> {
    let mut action = KernelSigaction::DEFAULT;
    let out = (&raw mut action) as usize;
    // SAFETY: reads into a local structure of the kernel's layout.
    unsafe { call(libc::SYS_rt_sigaction, [signal as usize, 0, out, SIGSET_SIZE]) }.ok()?;
    Some(action)
}

pub(super) fn set_disposition(signal: c_int, action: &KernelSigaction) {
    let action = ptr::from_ref(action) as usize;
    // SAFETY: the default, or an action that the kernel gave. SIGKILL and SIGSTOP are refused, and have the
    // default anyway.
    let _default_anyway = unsafe { call(libc::SYS_rt_sigaction, [signal as usize, action, 0, SIGSET_SIZE]) };
}

/// Sets the calling thread's signal mask and returns the one before. Cannot fail.
pub(super) fn set_signal_mask(mask: u64) -> u64 {
    let mut before = 0_u64;
    // SAFETY: both pointers are to live local sets of the size given.
    unsafe {
        libc::syscall(
            libc::SYS_rt_sigprocmask,
            libc::SIG_SETMASK,
            &raw const mask,
            &raw mut before,
            SIGSET_SIZE,
        );
    }
    before
}

/// A system call, and nothing else.
///
/// # Safety
/// The arguments are what the call of this number expects.
unsafe fn call(number: c_long, [a, b, c, d]: [usize; 4]) -> Result<c_long> {
    // SAFETY: the caller's promise. Calls that look at a fifth argument want it zero (prctl).
    match unsafe { libc::syscall(number, a, b, c, d, 0_usize) } {
        -1 => Err(last_errno()),
        value => Ok(value),
    }
}
