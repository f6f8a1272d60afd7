//! Which types may lie in shared memory.
//!
//! # Safety
//! The base impls are for atomics, whose every bit pattern is a value and which may be shared by processes.
#![allow(unsafe_code)]

use std::sync::atomic::{AtomicU8, AtomicU16, AtomicU32, AtomicU64};

/// A type that may lie in memory that other processes write to at any time.
///
/// # Safety
/// Every bit pattern is a valid value, all-zero is the initial one, all access is atomic, the layout is fixed
/// (`repr(C)` or a primitive), and nothing in it is an address or needs a drop.
pub(crate) unsafe trait ShmSafe: Sync + 'static {}

// SAFETY: an atomic integer.
unsafe impl ShmSafe for AtomicU8 {}
// SAFETY: an atomic integer.
unsafe impl ShmSafe for AtomicU16 {}
// SAFETY: an atomic integer.
unsafe impl ShmSafe for AtomicU32 {}
// SAFETY: an atomic integer.
unsafe impl ShmSafe for AtomicU64 {}
// SAFETY: an array of such values without gaps.
unsafe impl<T: ShmSafe, const N: usize> ShmSafe for [T; N] {}
