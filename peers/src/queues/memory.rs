//! Memory alone: two processes that write and read the same bytes as through a queue, through a few shared buffers in turn, and nothing else.
//! A word of each buffer says whose turn it is; no message is counted, kept or lost. What a queue of these sizes may cost.

use std::sync::atomic::{AtomicU32, Ordering};

use super::{Get, Put, Work, one_way, there_and_back};

/// Buffers that are used in turn.
const BUFFERS: usize = 8;
/// Bytes before the messages: a line for each buffer's words.
const WORDS: usize = 4096;
/// Says that no more comes.
const END: u32 = u32::MAX;
/// Looks before a sleep.
const SPINS: u32 = 2000;

/// The buffers. The first word of one is odd while there is a message in it; the second is not 0 while somebody sleeps.
#[derive(Clone, Copy)]
struct Buffers {
    start: *mut u8,
    size: usize,
    next: usize,
}

impl Buffers {
    fn new(size: usize) -> Result<Buffers, String> {
        let len = WORDS + BUFFERS * size;
        let (protection, flags) =
            (libc::PROT_READ | libc::PROT_WRITE, libc::MAP_SHARED | libc::MAP_ANONYMOUS);
        // SAFETY: a fresh mapping, which is never undone, of zeros.
        let start =
            unsafe { libc::mmap(std::ptr::null_mut(), len, protection, flags | libc::MAP_POPULATE, -1, 0) };
        if start == libc::MAP_FAILED {
            return Err("no memory".into());
        }
        Ok(Buffers { start: start.cast(), size, next: 0 })
    }

    fn words(&self, buffer: usize) -> &[AtomicU32; 2] {
        // SAFETY: in the mapping: there are few buffers.
        unsafe { &*self.start.add(buffer * 128).cast() }
    }

    fn buffer(&self) -> *mut u8 {
        // SAFETY: in the mapping.
        unsafe { self.start.add(WORDS + self.next * self.size) }
    }

    /// Waits until the next buffer is full, or empty; false at the end.
    fn wait(&self, is_full: bool) -> bool {
        let [word, sleeper] = self.words(self.next);
        for spins in 0.. {
            if spins > SPINS {
                sleeper.store(1, Ordering::SeqCst);
            }
            let seen = word.load(Ordering::SeqCst);
            if seen == END {
                return false;
            }
            if (seen % 2 == 1) == is_full {
                return true;
            }
            if spins > SPINS {
                futex(word, libc::FUTEX_WAIT, seen);
            } else {
                std::hint::spin_loop();
            }
        }
        false
    }

    fn set(&self, buffer: usize, to: u32) {
        let [word, sleeper] = self.words(buffer);
        word.store(to, Ordering::SeqCst);
        if sleeper.load(Ordering::SeqCst) != 0 {
            sleeper.store(0, Ordering::SeqCst);
            futex(word, libc::FUTEX_WAKE, 1);
        }
    }

    /// Hands the buffer over, and goes on to the next.
    fn pass(&mut self) {
        let seen = self.words(self.next)[0].load(Ordering::Relaxed);
        self.set(self.next, seen.wrapping_add(1) % (END - 1));
        self.next = (self.next + 1) % BUFFERS;
    }

    /// Waits until all was read, and says that no more comes.
    fn end(mut self) {
        for _ in 0..BUFFERS {
            self.wait(false);
            self.next = (self.next + 1) % BUFFERS;
        }
        (0..BUFFERS).for_each(|buffer| self.set(buffer, END));
    }
}

fn futex(word: &AtomicU32, operation: libc::c_int, value: u32) {
    // SAFETY: the word is mapped; whatever comes of it, the caller looks again.
    unsafe {
        libc::syscall(libc::SYS_futex, word.as_ptr(), operation, value, std::ptr::null::<libc::timespec>())
    };
}

struct Writer {
    to: Buffers,
    /// A message is made where it is read.
    in_place: bool,
}

impl Put for Writer {
    fn put(&mut self, message: &[u8]) {
        self.to.wait(false);
        // SAFETY: so many bytes of the mapping, that are this process's until it says otherwise.
        unsafe { self.to.buffer().copy_from_nonoverlapping(message.as_ptr(), message.len()) };
        self.to.pass();
    }

    fn make(&mut self, message: &mut [u8], byte: u8) {
        if !self.in_place {
            message.fill(byte);
            return self.put(message);
        }
        self.to.wait(false);
        // SAFETY: as above.
        unsafe { self.to.buffer().write_bytes(byte, message.len()) };
        self.to.pass();
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        self.to.end();
    }
}

struct Reader(Buffers);

impl Get for Reader {
    fn get(&mut self, look: &mut impl FnMut(&[u8])) -> bool {
        if !self.0.wait(true) {
            return false;
        }
        // SAFETY: so many bytes of the mapping, that are this process's until it says otherwise.
        look(unsafe { std::slice::from_raw_parts(self.0.buffer(), self.0.size) });
        self.0.pass();
        true
    }
}

fn run(size: usize, work: Work, in_place: bool) -> Result<f64, String> {
    let to = Buffers::new(size)?;
    let writer = |to| Writer { to, in_place };
    match work {
        Work::RoundTrip(length) => {
            let back = Buffers::new(size)?;
            let first = |_: &dyn Fn()| (writer(to), Reader(back));
            let second = |_: &dyn Fn()| (writer(back), Reader(to));
            Ok(there_and_back(size, length, first, second, true))
        }
        Work::OneWay((1, 1), _) | Work::Some(_) => {
            Ok(one_way(size, work, || writer(to), || Reader(to), |_| ()))
        }
        Work::OneWay(..) => Err("is for two".into()),
    }
}

pub(super) fn copied(size: usize, work: Work) -> Result<f64, String> {
    run(size, work, false)
}

pub(super) fn in_place(size: usize, work: Work) -> Result<f64, String> {
    run(size, work, true)
}
