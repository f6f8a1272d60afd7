//! Fallbacks for older kernels, and the switch that forces them in tests.
//!
//! `FORKYARD_TEST_FALLBACK` holds a comma list of features that this process and its children pretend not to
//! have: `clone3`, `clone-parent`, `close-range`, `pidfd-info`, `futex-waitv`, `memfd-exec`, `cpu-times`, or `all`. It is read once and ignored in a
//! set-uid program. It never enables anything: it can only make Forkyard take the slower way.
//!
//! # Safety
//! The one unsafe call reads the auxiliary vector.
#![allow(unsafe_code)]

use std::sync::OnceLock;

/// A kernel feature that Forkyard can do without.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Feature {
    /// clone3(2), Linux 5.3, refused by old seccomp profiles: `clone` instead.
    Clone3,
    /// `CLONE_PARENT`, refused to pid 1 of a namespace and by some sandboxes: a fresh exec instead.
    CloneParent,
    /// close_range(2), Linux 5.9 (5.11 for close-on-exec): a walk over `/proc/self/fd` instead.
    CloseRange,
    /// `PIDFD_GET_INFO` with exit status, Linux 6.15: a foreign wait leaves an unknown status.
    PidfdInfo,
    /// futex_waitv(2), Linux 5.16: sleeping on one word at a time, in slices.
    FutexWaitv,
    /// Executing a memfd, refused by `vm.memfd_noexec` and some sandboxes: a clone of the zygote instead.
    MemfdExec,
    /// Times of the processors in `/proc/stat`, hidden in some sandboxes: all count as idle instead.
    CpuTimes,
}

/// The environment variable that forces fallbacks.
pub const VARIABLE: &str = "FORKYARD_TEST_FALLBACK";

const NAMES: [(Feature, &str); 7] = [
    (Feature::Clone3, "clone3"),
    (Feature::CloneParent, "clone-parent"),
    (Feature::CloseRange, "close-range"),
    (Feature::PidfdInfo, "pidfd-info"),
    (Feature::FutexWaitv, "futex-waitv"),
    (Feature::MemfdExec, "memfd-exec"),
    (Feature::CpuTimes, "cpu-times"),
];

/// True if a test asked to do without this feature.
#[must_use]
pub fn forced(feature: Feature) -> bool {
    static FORCED: OnceLock<u8> = OnceLock::new();
    FORCED.get_or_init(read) & (1 << feature as u8) != 0
}

fn read() -> u8 {
    if set_uid() {
        return 0;
    }
    let Some(list) = std::env::var_os(VARIABLE) else { return 0 };
    let mut bits = 0;
    for word in list.to_string_lossy().split(',') {
        for (feature, name) in NAMES {
            if word == name || word == "all" {
                bits |= 1 << feature as u8;
            }
        }
    }
    bits
}

/// True in a program that runs with more rights than its caller has: its environment is the caller's and not to
/// be trusted.
#[must_use]
pub fn set_uid() -> bool {
    // SAFETY: getauxval reads the auxiliary vector of this process and touches nothing else.
    unsafe { libc::getauxval(libc::AT_SECURE) != 0 }
}
