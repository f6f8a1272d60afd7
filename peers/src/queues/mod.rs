//! Messages between processes: one way and there and back, through queues and what else there is.
//!
//! Producers write every byte of a message and consumers read a word of each of its cache lines, wherever it lies. The processes are forks
//! of this one; `crossbeam` is between threads, as the upper bound.

mod kernel;
mod memory;
mod others;
#[cfg(feature = "ours")]
mod ours;

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use crate::options::Options;
use crate::rounds::{Contender, alternate};
use crate::table::{Budget, Group, Report};

/// Bytes of a message.
pub const SIZES: [usize; 4] = [16, 1 << 10, 64 << 10, 1 << 20];
const PARTIES: [Parties; 3] = [(1, 1), (2, 2), (4, 4)];

/// How many produce, and how many consume.
type Parties = (usize, usize);

/// What messages are put into.
trait Put {
    fn put(&mut self, message: &[u8]);

    /// Makes a message of this byte, and puts it: in this memory, unless it is made where it will be read.
    fn make(&mut self, message: &mut [u8], byte: u8) {
        message.fill(byte);
        self.put(message);
    }
}

/// What messages are got from.
trait Get {
    /// Waits for a message, and shows it where it lies. False at the end.
    fn get(&mut self, look: &mut impl FnMut(&[u8])) -> bool;
}

/// Written where it is read.
const LOANED: &str = "forkyard, loaned";

/// What is measured.
#[derive(Clone, Copy, Debug)]
enum Work {
    /// Messages a second, in one direction.
    OneWay(Parties, Duration),
    /// Microseconds for a message there and back.
    RoundTrip(Duration),
    /// So many messages one way, for whoever counts something else.
    Some(u64),
}

/// A kind of channel: measures messages of one size.
type Kind = fn(usize, Work) -> Result<f64, String>;

fn kinds(skip_ours: bool) -> Vec<(&'static str, Kind)> {
    let mut kinds: Vec<(&'static str, Kind)> = Vec::new();
    #[cfg(feature = "ours")]
    if !skip_ours {
        kinds.extend([
            ("forkyard", ours::copied as Kind),
            ("forkyard, inline", ours::inline),
            (LOANED, ours::loaned),
            ("forkyard, spinning", ours::spinning),
        ]);
    }
    let _ = skip_ours;
    kinds.extend([
        ("ipc-channel", others::ipc_channel as Kind),
        ("iceoryx2, spinning", others::iceoryx_spinning),
        ("iceoryx2, event", others::iceoryx_event),
        ("pipe", kernel::pipe),
        ("unix socket", kernel::socket),
        ("crossbeam, threads", others::crossbeam),
        ("memory alone, copied", memory::copied),
        ("memory alone, in place", memory::in_place),
    ]);
    kinds
}

/// What is measured beside everything else.
const SOME: [&str; 4] =
    ["16 B one way, 1P1C", "1 KiB one way, 1P1C", "1 MiB one way, 1P1C", "16 B there and back"];

/// Measures a few, for a third of the time each.
pub fn run_some(options: &Options, report: &mut Report) {
    for title in SOME {
        let length = options.length / 3;
        run(&Options { only: Some(title.to_owned()), length, ..options.clone() }, report);
    }
}

/// Measures everything.
pub fn run(options: &Options, report: &mut Report) {
    let kinds = kinds(options.skip_ours);
    let measure = |title: &str, unit, size, work| {
        let contenders = kinds.iter().map(|(name, kind)| Contender::new(name, move || kind(size, work)));
        let mut group = Group::new(title, unit, alternate(options.rounds, contenders.collect()));
        // The first is what the others are set against.
        for (name, _) in &kinds[1..] {
            let is_bound =
                *name == "memory alone, copied" && size == 1 << 20 && !matches!(work, Work::RoundTrip(_));
            group = group.row(kinds[0].0, name, is_bound.then_some(Budget::AtLeast(1.0)));
        }
        if kinds.iter().any(|(name, _)| *name == LOANED) {
            let is_bound = size == 1 << 20 && !matches!(work, Work::RoundTrip(_));
            let budget = is_bound.then_some(Budget::AtLeast(1.0));
            group = group.row(LOANED, "memory alone, in place", budget);
        }
        group
    };
    for size in SIZES {
        for (producers, consumers) in PARTIES {
            let title = format!("{} one way, {producers}P{consumers}C", bytes(size));
            let work = Work::OneWay((producers, consumers), options.length);
            if options.wants(&title) {
                report.add(&measure(&title, "messages/s", size, work));
            }
        }
        let title = format!("{} there and back", bytes(size));
        if options.wants(&title) {
            report.add(&measure(&title, "µs", size, Work::RoundTrip(options.length)));
        }
    }
}

/// Sends so many messages by the kind of this name, for `strace` around it. False: there is no such kind.
pub fn send_some(name: &str, size: usize, count: u64) -> bool {
    let found = kinds(false).into_iter().find(|(own, _)| *own == name);
    found.is_some_and(|(_, kind)| kind(size, Work::Some(count)).is_ok())
}

/// The names of all kinds.
pub fn names(skip_ours: bool) -> Vec<&'static str> {
    kinds(skip_ours).into_iter().map(|(name, _)| name).collect()
}

/// A size for people.
pub fn bytes(size: usize) -> String {
    match size {
        size if size >= 1 << 20 => format!("{} MiB", size >> 20),
        size if size >= 1 << 10 => format!("{} KiB", size >> 10),
        size => format!("{size} B"),
    }
}

/// Messages that fit into a channel that is to be full now and then: some 64 KiB, and eight at least.
fn capacity(size: usize) -> usize {
    (1024 * 64 / size.max(64)).max(8)
}

/// Reads a message as its user would.
fn look_at(message: &[u8]) -> u64 {
    message.chunks(64).map(|line| u64::from(line[0])).sum()
}

/// Words that all processes share.
struct Page(&'static [AtomicU64]);

impl Page {
    fn new() -> Page {
        // SAFETY: a fresh mapping of one page, which is never undone, of zeros.
        let page = unsafe {
            libc::mmap(
                std::ptr::null_mut(),
                4096,
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_SHARED | libc::MAP_ANONYMOUS,
                -1,
                0,
            )
        };
        assert_ne!(page, libc::MAP_FAILED, "no memory for the counts");
        // SAFETY: as above.
        Page(unsafe { std::slice::from_raw_parts(page.cast(), 512) })
    }

    /// A consumer's count, and its time in nanoseconds.
    fn note(&self, number: usize, count: u64, took: Duration) {
        self.0[number].store(count, Ordering::SeqCst);
        self.0[256 + number].store(took.as_nanos() as u64, Ordering::SeqCst);
    }

    /// One that can receive says so; who sends waits for all of them.
    fn arrive(&self) {
        self.0[255].fetch_add(1, Ordering::SeqCst);
    }

    fn wait_for(&self, count: u64) {
        while self.0[255].load(Ordering::SeqCst) < count {
            std::thread::yield_now();
        }
    }

    /// Messages a second: all of them, in the longest time.
    fn rate(&self) -> f64 {
        let count: u64 = self.0[..255].iter().map(|count| count.load(Ordering::SeqCst)).sum();
        let longest = self.0[256..].iter().map(|time| time.load(Ordering::SeqCst)).max();
        count as f64 / (longest.unwrap_or(0).max(1) as f64 / 1e9)
    }
}

fn produce(put: &mut impl Put, size: usize, work: Work) {
    let mut message = vec![7; size];
    // Written each time.
    let mut send = |number: u64| put.make(&mut message, number as u8);
    match work {
        Work::Some(count) => (0..count).for_each(send),
        Work::OneWay(_, length) | Work::RoundTrip(length) => {
            let end = Instant::now() + length;
            let batch = if size < 4096 { 256 } else { 4 };
            let mut number = 0;
            while Instant::now() < end {
                (0..batch).for_each(|_| send(number));
                number += 1;
            }
        }
    }
}

fn consume(get: &mut impl Get, page: &Page, number: usize) {
    let (mut count, mut seen, mut began) = (0u64, 0, None);
    let mut look = |message: &[u8]| seen += look_at(message);
    while get.get(&mut look) {
        // From the first one on.
        began.get_or_insert_with(Instant::now);
        count += 1;
    }
    std::hint::black_box(seen);
    let took = began.map_or(Duration::ZERO, |began| began.elapsed());
    page.note(number, count.saturating_sub(1), took);
}

/// With fewer processors than spinners somebody has to let the others run.
fn pause(spins: &mut u32) {
    *spins += 1;
    if spins.is_multiple_of(1000) {
        std::thread::yield_now();
    } else {
        std::hint::spin_loop();
    }
}

fn fork(body: impl FnOnce()) -> libc::pid_t {
    // SAFETY: the child uses only what is its own, and this process has one thread where it matters.
    match unsafe { libc::fork() } {
        0 => {
            body();
            // SAFETY: ends the child.
            unsafe { libc::_exit(0) }
        }
        -1 => panic!("fork: {}", std::io::Error::last_os_error()),
        pid => pid,
    }
}

fn wait(pids: Vec<libc::pid_t>) {
    for pid in pids {
        // SAFETY: a child of ours; its status is not wanted.
        unsafe { libc::waitpid(pid, std::ptr::null_mut(), 0) };
    }
}

/// One way between processes: `putter` and `getter` make each one's end, `done` is called when all producers have ended.
fn one_way<P: Put, G: Get>(
    size: usize,
    work: Work,
    putter: impl Fn() -> P,
    getter: impl Fn() -> G,
    done: impl FnOnce(usize),
) -> f64 {
    let page = Page::new();
    let (producers, consumers) = if let Work::OneWay(parties, _) = work { parties } else { (1, 1) };
    let getters = (0..consumers)
        .map(|number| {
            fork(|| {
                let mut get = getter();
                page.arrive();
                consume(&mut get, &page, number);
            })
        })
        .collect();
    let putters = (0..producers)
        .map(|_| {
            fork(|| {
                page.wait_for(consumers as u64);
                produce(&mut putter(), size, work);
            })
        })
        .collect();
    wait(putters);
    done(consumers);
    wait(getters);
    page.rate()
}

/// There and back between two processes, through two channels: `first` and `second` make the ends of each side. The second
/// is ended if it does not end by itself. In microseconds.
fn there_and_back<P: Put, G: Get, Q: Put, H: Get>(
    size: usize,
    length: Duration,
    first: impl FnOnce(&dyn Fn()) -> (P, G),
    second: impl FnOnce(&dyn Fn()) -> (Q, H),
    is_endless: bool,
) -> f64 {
    let page = Page::new();
    let meet = || {
        page.arrive();
        page.wait_for(2);
    };
    let echo = fork(|| {
        let (mut put, mut get) = second(&meet);
        let mut message = Vec::with_capacity(size);
        loop {
            let copy = &mut |got: &[u8]| {
                message.clear();
                message.extend_from_slice(got);
            };
            if !get.get(copy) {
                return;
            }
            put.put(&message);
        }
    });
    let asks = fork(|| {
        let (mut put, mut get) = first(&meet);
        let message = vec![7; size];
        let (mut seen, mut count) = (0, 0);
        let began = Instant::now();
        while began.elapsed() < length {
            for _ in 0..4 {
                put.put(&message);
                get.get(&mut |got| seen += look_at(got));
                count += 1;
            }
        }
        std::hint::black_box(seen);
        page.note(0, count, began.elapsed());
        drop(put);
        while !is_endless && get.get(&mut |_| ()) {}
    });
    wait(vec![asks]);
    if is_endless {
        // SAFETY: a child of ours that was not reaped.
        unsafe { libc::kill(echo, libc::SIGKILL) };
    }
    wait(vec![echo]);
    1e6 / page.rate()
}
