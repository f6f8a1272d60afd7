//! Resource limits, users and groups, and dropping to them.
//!
//! # Safety
//! The raw calls get pointers to live local buffers and NUL-terminated strings, and sizes that match.
#![allow(unsafe_code)]

use std::ffi::CString;

use crate::wait::last_errno;
use crate::{Errno, Result};

/// A resource that setrlimit(2) limits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Resource {
    name: &'static str,
    number: libc::__rlimit_resource_t,
}

const RESOURCES: [Resource; 16] = [
    Resource { name: "as", number: libc::RLIMIT_AS },
    Resource { name: "core", number: libc::RLIMIT_CORE },
    Resource { name: "cpu", number: libc::RLIMIT_CPU },
    Resource { name: "data", number: libc::RLIMIT_DATA },
    Resource { name: "fsize", number: libc::RLIMIT_FSIZE },
    Resource { name: "locks", number: libc::RLIMIT_LOCKS },
    Resource { name: "memlock", number: libc::RLIMIT_MEMLOCK },
    Resource { name: "msgqueue", number: libc::RLIMIT_MSGQUEUE },
    Resource { name: "nice", number: libc::RLIMIT_NICE },
    Resource { name: "nofile", number: libc::RLIMIT_NOFILE },
    Resource { name: "nproc", number: libc::RLIMIT_NPROC },
    Resource { name: "rss", number: libc::RLIMIT_RSS },
    Resource { name: "rtprio", number: libc::RLIMIT_RTPRIO },
    Resource { name: "rttime", number: libc::RLIMIT_RTTIME },
    Resource { name: "sigpending", number: libc::RLIMIT_SIGPENDING },
    Resource { name: "stack", number: libc::RLIMIT_STACK },
];

impl Resource {
    /// Open file descriptors, `RLIMIT_NOFILE`.
    pub const NOFILE: Resource = RESOURCES[9];
    /// Bytes of a file, `RLIMIT_FSIZE`.
    pub const FSIZE: Resource = RESOURCES[4];
    /// CPU time of the process, in seconds, `RLIMIT_CPU`.
    pub const CPU: Resource = RESOURCES[2];

    /// The resource of this name, as prlimit(1) spells it.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Resource> {
        RESOURCES.into_iter().find(|resource| resource.name == name)
    }

    /// Its name.
    #[must_use]
    pub const fn name(self) -> &'static str {
        self.name
    }

    /// Its number, `RLIMIT_*`.
    #[must_use]
    pub const fn number(self) -> u32 {
        self.number
    }

    /// All names, sorted.
    #[must_use]
    pub fn names() -> Vec<&'static str> {
        RESOURCES.iter().map(|resource| resource.name).collect()
    }

    /// The limits of this process: soft and hard, `None` for unlimited.
    ///
    /// # Errors
    /// `EINVAL`: the kernel does not know the resource.
    pub fn get(self) -> Result<(Option<u64>, Option<u64>)> {
        let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
        // SAFETY: the pointer is to a live local structure of the type that getrlimit fills.
        match unsafe { libc::getrlimit(self.number, &raw mut limit) } {
            0 => Ok((from_raw(limit.rlim_cur), from_raw(limit.rlim_max))),
            _ => Err(last_errno()),
        }
    }

    /// Sets the limits of this process. A hard limit above the present one means the present one, as far as
    /// the process may not raise it.
    ///
    /// # Errors
    /// `EINVAL`: the soft limit is above the hard one. `EPERM`: the process may not raise the limit.
    pub fn set(self, soft: Option<u64>, hard: Option<u64>) -> Result<()> {
        let limit = libc::rlimit { rlim_cur: raw(soft), rlim_max: raw(hard) };
        // SAFETY: the pointer is to a live local structure, which setrlimit reads.
        match unsafe { libc::setrlimit(self.number, &raw const limit) } {
            0 => Ok(()),
            _ => Err(last_errno()),
        }
    }
}

/// All limits of this process, soft and hard: to see whether they have changed. What cannot be read is `None`.
pub type Snapshot = [Option<(Option<u64>, Option<u64>)>; 16];

/// The limits now.
#[must_use]
pub fn snapshot() -> Snapshot {
    RESOURCES.map(|resource| resource.get().ok())
}

fn from_raw(value: libc::rlim_t) -> Option<u64> {
    (value != libc::RLIM_INFINITY).then_some(value)
}

/// A limit as the kernel takes it: `None` is unlimited.
#[must_use]
pub fn raw(value: Option<u64>) -> u64 {
    value.unwrap_or(libc::RLIM_INFINITY)
}

/// A user of the system: ids, and the groups it belongs to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct User {
    /// User id.
    pub uid: u32,
    /// Primary group.
    pub gid: u32,
    /// All groups, the primary one included.
    pub groups: Vec<u32>,
}

impl User {
    /// Finds a user by name; by number where no name fits (a number without an entry has no groups but 65534).
    #[must_use]
    pub fn find(name: &str) -> Option<User> {
        if let Some((uid, gid)) = passwd(name) {
            return Some(User { uid, gid, groups: groups_of(name, gid) });
        }
        let uid: u32 = name.parse().ok()?;
        match passwd_by_uid(uid) {
            Some((name, gid)) => Some(User { uid, gid, groups: groups_of(&name, gid) }),
            None => Some(User { uid, gid: NOGROUP, groups: Vec::new() }),
        }
    }
}

const NOGROUP: u32 = 65534;
const BUFFER: usize = 1 << 16;

fn passwd(name: &str) -> Option<(u32, u32)> {
    let name = CString::new(name).ok()?;
    // SAFETY: all-zero is a valid value of the structure.
    let mut entry: libc::passwd = unsafe { std::mem::zeroed() };
    let mut found = std::ptr::null_mut();
    let mut buffer = vec![0; BUFFER];
    // SAFETY: every pointer is to a live local, and the length is the buffer's.
    let result = unsafe {
        libc::getpwnam_r(name.as_ptr(), &raw mut entry, buffer.as_mut_ptr(), buffer.len(), &raw mut found)
    };
    (result == 0 && !found.is_null()).then_some((entry.pw_uid, entry.pw_gid))
}

fn passwd_by_uid(uid: u32) -> Option<(String, u32)> {
    // SAFETY: all-zero is a valid value of the structure.
    let mut entry: libc::passwd = unsafe { std::mem::zeroed() };
    let mut found = std::ptr::null_mut();
    let mut buffer = vec![0; BUFFER];
    // SAFETY: every pointer is to a live local, and the length is the buffer's.
    let result =
        unsafe { libc::getpwuid_r(uid, &raw mut entry, buffer.as_mut_ptr(), buffer.len(), &raw mut found) };
    if result != 0 || found.is_null() {
        return None;
    }
    // SAFETY: a found entry's name points to a NUL-terminated string inside the live buffer.
    let name = unsafe { std::ffi::CStr::from_ptr(entry.pw_name) };
    Some((name.to_string_lossy().into_owned(), entry.pw_gid))
}

fn groups_of(name: &str, gid: u32) -> Vec<u32> {
    let Ok(name) = CString::new(name) else { return vec![gid] };
    let mut groups = vec![0; 1024];
    let mut count = 1024;
    // SAFETY: the list has room for `count` ids, and the name is NUL-terminated.
    let result = unsafe { libc::getgrouplist(name.as_ptr(), gid, groups.as_mut_ptr(), &raw mut count) };
    if result < 0 {
        return vec![gid];
    }
    groups.truncate(usize::try_from(count).unwrap_or(0));
    groups
}

/// Finds a group by name, or by number.
#[must_use]
pub fn find_group(name: &str) -> Option<u32> {
    let text = CString::new(name).ok()?;
    // SAFETY: all-zero is a valid value of the structure.
    let mut entry: libc::group = unsafe { std::mem::zeroed() };
    let mut found = std::ptr::null_mut();
    let mut buffer = vec![0; BUFFER];
    // SAFETY: every pointer is to a live local, and the length is the buffer's.
    let result = unsafe {
        libc::getgrnam_r(text.as_ptr(), &raw mut entry, buffer.as_mut_ptr(), buffer.len(), &raw mut found)
    };
    if result == 0 && !found.is_null() { Some(entry.gr_gid) } else { name.parse().ok() }
}

/// Replaces the supplementary groups of this process.
///
/// # Errors
/// `EPERM`: it may not. `EINVAL`: too many.
pub fn set_groups(groups: &[u32]) -> Result<()> {
    // SAFETY: the pointer and the length are of one live slice.
    match unsafe { libc::setgroups(groups.len(), groups.as_ptr()) } {
        0 => Ok(()),
        _ => Err(last_errno()),
    }
}

/// Sets real, effective and saved group id, and checks that there is no way back.
///
/// # Errors
/// `EPERM`: it may not.
pub fn set_gid(gid: u32) -> Result<()> {
    // SAFETY: setresgid takes three numbers.
    match unsafe { libc::setresgid(gid, gid, gid) } {
        0 => Ok(()),
        _ => Err(last_errno()),
    }
}

/// Sets real, effective and saved user id, and checks that there is no way back to root.
///
/// # Errors
/// `EPERM`: it may not. `EAGAIN`: the user has reached its process limit.
pub fn set_uid(uid: u32) -> Result<()> {
    // SAFETY: setresuid takes three numbers.
    if unsafe { libc::setresuid(uid, uid, uid) } != 0 {
        return Err(last_errno());
    }
    // SAFETY: setuid takes a number; it succeeds only where the drop above did not hold.
    if uid != 0 && unsafe { libc::setuid(0) } == 0 {
        return Err(Errno::PERM);
    }
    Ok(())
}
