//! Which refusals of the kernel are limits that pass, and are waited out.

use forkyard_sys::Errno;

/// True if the same call may succeed later, when somebody else has given something back.
pub(super) fn is_met(errno: Errno) -> bool {
    matches!(
        errno,
        Errno::MFILE
            | Errno::NFILE
            | Errno::NOBUFS
            | Errno::NOMEM
            | Errno::AGAIN
            | Errno::NOSPC
            | Errno::TOOMANYREFS
    )
}
