//! A process's life word: a futex that the kernel itself marks, and wakes, when the process ends or becomes another program.
//!
//! The kernel walks a thread's robust list (set_robust_list(2), the kernel's robust-futex-ABI) at its end. glibc has registered its own list for each
//! thread, and a second one is not possible, so the first thread's list gets one node more: ours. The word that belongs to a
//! node is at a fixed distance in front of it. Two pages make that possible without a pointer in shared memory: the node
//! lies at the start of the private page, and the page before it is an alias of the shared page that has the
//! word near its end.
//!
//! The private page also keeps who this process is among others ([`identity`]), and is wiped in a fork: a copy of this process is
//! nobody until it says otherwise.
//!
//! Killed here: the node is linked before the word names this process's first thread, so from that store on the kernel tells.
//!
//! # Safety
//! The pages are static and never freed. The list belongs to the first thread, and glibc changes it only there; it is
//! changed here by that thread before main, or, in a fork, by the first one that needs it: a fork's only other threads are
//! younger, and only if its first thread locks a robust mutex of pthreads at that very moment could a link be lost.
#![allow(unsafe_code)]

use std::cell::UnsafeCell;
use std::ffi::c_void;
use std::sync::atomic::{AtomicBool, AtomicIsize, AtomicPtr, AtomicU32, Ordering};

use rustix::io::Errno;

use crate::Result;
use crate::wait::last_errno;

/// Where the life word lies in its page.
pub const WORD: usize = PAGE - DISTANCE;
/// The size of the pages here; where the system's are larger, there are no life words.
const PAGE: usize = 4096;
/// From a robust mutex's word to its list links, as glibc tells the kernel: the same on x86-64 and aarch64.
const DISTANCE: usize = 32;

#[repr(C, align(4096))]
struct Pages {
    /// Anonymous until [`hold`] puts the alias here.
    alias: UnsafeCell<[u8; PAGE]>,
    private: Private,
}

/// Wiped in a fork. `next` and `previous` are written by glibc as well.
#[repr(C, align(4096))]
struct Private {
    next: AtomicPtr<c_void>,
    linked: AtomicBool,
    identity: AtomicU32,
    gate: AtomicU32,
}

// SAFETY: the alias is only given to mremap; the rest is atomic.
unsafe impl Sync for Pages {}

static PAGES: Pages = Pages {
    alias: UnsafeCell::new([0; PAGE]),
    private: Private {
        next: AtomicPtr::new(std::ptr::null_mut()),
        linked: AtomicBool::new(false),
        identity: AtomicU32::new(0),
        gate: AtomicU32::new(0),
    },
};

const _: () = assert!(std::mem::offset_of!(Pages, private) == PAGE);
const _: () = assert!(std::mem::offset_of!(Private, next) == 0);

/// From a thread's control block to its list head, once known.
static HEAD_OFFSET: AtomicIsize = AtomicIsize::new(0);

/// `struct robust_list_head` of linux/futex.h.
#[repr(C)]
struct Head {
    next: AtomicPtr<c_void>,
    distance: std::ffi::c_long,
    pending: AtomicPtr<c_void>,
}

/// Who this process is to others: 0 until it says so, and 0 again in every fork of it once [`wipe_in_forks`] was called.
#[inline]
#[must_use]
pub fn identity() -> &'static AtomicU32 {
    &PAGES.private.identity
}

/// A word that is 0 in every fork: for a lock that no thread of the parent can leave locked in a copy.
#[must_use]
pub fn gate() -> &'static AtomicU32 {
    &PAGES.private.gate
}

/// Has the kernel wipe [`identity`] in every fork of this process (`MADV_WIPEONFORK`).
///
/// # Errors
/// As madvise(2).
pub fn wipe_in_forks() -> Result<()> {
    let page = (&raw const PAGES.private).cast_mut().cast();
    // SAFETY: the page is ours, private and anonymous, and a copy of this process expects it wiped.
    match unsafe { libc::madvise(page, PAGE, libc::MADV_WIPEONFORK) } {
        0 => Ok(()),
        _ => Err(last_errno()),
    }
}

/// Puts the node on the list of the calling thread, which is the process's first one, before main.
pub fn link_early() {
    // What fails here is tried again, and told, when the life word is needed.
    if let Ok(head) = first_threads_head() {
        // SAFETY: pthread_self has no preconditions.
        let thread = unsafe { libc::pthread_self() } as usize;
        HEAD_OFFSET.store((head as *const Head).addr().wrapping_sub(thread).cast_signed(), Ordering::Relaxed);
        link(head);
    }
}

/// Makes the word at [`WORD`] of this shared, page-aligned page the life word of this process, and returns the number to store
/// there: the thread id of its first thread. A process holds one at a time; the last one counts.
///
/// # Errors
/// `ENOSYS`: the kernel or the C library has no robust lists, or other ones. As mremap(2).
pub fn hold(page: std::ptr::NonNull<u8>) -> Result<u32> {
    if rustix::param::page_size() != PAGE {
        return Err(Errno::NOSYS);
    }
    if !PAGES.private.linked.load(Ordering::Acquire) {
        link(first_threads_head()?);
    }
    let flags = libc::MREMAP_MAYMOVE | libc::MREMAP_FIXED;
    // SAFETY: with an old size of zero the shared page is mapped a second time, in the place of the static page, which nothing
    // else uses.
    let alias = unsafe { libc::mremap(page.as_ptr().cast(), 0, PAGE, flags, PAGES.alias.get()) };
    if alias == libc::MAP_FAILED {
        return Err(last_errno());
    }
    // The kernel finds the page there when this process ends, and does not have to look for it while others wait.
    // SAFETY: an aligned word of the page that has just been mapped; others change it, so it is read as an atomic.
    unsafe { &*PAGES.alias.get().cast::<u8>().add(WORD).cast::<AtomicU32>() }.load(Ordering::Relaxed);
    Ok(rustix::process::getpid().as_raw_nonzero().get().unsigned_abs())
}

/// The list head of this process's first thread.
fn first_threads_head() -> Result<&'static Head> {
    let (mut head, mut len) = (std::ptr::null::<Head>(), 0usize);
    let pid = rustix::process::getpid().as_raw_nonzero().get();
    // SAFETY: the kernel writes a pointer and a length into the live local variables.
    if unsafe { libc::syscall(libc::SYS_get_robust_list, pid, &raw mut head, &raw mut len) } != 0 {
        return Err(last_errno());
    }
    if head.is_null() {
        head = register_again()?;
    }
    // SAFETY: the head lies in the control block of a thread that lives as long as the process.
    let head = unsafe { &*head };
    if head.distance.unsigned_abs() as usize == DISTANCE && head.distance < 0 {
        Ok(head)
    } else {
        Err(Errno::NOSYS)
    }
}

/// In a copy that was made without glibc's knowledge, the kernel has no list: registers the one that glibc's is copied to.
fn register_again() -> Result<*const Head> {
    let offset = HEAD_OFFSET.load(Ordering::Relaxed);
    if offset == 0 || rustix::thread::gettid() != rustix::process::getpid() {
        return Err(Errno::NOSYS);
    }
    // SAFETY: pthread_self has no preconditions.
    let head = (unsafe { libc::pthread_self() } as usize).wrapping_add_signed(offset) as *const Head;
    // SAFETY: it is the head of this thread's list, at the same place in every control block of this C library.
    match unsafe { libc::syscall(libc::SYS_set_robust_list, head, size_of::<Head>()) } {
        0 => Ok(head),
        _ => Err(last_errno()),
    }
}

/// Puts the node first on the list, as glibc does: each node has a back link in the word before its forward link, and so has
/// the head. Ours lies at the end of the alias page; glibc writes it, and would read it only to take the node out.
fn link(head: &'static Head) {
    let node: *mut c_void = (&raw const PAGES.private.next).cast_mut().cast();
    let end: *mut c_void = (&raw const head.next).cast_mut().cast();
    let mut first = head.next.load(Ordering::Acquire);
    // A copy made without glibc's knowledge may have it there, wiped.
    let mut behind = if first == node { end } else { first };
    loop {
        PAGES.private.next.store(behind, Ordering::Release);
        match head.next.compare_exchange(first, node, Ordering::AcqRel, Ordering::Acquire) {
            Ok(_) => break,
            Err(now) => (first, behind) = (now, now),
        }
    }
    // The lowest bit of a link marks a mutex that inherits priority.
    let back = behind.map_addr(|address| address & !1).cast::<*mut c_void>().wrapping_sub(1);
    // SAFETY: the back link of a node of this list, or of its head.
    unsafe { back.write(node) };
    PAGES.private.linked.store(true, Ordering::Release);
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd;
    use std::sync::atomic::{AtomicU32, Ordering};

    use super::{WORD, hold, identity, wipe_in_forks};
    use crate::mmap::Mapping;
    use crate::{clone, memfd, wait};

    /// A life word that a copy of this process held, after its end.
    #[test]
    fn the_kernel_marks_the_word_of_a_copy_that_ends() {
        let fd = memfd::create_sealed("test", 8192).unwrap();
        let page = Mapping::shared(fd.as_fd(), true).unwrap();
        // SAFETY: inside the mapping, and aligned.
        let word = unsafe { &*page.address().as_ptr().add(WORD).cast::<AtomicU32>() };
        identity().store(5, Ordering::Relaxed);
        wipe_in_forks().unwrap();
        // SAFETY: the copy calls nothing but the kernel.
        match unsafe { clone::fork() }.unwrap() {
            None => {
                let wiped = identity().load(Ordering::Relaxed) == 0;
                let held = hold(page.address()).map(|tid| word.store(tid | 1 << 31, Ordering::SeqCst));
                clone::exit_now(i32::from(!(wiped && held.is_ok())));
            }
            Some(pid) => {
                let pidfd = crate::pidfd::open(pid).unwrap();
                assert_eq!(wait::reap(pidfd.as_fd()).unwrap().code(), Some(0));
                assert_eq!(word.load(Ordering::SeqCst), 0xc000_0000, "OWNER_DIED, and WAITERS as it was");
            }
        }
    }
}
