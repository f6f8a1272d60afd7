//! Whether there is memory for what somebody asks for, before it is taken.
//!
//! The kernel does not refuse pages of shared memory when there are none left: it kills somebody. So this process asks how much there
//! is before it takes much at once, and each time that it has taken much in all.

use forkyard_sys::{Errno, memory};

use crate::primitive::{AtomicU64, Ordering};

/// This much is taken without asking.
const MUCH: u64 = 32 * 1024 * 1024;
/// This much stays for others, so that they can end in order.
const RESERVE: u64 = 64 * 1024 * 1024;

/// Bytes that this process has taken since it asked last; what it has given back does not count.
static TAKEN: AtomicU64 = AtomicU64::new(0);

/// Fails if so many bytes more are not to be had. `ENOMEM`.
pub(super) fn check(len: u64) -> forkyard_sys::Result<()> {
    let taken = TAKEN.fetch_add(len, Ordering::Relaxed).saturating_add(len);
    if taken < MUCH {
        return Ok(());
    }
    TAKEN.store(0, Ordering::Relaxed);
    match memory::available() {
        Some(available) if available < len.saturating_add(RESERVE) => Err(Errno::NOMEM),
        _ => Ok(()),
    }
}
