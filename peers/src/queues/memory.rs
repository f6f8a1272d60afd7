//! Memory alone: two processes that write and read the same bytes as through a queue, through two shared buffers in turn, and nothing else.
//! They spin on a word of each buffer; no message is counted, kept or lost. What a queue of these sizes may cost.

use std::sync::atomic::{AtomicU64, Ordering};

use super::{Get, Put, Work, one_way, pause, there_and_back};

/// Buffers that are used in turn.
const BUFFERS: usize = 2;
/// Bytes before the messages: a line for each buffer's word.
const WORDS: usize = 4096;
/// Where the words of the buffers begin to say that all has come.
const END: u64 = u64::MAX;

/// The buffers. A word is odd while there is a message in its buffer.
#[derive(Clone, Copy)]
struct Buffers {
    start: *mut u8,
    size: usize,
    next: usize,
}

impl Buffers {
    fn new(size: usize) -> Result<Buffers, String> {
        let len = WORDS + BUFFERS * size;
        let (protection, flags) = (libc::PROT_READ | libc::PROT_WRITE, libc::MAP_SHARED | libc::MAP_ANONYMOUS);
        // SAFETY: a fresh mapping, which is never undone, of zeros.
        let start =
            unsafe { libc::mmap(std::ptr::null_mut(), len, protection, flags | libc::MAP_POPULATE, -1, 0) };
        if start == libc::MAP_FAILED { Err("no memory".into()) } else { Ok(Buffers { start: start.cast(), size, next: 0 }) }
    }

    fn word(&self, buffer: usize) -> &AtomicU64 {
        // SAFETY: in the mapping: there are few buffers.
        unsafe { &*self.start.add(buffer * 128).cast() }
    }

    fn buffer(&self) -> *mut u8 {
        // SAFETY: in the mapping.
        unsafe { self.start.add(WORDS + self.next * self.size) }
    }

    /// Waits until the next buffer is full, or empty; false at the end.
    fn wait(&self, is_full: bool) -> bool {
        let mut spins = 0;
        loop {
            let word = self.word(self.next).load(Ordering::Acquire);
            if word == END {
                return false;
            }
            if (word % 2 == 1) == is_full {
                return true;
            }
            pause(&mut spins);
        }
    }

    /// Hands the buffer over, and goes on to the next.
    fn pass(&mut self) {
        let word = self.word(self.next);
        word.store(word.load(Ordering::Relaxed) + 1, Ordering::Release);
        self.next = (self.next + 1) % BUFFERS;
    }

    /// Waits until all was read, and says that no more comes.
    fn end(mut self) {
        for _ in 0..BUFFERS {
            self.wait(false);
            self.next = (self.next + 1) % BUFFERS;
        }
        (0..BUFFERS).for_each(|buffer| self.word(buffer).store(END, Ordering::Release));
    }
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
        Work::OneWay((1, 1), _) | Work::Some(_) => Ok(one_way(size, work, || writer(to), || Reader(to), |_| ())),
        Work::OneWay(..) => Err("is for two".into()),
    }
}

pub(super) fn copied(size: usize, work: Work) -> Result<f64, String> {
    run(size, work, false)
}

pub(super) fn in_place(size: usize, work: Work) -> Result<f64, String> {
    run(size, work, true)
}
