//! Kernel objects for Forkyard, as typed functions.
//!
//! This is the one crate of the project that talks to the kernel. A function here converts its arguments,
//! makes one call, maps the errno and returns; the only policy is that `EINTR` never leaves a call that can
//! be repeated. Everything above names kernel objects: an [`OwnedFd`](std::os::fd::OwnedFd) is made, a
//! [`BorrowedFd`](std::os::fd::BorrowedFd) is used, a [`Pid`] is never zero.
//!
//! Linux only (x86-64 and aarch64, glibc); kernel floor 5.4. What a newer kernel does better has a fallback,
//! and [`fallback`] forces it in tests.
#[cfg(not(all(
    target_os = "linux",
    target_env = "gnu",
    any(target_arch = "x86_64", target_arch = "aarch64")
)))]
compile_error!("forkyard runs on Linux with glibc, on x86-64 and aarch64; other targets are not supported");

pub mod bereaved;
pub mod clone;
pub mod epoll;
pub mod exec;
pub mod fallback;
pub mod futex;
pub mod handover;
pub mod inherit;
pub mod limits;
pub mod mask;
pub mod memfd;
pub mod memory;
pub mod mmap;
pub mod named;
pub mod net;
pub mod orphan;
pub mod pidfd;
pub mod poll;
pub mod prctl;
pub mod random;
pub mod robust;
pub mod signal;
pub mod socket;
pub mod stdio;
pub mod thread;
pub mod time;
pub mod wait;

pub use rustix::io::Errno;
pub use rustix::process::Pid;

/// What every call here returns: a value, or the kernel's error number.
pub type Result<T> = std::result::Result<T, Errno>;
