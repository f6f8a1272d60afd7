//! Where a handle of a queue without a bound is: the segments that it puts into and gets from, which it keeps for its next call.
//!
//! Calls look at them without waiting for each other, and never wait for somebody who was forked away in the middle: what cannot be
//! looked at now is found anew.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, RwLock};

use super::chain::Segment;
use super::segment::Link;

/// A segment that a handle has used last.
#[derive(Debug, Default)]
pub(crate) struct Slot(RwLock<Option<Arc<Link>>>);

impl Slot {
    /// Calls `body` with the segment, which stays in place until it returns.
    #[inline]
    pub(crate) fn with<R>(&self, body: impl FnOnce(&Arc<Link>) -> R) -> Option<R> {
        let guard = self.0.try_read().ok()?;
        guard.as_ref().map(body)
    }

    /// The segment.
    pub(crate) fn get(&self) -> Option<Arc<Link>> {
        self.with(Arc::clone)
    }

    /// Keeps this one from now on.
    pub(crate) fn set(&self, link: &Arc<Link>) {
        let old = self.0.try_write().ok().and_then(|mut slot| slot.replace(Arc::clone(link)));
        // Letting go of it is not done under the lock.
        drop(old);
    }

    /// Forgets that one.
    pub(crate) fn forget(&self, link: &Arc<Link>) {
        let old =
            self.0.try_write().ok().and_then(|mut slot| slot.take_if(|kept| kept.name() == link.name()));
        drop(old);
    }
}

/// The segments that a handle has used last.
#[derive(Debug, Default)]
pub(crate) struct Links {
    pub(crate) producing: Slot,
    pub(crate) consuming: Slot,
    /// Where it consumed when it last slept.
    slept_at: AtomicU64,
}

impl Links {
    /// Called before a sleep at this position of a segment: true if more messages than so many came since the one before. A hint.
    pub(crate) fn is_busy(&self, position: u64, than: u64) -> bool {
        position.abs_diff(self.slept_at.swap(position, Ordering::Relaxed)) > than
    }
}

impl Clone for Links {
    /// Another handle begins anew.
    fn clone(&self) -> Links {
        Links::default()
    }
}

#[cfg(test)]
mod tests {
    use super::Links;

    #[test]
    fn a_consumer_that_got_many_messages_since_its_last_sleep_is_busy() {
        let links = Links::default();
        assert!(links.is_busy(65, 64));
        assert!(!links.is_busy(129, 64));
        assert!(links.is_busy(3, 64));
        assert!(!links.is_busy(3, 64));
    }
}
