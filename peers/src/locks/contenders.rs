//! The locks that are compared, each in memory that forks share.
//!
//! # Safety
//! A mapping is anonymous, shared with forks, larger than what is put there, and never undone. What glibc initialised there stays
//! where it is.

use std::sync::atomic::{AtomicU32, Ordering};

/// Something that one at a time may be in.
pub(crate) trait Section: Sync + Sized + 'static {
    /// What the tables call it.
    const NAME: &'static str;
    /// It is for the threads of one process.
    const THREADS: bool = false;

    /// Makes one, where forks find it.
    fn make() -> Result<Self, String>;

    /// Runs `work` while nobody else does.
    fn section<R>(&self, work: impl FnOnce() -> R) -> R;
}

/// Zeroed memory that forks share.
pub(crate) fn shared_memory<T>() -> Result<&'static T, String> {
    let (protection, flags) = (libc::PROT_READ | libc::PROT_WRITE, libc::MAP_SHARED | libc::MAP_ANONYMOUS);
    // SAFETY: a new mapping at an address of the kernel's choice.
    let address = unsafe { libc::mmap(std::ptr::null_mut(), size_of::<T>(), protection, flags, -1, 0) };
    if address == libc::MAP_FAILED {
        return Err(std::io::Error::last_os_error().to_string());
    }
    // SAFETY: page-aligned, long enough, never unmapped; callers use types of which zero is a value.
    Ok(unsafe { &*address.cast() })
}

#[cfg(feature = "ours")]
pub(crate) use ours::{OurLock, OurMutex};

#[cfg(feature = "ours")]
mod ours {
    use forkyard::sync::{Lock, LockError, LockGuard, Mutex};

    use super::Section;

    /// Data and its lock.
    pub(crate) struct OurMutex(Mutex<u64>);

    impl Section for OurMutex {
        const NAME: &'static str = "forkyard Mutex";

        fn make() -> Result<Self, String> {
            Mutex::new(0).map(OurMutex).map_err(|error| error.to_string())
        }

        #[inline]
        fn section<R>(&self, work: impl FnOnce() -> R) -> R {
            let _guard = self.0.lock().or_else(LockError::recovered).expect("a mutex");
            work()
        }
    }

    /// The bare lock.
    pub(crate) struct OurLock(Lock);

    impl Section for OurLock {
        const NAME: &'static str = "forkyard Lock";

        fn make() -> Result<Self, String> {
            Lock::new().map(OurLock).map_err(|error| error.to_string())
        }

        #[inline]
        fn section<R>(&self, work: impl FnOnce() -> R) -> R {
            if let Err(LockError::OwnerDied(died)) = self.0.acquire() {
                LockGuard::keep(died.into_inner());
            }
            let result = work();
            self.0.release().expect("a lock");
            result
        }
    }
}

/// glibc's robust mutex, shared between processes.
pub(crate) struct Robust(&'static libc::pthread_mutex_t);

/// glibc's plain mutex, shared between processes.
pub(crate) struct Plain(&'static libc::pthread_mutex_t);

// SAFETY: a mutex is made to be used by several.
unsafe impl Sync for Robust {}
// SAFETY: the same.
unsafe impl Sync for Plain {}

fn mutex(robust: bool) -> Result<&'static libc::pthread_mutex_t, String> {
    let mutex: &'static libc::pthread_mutex_t = shared_memory()?;
    // SAFETY: the attributes live until they are used; the mutex is nobody else's yet.
    let failed = unsafe {
        let mut attributes = std::mem::zeroed();
        libc::pthread_mutexattr_init(&mut attributes);
        libc::pthread_mutexattr_setpshared(&mut attributes, libc::PTHREAD_PROCESS_SHARED);
        if robust {
            libc::pthread_mutexattr_setrobust(&mut attributes, libc::PTHREAD_MUTEX_ROBUST);
        }
        libc::pthread_mutex_init((&raw const *mutex).cast_mut(), &attributes)
    };
    if failed == 0 { Ok(mutex) } else { Err(std::io::Error::from_raw_os_error(failed).to_string()) }
}

impl Section for Robust {
    const NAME: &'static str = "glibc robust mutex";

    fn make() -> Result<Self, String> {
        mutex(true).map(Robust)
    }

    #[inline]
    fn section<R>(&self, work: impl FnOnce() -> R) -> R {
        let mutex = (&raw const *self.0).cast_mut();
        // SAFETY: initialised, and never moved.
        if unsafe { libc::pthread_mutex_lock(mutex) } == libc::EOWNERDEAD {
            // SAFETY: the same, and this thread has it.
            unsafe { libc::pthread_mutex_consistent(mutex) };
        }
        let result = work();
        // SAFETY: this thread has it.
        unsafe { libc::pthread_mutex_unlock(mutex) };
        result
    }
}

impl Section for Plain {
    const NAME: &'static str = "glibc shared mutex";

    fn make() -> Result<Self, String> {
        mutex(false).map(Plain)
    }

    #[inline]
    fn section<R>(&self, work: impl FnOnce() -> R) -> R {
        let mutex = (&raw const *self.0).cast_mut();
        // SAFETY: initialised, and never moved.
        unsafe { libc::pthread_mutex_lock(mutex) };
        let result = work();
        // SAFETY: this thread has it.
        unsafe { libc::pthread_mutex_unlock(mutex) };
        result
    }
}

/// POSIX's semaphore with one permit.
pub(crate) struct Semaphore(&'static libc::sem_t);

// SAFETY: a semaphore is made to be used by several.
unsafe impl Sync for Semaphore {}

impl Section for Semaphore {
    const NAME: &'static str = "sem_t";

    fn make() -> Result<Self, String> {
        let semaphore: &'static libc::sem_t = shared_memory()?;
        // SAFETY: nobody else's yet.
        match unsafe { libc::sem_init((&raw const *semaphore).cast_mut(), 1, 1) } {
            0 => Ok(Semaphore(semaphore)),
            _ => Err(std::io::Error::last_os_error().to_string()),
        }
    }

    #[inline]
    fn section<R>(&self, work: impl FnOnce() -> R) -> R {
        let semaphore = (&raw const *self.0).cast_mut();
        // SAFETY: initialised, and never moved.
        unsafe { libc::sem_wait(semaphore) };
        let result = work();
        // SAFETY: the same.
        unsafe { libc::sem_post(semaphore) };
        result
    }
}

/// parking_lot's mutex.
pub(crate) struct ForThreads(parking_lot::Mutex<()>);

impl Section for ForThreads {
    const NAME: &'static str = "parking_lot (threads)";
    const THREADS: bool = true;

    fn make() -> Result<Self, String> {
        Ok(ForThreads(parking_lot::Mutex::new(())))
    }

    #[inline]
    fn section<R>(&self, work: impl FnOnce() -> R) -> R {
        let _guard = self.0.lock();
        work()
    }
}

/// Compare-and-exchange, and the processor given away while that fails.
pub(crate) struct Cas(&'static AtomicU32);

impl Section for Cas {
    const NAME: &'static str = "raw CAS";

    fn make() -> Result<Self, String> {
        shared_memory().map(Cas)
    }

    #[inline]
    fn section<R>(&self, work: impl FnOnce() -> R) -> R {
        while self.0.compare_exchange(0, 1, Ordering::Acquire, Ordering::Relaxed).is_err() {
            std::thread::yield_now();
        }
        let result = work();
        self.0.store(0, Ordering::Release);
        result
    }
}
