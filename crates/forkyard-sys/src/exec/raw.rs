//! System calls that touch nothing but the kernel, and a clone that begins in a function.
//!
//! A child on the caller's memory has the caller's thread-local storage too, so it must not write errno there while
//! the caller runs on. Here the errno is the call's result. On architectures that this is not written for, the C library's
//! calls are used, and the caller is suspended meanwhile ([`ERRNO_FREE`]).
//!
//! # Safety
//! The instructions follow the kernel's calling conventions (syscall(2)); which pointers a call needs is its caller's promise.
#![allow(unsafe_code)]

use libc::{c_int, c_long, c_void};
use rustix::io::Errno;

use crate::Result;
use crate::clone::CloneArgs;

/// True if a child on the caller's memory leaves the caller's errno alone.
pub(super) const ERRNO_FREE: bool = cfg!(target_arch = "x86_64");

/// A system call, and nothing else. Arguments that are not given are zero.
///
/// # Safety
/// The arguments are what the call of this number expects.
#[cfg(target_arch = "x86_64")]
pub(super) unsafe fn call(number: c_long, arguments: &[usize]) -> Result<c_long> {
    let argument = |index: usize| arguments.get(index).copied().unwrap_or(0);
    let result: isize;
    // SAFETY: the kernel's convention: number and result in rax, rcx and r11 clobbered; the rest is the caller's promise.
    unsafe {
        std::arch::asm!(
            "syscall",
            inlateout("rax") number as isize => result,
            in("rdi") argument(0),
            in("rsi") argument(1),
            in("rdx") argument(2),
            in("r10") argument(3),
            in("r8") argument(4),
            lateout("rcx") _,
            lateout("r11") _,
            options(nostack),
        );
    }
    returned(result)
}

/// The same by the C library.
///
/// # Safety
/// The arguments are what the call of this number expects.
#[cfg(not(target_arch = "x86_64"))]
pub(super) unsafe fn call(number: c_long, arguments: &[usize]) -> Result<c_long> {
    let argument = |index: usize| arguments.get(index).copied().unwrap_or(0);
    // SAFETY: the caller's promise.
    let value =
        unsafe { libc::syscall(number, argument(0), argument(1), argument(2), argument(3), argument(4)) };
    if value < 0 { Err(crate::wait::last_errno()) } else { Ok(value) }
}

/// What the kernel returned: a value, or an errno below zero.
#[cfg(target_arch = "x86_64")]
fn returned(result: isize) -> Result<c_long> {
    match u16::try_from(result.wrapping_neg()) {
        Ok(errno @ 1..4096) => Err(Errno::from_raw_os_error(errno.into())),
        _ => Ok(result as c_long),
    }
}

/// clone3(2) of a child that begins in `entry`, on the stack that `args` tells; its pid. `ENOSYS` where this is not written for the
/// architecture.
///
/// # Safety
/// `args` is right for the kernel; its stack is a stack of which nothing is used, ends at a multiple of 16, and outlives the child's use
/// of it; `entry` may run there with `argument`.
#[cfg(target_arch = "x86_64")]
pub(super) unsafe fn clone_into(
    args: &CloneArgs,
    entry: extern "C" fn(*mut c_void) -> c_int,
    argument: *mut c_void,
) -> Result<c_long> {
    let result: isize;
    // SAFETY: as in `call`. Only the child goes on after `jnz`: on its own stack, into a function that does not return. r12 and r13 are
    // kept by the kernel, and by calls in between there are none.
    unsafe {
        std::arch::asm!(
            "syscall",
            "test rax, rax",
            "jnz 2f",
            "xor ebp, ebp",
            "mov rdi, r13",
            "call r12",
            "ud2",
            "2:",
            inlateout("rax") libc::SYS_clone3 as isize => result,
            in("rdi") std::ptr::from_ref(args),
            in("rsi") size_of::<CloneArgs>(),
            in("r12") entry,
            in("r13") argument,
            lateout("rcx") _,
            lateout("r11") _,
        );
    }
    returned(result)
}

/// The same.
///
/// # Safety
/// None is needed.
#[cfg(not(target_arch = "x86_64"))]
pub(super) unsafe fn clone_into(
    _: &CloneArgs,
    _: extern "C" fn(*mut c_void) -> c_int,
    _: *mut c_void,
) -> Result<c_long> {
    Err(Errno::NOSYS)
}
