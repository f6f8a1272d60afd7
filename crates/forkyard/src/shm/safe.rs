//! Which types may lie in shared memory.
//!
//! # Safety
//! The impls are for types without addresses, destructors or values that some bit pattern is not.
#![allow(unsafe_code)]

use std::sync::atomic::{
    AtomicI8, AtomicI16, AtomicI32, AtomicI64, AtomicIsize, AtomicU8, AtomicU16, AtomicU32, AtomicU64,
    AtomicUsize,
};

/// Plain data that may lie in shared memory: numbers, arrays of them, and structures of such fields.
///
/// Derive it for a `#[repr(C)]` structure; what does not fit does not compile: a reference, a `String` or a `Vec` has an address
/// in it, which means nothing in another process; a `bool`, a `char` or an enum has bit patterns that are no value, and
/// another process may write any.
///
/// ```
/// #[derive(Clone, Copy, forkyard::ShmSafe)]
/// #[repr(C)]
/// struct Position {
///     x: f64,
///     y: f64,
/// }
/// ```
///
/// ```compile_fail
/// #[derive(Clone, Copy, forkyard::ShmSafe)]
/// #[repr(C)]
/// struct Name<'a> {
///     text: &'a str,
/// }
/// ```
///
/// # Safety
/// Every bit pattern is a valid value, the layout is fixed (`repr(C)`, `repr(transparent)` or a primitive), nothing in it is an address,
/// and nothing needs a drop. Its alignment is at most 64.
pub unsafe trait ShmSafe: Send + 'static {}

/// What may lie in shared memory while others write it: all of it is atomic, and all-zero is the initial value.
///
/// # Safety
/// As [`ShmSafe`]; all access is atomic.
pub(crate) unsafe trait ShmAtomic: Sync + 'static {}

/// Each of these is a number.
macro_rules! numbers {
    ($($number:ty)*) => {$(
        // SAFETY: a number: every bit pattern is one.
        unsafe impl ShmSafe for $number {}
    )*};
}
numbers!(u8 u16 u32 u64 u128 usize i8 i16 i32 i64 i128 isize f32 f64);
numbers!(AtomicU8 AtomicU16 AtomicU32 AtomicU64 AtomicUsize AtomicI8 AtomicI16 AtomicI32 AtomicI64 AtomicIsize);

// SAFETY: elements without gaps.
unsafe impl<T: ShmSafe, const N: usize> ShmSafe for [T; N] {}

// SAFETY: an atomic integer.
unsafe impl ShmAtomic for AtomicU8 {}
// SAFETY: an atomic integer.
unsafe impl ShmAtomic for AtomicU16 {}
// SAFETY: an atomic integer.
unsafe impl ShmAtomic for AtomicU32 {}
// SAFETY: an atomic integer.
unsafe impl ShmAtomic for AtomicU64 {}
// SAFETY: an array of such values without gaps.
unsafe impl<T: ShmAtomic, const N: usize> ShmAtomic for [T; N] {}
