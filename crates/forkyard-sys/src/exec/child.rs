//! Everything between clone and exec, in plain sight.
//!
//! [`entry`] runs in the child on the caller's memory: it may not allocate, lock, panic or call anything of
//! the C library. Rights are changed by raw system calls, because the C library's own would change them in every
//! thread of the caller; errno is the calling thread's, which may be running, and is not touched (`raw.rs`).
//!
//! # Safety
//! Every pointer handed to the kernel is into the [`Image`], which is complete before the clone, or to a
//! local variable. Integers need no argument.
#![allow(unsafe_code)]

use std::borrow::Borrow;
use std::convert::Infallible;
use std::ffi::{CString, OsString};
use std::os::unix::ffi::OsStringExt;
use std::ptr;

use libc::{c_char, c_int, c_long, c_void};
use rustix::io::Errno;

use super::descriptors;
use super::plan::{Mask, Plan, SpawnError, Step};
use super::raw::call;
use super::system_signals::ignored_for_now;

/// A plan made ready: all that the child needs, allocated and laid out.
pub(super) struct Image<P> {
    plan: P,
    argv: Vec<*const c_char>,
    envp: Vec<*const c_char>,
    descriptors: descriptors::Prepared,
    mask: u64,
    default_signals: u64,
    /// The process whose death the parent-death signal is about.
    parent: c_long,
    /// The child has no handlers of the caller's: the clone has left them out.
    without_handlers: bool,
    /// Owns what `envp` points to.
    _environment: Vec<CString>,
    failure: Option<SpawnError>,
}

impl<'fd, P: Borrow<Plan<'fd>>> Image<P> {
    pub(super) fn prepare(owner: P, descriptors: descriptors::Prepared) -> Image<P> {
        let plan = owner.borrow();
        let own = if plan.environment.is_none() { current_environment() } else { Vec::new() };
        let environment = plan.environment.as_ref().unwrap_or(&own);
        Image {
            argv: pointers(&plan.arguments),
            envp: pointers(environment),
            descriptors,
            mask: match plan.mask {
                Mask::Inherit => 0,
                Mask::Set(mask) => mask,
            },
            default_signals: plan.default_signals | ignored_for_now(),
            // SAFETY: no pointers.
            parent: unsafe { libc::syscall(libc::SYS_getpid) },
            without_handlers: false,
            _environment: own,
            failure: None,
            plan: owner,
        }
    }

    /// Tells which mask the caller had before everything was blocked.
    pub(super) fn inherit_mask(&mut self, mask: u64) {
        if self.plan.borrow().mask == Mask::Inherit {
            self.mask = mask;
        }
    }

    /// Tells whether the clone has left the caller's handlers out.
    pub(super) fn without_handlers(&mut self, left_out: bool) {
        self.without_handlers = left_out;
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
pub(super) extern "C" fn entry<'fd, P: Borrow<Plan<'fd>>>(image: *mut c_void) -> c_int {
    // SAFETY: the caller passes a complete Image of this type and leaves it alone, so this is the only reference in use.
    let image = unsafe { &mut *image.cast::<Image<P>>() };
    if !image.without_handlers {
        forget_handlers();
    }
    let Err(failure) = become_program(image);
    image.failure = Some(failure);
    loop {
        // SAFETY: ends this process without running anything of the caller's.
        let _never = unsafe { call(libc::SYS_exit_group, &[127]) };
    }
}

/// The steps, in their order. Runs in the child, or in the process that replaces itself.
fn become_program<'fd, P: Borrow<Plan<'fd>>>(
    image: &mut Image<P>,
) -> std::result::Result<Infallible, SpawnError> {
    let plan: &Plan<'fd> = image.plan.borrow();
    let take = |step: Step, number: c_long, args: &[usize]| {
        // SAFETY: below, every pointer is into the image, with its length where the call wants one.
        unsafe { call(number, args) }.map_err(|errno| step.failed(errno))
    };
    if plan.new_session {
        take(Step::Session, libc::SYS_setsid, &[])?;
    }
    if let Some(group) = plan.process_group {
        take(Step::ProcessGroup, libc::SYS_setpgid, &[0, group as usize])?;
    }
    image.descriptors.arrange().map_err(|errno| Step::Descriptors.failed(errno))?;
    if let Some(umask) = plan.umask {
        // It cannot fail.
        let _before = take(Step::Descriptors, libc::SYS_umask, &[umask as usize]);
    }
    for (resource, limit) in &plan.limits {
        let limit = ptr::from_ref(limit) as usize;
        take(Step::Limits, libc::SYS_prlimit64, &[0, *resource as usize, limit])?;
    }
    if plan.no_new_privileges {
        take(Step::NoNewPrivileges, libc::SYS_prctl, &[libc::PR_SET_NO_NEW_PRIVS as usize, 1])?;
    }
    if let Some(groups) = &plan.groups {
        take(Step::Groups, libc::SYS_setgroups, &[groups.len(), groups.as_ptr() as usize])?;
    }
    if let Some(gid) = plan.gid {
        take(Step::Gid, libc::SYS_setresgid, &[gid as usize; 3])?;
    }
    if let Some(uid) = plan.uid {
        take(Step::Uid, libc::SYS_setresuid, &[uid as usize; 3])?;
    }
    if let Some(directory) = &plan.directory {
        take(Step::Directory, libc::SYS_chdir, &[directory.as_ptr() as usize])?;
    }
    if let Some(signal) = plan.parent_death {
        // After the user id, because a change of that cancels it.
        take(Step::ParentDeath, libc::SYS_prctl, &[libc::PR_SET_PDEATHSIG as usize, signal as usize])?;
        catch_up_with_parent_death(image.parent, signal);
    }
    for signal in signals_in(image.default_signals) {
        set_disposition(signal, &KernelSigaction::DEFAULT);
    }
    set_signal_mask(image.mask);
    let program = plan.program.as_ptr() as usize;
    let (argv, envp) = (image.argv.as_ptr() as usize, image.envp.as_ptr() as usize);
    match plan.file {
        // The program's name is empty then: the file itself is meant.
        Some(file) => {
            let flags = libc::AT_EMPTY_PATH as usize;
            take(Step::Exec, libc::SYS_execveat, &[file as usize, program, argv, envp, flags])?
        }
        None => take(Step::Exec, libc::SYS_execve, &[program, argv, envp])?,
    };
    // execve returns only to tell an error.
    Err(Step::Exec.failed(Errno::IO))
}

/// Sends the signal that was missed if the parent ended before it was asked for. It stays pending while it
/// is blocked, across the exec too.
fn catch_up_with_parent_death(parent: c_long, signal: c_int) {
    // SAFETY: no pointers.
    unsafe {
        if call(libc::SYS_getppid, &[]) != Ok(parent)
            && let Ok(own) = call(libc::SYS_getpid, &[])
        {
            let _cannot_fail = call(libc::SYS_kill, &[own as usize, signal as usize]);
        }
    }
}

/// [`super::replace`] once all is prepared. Handlers need no reset: exec does that, and until then this is
/// still the caller.
pub(super) fn replace<'fd, P: Borrow<Plan<'fd>>>(image: &mut Image<P>) -> SpawnError {
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
    unsafe { call(libc::SYS_rt_sigaction, &[signal as usize, 0, out, SIGSET_SIZE]) }.ok()?;
    Some(action)
}

pub(super) fn set_disposition(signal: c_int, action: &KernelSigaction) {
    let action = ptr::from_ref(action) as usize;
    // SAFETY: the default, or an action that the kernel gave. SIGKILL and SIGSTOP are refused, and have the
    // default anyway.
    let _default_anyway = unsafe { call(libc::SYS_rt_sigaction, &[signal as usize, action, 0, SIGSET_SIZE]) };
}

/// Sets the calling thread's signal mask and returns the one before. Cannot fail.
pub(super) fn set_signal_mask(mask: u64) -> u64 {
    let mut before = 0_u64;
    let (to, from) = ((&raw const mask) as usize, (&raw mut before) as usize);
    // SAFETY: both pointers are to live local sets of the size given.
    let _cannot_fail =
        unsafe { call(libc::SYS_rt_sigprocmask, &[libc::SIG_SETMASK as usize, to, from, SIGSET_SIZE]) };
    before
}
