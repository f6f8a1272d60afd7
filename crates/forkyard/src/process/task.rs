//! Functions that other processes can call by name.
//!
//! `#[task]` puts an [`Entry`] for the function into a linker section of its own and makes a [`Task`] of the
//! function's name. The section is the registry: it is complete before any code runs, and the same in every
//! process of one image, so a name found in one is found in all.
//!
//! # Safety
//! The linker defines the section's start and stop; every static in it is an [`Entry`], because nothing but the
//! macro's output names the section.
#![allow(unsafe_code)]

use std::fmt;
use std::ops::Deref;

use serde::Serialize;
use serde::de::DeserializeOwned;

use super::limit;
use crate::codec;
use crate::error::{Error, Kind, Result};
use crate::shm::{self, Keep};

/// A function that can run in another process, made by `#[forkyard::task]`.
///
/// It is still a function: `work(3)` calls it here. [`spawn`](super::spawn) runs it in a child.
pub struct Task<F: 'static> {
    function: F,
    entry: &'static Entry,
}

impl<F: Copy> Clone for Task<F> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<F: Copy> Copy for Task<F> {}

impl<F> Deref for Task<F> {
    type Target = F;

    fn deref(&self) -> &F {
        &self.function
    }
}

impl<F> fmt::Debug for Task<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Task({})", self.entry.name)
    }
}

impl<F> Task<F> {
    /// Used by the macro.
    #[doc(hidden)]
    pub const fn new(function: F, entry: &'static Entry) -> Task<F> {
        Task { function, entry }
    }

    /// The task's name: module path and function.
    #[must_use]
    pub fn name(&self) -> &'static str {
        self.entry.name
    }
}

/// One registered function. Made by the macro.
#[doc(hidden)]
#[derive(Debug)]
pub struct Entry {
    name: &'static str,
    invoke: Invoke,
}

pub(crate) type Invoke = fn(&[u8]) -> Result<Answer>;

/// A task's encoded result, and what keeps the objects alive whose handles are in it.
#[doc(hidden)]
#[derive(Debug, Default)]
pub struct Answer {
    pub(crate) bytes: Vec<u8>,
    pub(crate) handles: Vec<Keep>,
}

impl Entry {
    #[doc(hidden)]
    pub const fn new(name: &'static str, invoke: Invoke) -> Entry {
        Entry { name, invoke }
    }
}

/// Functions that take the tuple `Args`: how a task's arguments become a call.
pub trait Function<Args>: Copy {
    /// What the function returns.
    type Output;

    /// Calls the function.
    fn call(self, args: Args) -> Self::Output;
}

macro_rules! function {
    ($($arg:ident)*) => {
        impl<R, $($arg),*> Function<($($arg,)*)> for fn($($arg),*) -> R {
            type Output = R;

            #[allow(non_snake_case)]
            fn call(self, ($($arg,)*): ($($arg,)*)) -> R {
                self($($arg),*)
            }
        }
    };
}
function!();
function!(A);
function!(A B);
function!(A B C);
function!(A B C D);
function!(A B C D E);
function!(A B C D E G);
function!(A B C D E G H);
function!(A B C D E G H I);

/// Decodes the arguments, calls, encodes the result. Used by the macro.
#[doc(hidden)]
pub fn invoke<F, Args>(function: F, args: &[u8]) -> Result<Answer>
where
    F: Function<Args>,
    Args: DeserializeOwned,
    F::Output: Serialize,
{
    codec::begin();
    let args = postcard::from_bytes(args)
        .map_err(|e| Error::new("decode a task's arguments", Kind::Codec(codec::explain(&e))))?;
    encode_result(&function.call(args))
}

pub(crate) fn encode_result<R: Serialize>(value: &R) -> Result<Answer> {
    codec::begin();
    let (bytes, handles) = shm::outgoing(|| codec::to_vec(value));
    let bytes = bytes.map_err(|e| Error::new("encode a task's result", Kind::Codec(codec::explain(&e))))?;
    Ok(Answer { bytes, handles })
}

/// A call of a task, ready to travel: its name, its arguments, and the fds among them.
#[derive(Debug)]
pub(crate) struct Call {
    pub(crate) task: &'static str,
    pub(crate) args: Vec<u8>,
    pub(crate) fds: Vec<std::os::fd::OwnedFd>,
    /// Keeps the shared objects among the arguments alive until the child has its own handles.
    pub(crate) kept: Vec<Keep>,
}

impl<F> Task<F> {
    /// Encodes a call with these arguments.
    pub(crate) fn call<Args>(&self, args: &Args) -> Result<Call>
    where
        F: Function<Args>,
        Args: Serialize,
    {
        let what = || format!("encode the arguments of task {}", self.entry.name);
        codec::begin();
        let ((args, outgoing), kept) = shm::outgoing(|| crate::fd::outgoing(|| codec::to_vec(args)));
        if let Some(errno) = outgoing.refused {
            return Err(Error::os_hint(what(), errno, limit::hint(errno)));
        }
        let fds = outgoing.fds;
        let args = args.map_err(|e| Error::new(what(), Kind::Codec(codec::explain(&e))))?;
        if fds.len() > crate::fd::MAX_FDS {
            let why = format!(
                "{} file descriptors, and one call carries at most {}",
                fds.len(),
                crate::fd::MAX_FDS
            );
            return Err(Error::new(what(), Kind::Invalid(why)));
        }
        Ok(Call { task: self.entry.name, args, fds, kept })
    }
}

/// Makes the section exist in a program that has no task: the linker defines its bounds only then.
#[used]
#[unsafe(link_section = "forkyard_tasks")]
static NONE: Entry = Entry::new("", |_| Ok(Answer { bytes: Vec::new(), handles: Vec::new() }));

#[allow(improper_ctypes, reason = "only their addresses are used, and the entries are Rust's own")]
unsafe extern "C" {
    #[link_name = "__start_forkyard_tasks"]
    static FIRST: Entry;
    #[link_name = "__stop_forkyard_tasks"]
    static END: Entry;
}

/// One entry of the library's own, so that the section, and with it its bounds, exists in programs without tasks.
#[used]
#[unsafe(link_section = "forkyard_tasks")]
static ANCHOR: Entry =
    Entry::new("", |_| Err(Error::new("call a task", Kind::Invalid("it has no name".into()))));

/// All tasks of this image.
fn entries() -> &'static [Entry] {
    std::hint::black_box(&raw const ANCHOR);
    let (first, end) = (&raw const FIRST, &raw const END);
    // SAFETY: the linker put both bounds around an array of entries (the heading says why nothing else is there).
    unsafe { std::slice::from_raw_parts(first, end.offset_from_unsigned(first)) }
}

/// The function registered under this name, ready to be called with encoded arguments.
pub(crate) fn find(name: &str) -> Result<Invoke> {
    match entries().iter().find(|entry| entry.name == name) {
        Some(entry) => Ok(entry.invoke),
        None => Err(Error::new(
            format!("find task {name}"),
            Kind::Invalid("this program has no such #[forkyard::task] function".to_owned()),
        )),
    }
}

/// Reads what a search for a task reads, and where the first few begin: so their pages are in memory.
pub(crate) fn touch_all() {
    std::hint::black_box(image_hash());
    entries().iter().take(16).for_each(|entry| touch(entry.invoke as *const u8));
}

/// Reads the first byte of a function.
pub(crate) fn touch(function: *const u8) {
    // SAFETY: code is readable on both architectures; nobody has another pointer for this.
    std::hint::black_box(unsafe { function.read_volatile() });
}

/// A number that differs between images with different tasks: FNV-1a over the names, in order.
pub(crate) fn image_hash() -> u64 {
    let version = env!("CARGO_PKG_VERSION");
    let names = entries().iter().map(|entry| entry.name);
    let bytes = std::iter::once(version).chain(names).flat_map(|name| name.bytes().chain([0]));
    bytes.fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3))
}
