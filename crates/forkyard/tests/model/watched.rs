//! Data that the model checker watches.

use loom::cell::UnsafeCell;

/// Fails the model where somebody uses it while somebody else writes it.
#[derive(Debug, Default)]
pub(crate) struct Watched<T>(UnsafeCell<T>);

// SAFETY: loom fails where two use it at a time and one of them writes.
#[allow(unsafe_code, reason = "see above")]
unsafe impl<T: Send> Sync for Watched<T> {}
// SAFETY: as above.
#[allow(unsafe_code, reason = "see above")]
unsafe impl<T: Send> Send for Watched<T> {}

impl<T: Copy> Watched<T> {
    pub(crate) fn new(value: T) -> Watched<T> {
        Watched(UnsafeCell::new(value))
    }

    #[allow(unsafe_code, reason = "see below")]
    pub(crate) fn get(&self) -> T {
        // SAFETY: loom checks that nobody writes it now.
        self.0.with(|value| unsafe { *value })
    }

    #[allow(unsafe_code, reason = "see below")]
    pub(crate) fn change(&self, change: impl FnOnce(T) -> T) {
        // SAFETY: loom checks that nobody else uses it now.
        self.0.with_mut(|value| unsafe { *value = change(*value) });
    }
}
