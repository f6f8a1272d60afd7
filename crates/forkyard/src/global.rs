//! A value that belongs to this process and not to a fork of it.
//!
//! It is published once and never freed: whoever has a reference may keep it, also over a fork, where the copy
//! becomes unreachable by one store and its locks, which threads that no longer exist may hold, are never tried.
//!
//! # Safety
//! The pointer is null or came from `Box::leak`, and nothing ever frees it.
#![allow(unsafe_code)]

use std::ptr;
use std::sync::atomic::{AtomicPtr, Ordering};

/// A place for a leaked value.
pub(crate) struct Global<T: 'static>(AtomicPtr<T>);

impl<T: Sync> Global<T> {
    pub(crate) const fn new() -> Global<T> {
        Global(AtomicPtr::new(ptr::null_mut()))
    }

    /// The value, if there is one.
    pub(crate) fn get(&self) -> Option<&'static T> {
        // SAFETY: see the heading.
        unsafe { self.0.load(Ordering::Acquire).as_ref() }
    }

    /// Publishes a value in place of what is there, and returns it.
    pub(crate) fn set(&self, value: T) -> &'static T {
        let value = Box::leak(Box::new(value));
        self.0.store(value, Ordering::Release);
        value
    }

    /// Makes the value unreachable. Async-signal-safe.
    pub(crate) fn clear(&self) {
        self.0.store(ptr::null_mut(), Ordering::Release);
    }
}
