//! Messages one way between processes: a queue against a pipe, a Unix socket, ipc-channel, and crossbeam between threads.
//!
//! Producers write every byte, consumers read a word of every cache line. All receivers block. A figure is the median of the
//! rounds, in messages a second; the contenders of a row alternate.

use std::io::{Read, Write};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use forkyard_peers::options::Options;

const SIZES: [usize; 4] = [16, 1 << 10, 64 << 10, 1 << 20];
const PARTIES: [(usize, usize); 2] = [(1, 1), (2, 2)];

/// One end of something that carries messages of one size.
trait Carrier {
    fn send(&mut self, message: &[u8]);
    /// False at the end.
    fn receive(&mut self, into: &mut [u8]) -> bool;
}

/// Reads a message as its user would.
fn look_at(message: &[u8]) -> u64 {
    message.chunks(64).map(|line| u64::from(line[0])).sum()
}

/// Where children count what they received, and how long it took.
struct Counts(&'static [AtomicU64]);

impl Counts {
    fn new() -> Counts {
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
        Counts(unsafe { std::slice::from_raw_parts(page.cast(), 512) })
    }

    fn rate(&self) -> f64 {
        let count: u64 = self.0[..256].iter().map(|count| count.load(Ordering::SeqCst)).sum();
        let longest = self.0[256..].iter().map(|time| time.load(Ordering::SeqCst)).max();
        count as f64 / (longest.unwrap_or(0).max(1) as f64 / 1e9)
    }
}

fn produce(carrier: &mut impl Carrier, size: usize, length: Duration) {
    let message = vec![7; size];
    let end = Instant::now() + length;
    let batch = if size < 4096 { 256 } else { 4 };
    while Instant::now() < end {
        (0..batch).for_each(|_| carrier.send(&message));
    }
}

fn consume(carrier: &mut impl Carrier, size: usize, counts: &Counts, number: usize) {
    let mut into = vec![0; size];
    let (mut count, mut seen) = (0, 0);
    if !carrier.receive(&mut into) {
        return;
    }
    let began = Instant::now();
    while carrier.receive(&mut into) {
        seen += look_at(&into);
        count += 1;
    }
    std::hint::black_box(seen);
    counts.0[number].store(count, Ordering::SeqCst);
    counts.0[256 + number].store(began.elapsed().as_nanos() as u64, Ordering::SeqCst);
}

fn fork(body: impl FnOnce()) -> libc::pid_t {
    // SAFETY: this process has one thread.
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

/// Processes: `sender` and `receiver` make each one's end, `done` is called when all producers have ended.
fn processes<S: Carrier, R: Carrier>(
    (producers, consumers): (usize, usize),
    size: usize,
    length: Duration,
    sender: impl Fn() -> S,
    receiver: impl Fn() -> R,
    done: impl FnOnce(),
) -> f64 {
    let counts = Counts::new();
    let getters =
        (0..consumers).map(|number| fork(|| consume(&mut receiver(), size, &counts, number))).collect();
    let putters = (0..producers).map(|_| fork(|| produce(&mut sender(), size, length))).collect();
    wait(putters);
    done();
    wait(getters);
    counts.rate()
}

/// A descriptor, with messages of one size.
struct Fd(std::fs::File);

impl Carrier for Fd {
    fn send(&mut self, message: &[u8]) {
        self.0.write_all(message).expect("write");
    }
    fn receive(&mut self, into: &mut [u8]) -> bool {
        self.0.read_exact(into).is_ok()
    }
}

fn descriptors(
    parties: (usize, usize),
    size: usize,
    length: Duration,
    (read, write): (OwnedFd, OwnedFd),
) -> f64 {
    let file = |fd: &OwnedFd| {
        // SAFETY: a fresh duplicate.
        Fd(unsafe { std::fs::File::from_raw_fd(libc::dup(fd.as_raw_fd())) })
    };
    let mut write = Some(write);
    // The end is seen when nobody has the other end, so consumers must not have it.
    let counts = Counts::new();
    let fd = write.take().expect("the end to write");
    let raw = fd.as_raw_fd();
    let getters = (0..parties.1)
        .map(|number| {
            fork(|| {
                // SAFETY: closes the child's copy, which it does not use.
                unsafe { libc::close(raw) };
                consume(&mut file(&read), size, &counts, number);
            })
        })
        .collect();
    let putters = (0..parties.0).map(|_| fork(|| produce(&mut file(&fd), size, length))).collect();
    wait(putters);
    drop(fd);
    wait(getters);
    counts.rate()
}

fn pipe(parties: (usize, usize), size: usize, length: Duration) -> Option<f64> {
    // Beyond PIPE_BUF the messages of two producers would mix.
    if parties != (1, 1) && size > 4096 {
        return None;
    }
    let (read, write) = rustix::pipe::pipe().ok()?;
    Some(descriptors(parties, size, length, (read, write)))
}

fn socket(parties: (usize, usize), size: usize, length: Duration) -> Option<f64> {
    if parties == (1, 1) {
        let (read, write) = UnixStream::pair().ok()?;
        return Some(descriptors(parties, size, length, (read.into(), write.into())));
    }
    if size > 64 << 10 {
        return None;
    }
    use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};
    let pair = socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::empty(), None).ok()?;
    Some(descriptors(parties, size, length, pair))
}

/// Boxes between threads: what a queue in one process may cost.
struct Crossbeam(
    Option<crossbeam_channel::Sender<Box<[u8]>>>,
    Option<crossbeam_channel::Receiver<Box<[u8]>>>,
);

impl Carrier for Crossbeam {
    fn send(&mut self, message: &[u8]) {
        self.0.as_ref().expect("an end to send").send(message.into()).expect("send");
    }
    fn receive(&mut self, into: &mut [u8]) -> bool {
        match self.1.as_ref().expect("an end to receive").recv() {
            Ok(message) => {
                into[0] = look_at(&message) as u8;
                true
            }
            Err(_) => false,
        }
    }
}

fn crossbeam(parties: (usize, usize), size: usize, length: Duration) -> Option<f64> {
    let counts = Counts::new();
    let (sender, receiver) = crossbeam_channel::bounded(capacity(size));
    std::thread::scope(|scope| {
        for number in 0..parties.1 {
            let (receiver, counts) = (receiver.clone(), &counts);
            scope.spawn(move || consume(&mut Crossbeam(None, Some(receiver)), size, counts, number));
        }
        for _ in 0..parties.0 {
            let sender = sender.clone();
            scope.spawn(move || produce(&mut Crossbeam(Some(sender), None), size, length));
        }
        drop(sender);
    });
    Some(counts.rate())
}

fn capacity(size: usize) -> usize {
    (1024 * 64 / size.max(64)).max(8)
}

#[cfg(feature = "ours")]
mod ours {
    use forkyard::channel::ByteQueue;

    use super::{Carrier, Duration, capacity, look_at, processes};

    impl Carrier for ByteQueue {
        fn send(&mut self, message: &[u8]) {
            self.put(message).expect("put");
        }
        fn receive(&mut self, into: &mut [u8]) -> bool {
            match self.get() {
                Ok(message) => {
                    // In place.
                    into[0] = look_at(&message) as u8;
                    true
                }
                Err(_) => false,
            }
        }
    }

    pub(crate) fn queue(parties: (usize, usize), size: usize, length: Duration) -> Option<f64> {
        run(parties, size, length, ByteQueue::bounded(capacity(size)).ok()?)
    }

    pub(crate) fn inline(parties: (usize, usize), size: usize, length: Duration) -> Option<f64> {
        (size <= 64 << 10).then_some(())?;
        run(parties, size, length, ByteQueue::with_inline(capacity(size), size).ok()?)
    }

    fn run(parties: (usize, usize), size: usize, length: Duration, queue: ByteQueue) -> Option<f64> {
        let (one, other, closer) = (queue.clone(), queue.clone(), queue);
        Some(processes(parties, size, length, || one.clone(), || other.clone(), || _ = closer.close()))
    }
}

type Contender = (&'static str, fn((usize, usize), usize, Duration) -> Option<f64>);

fn main() {
    let options = Options::from_args();
    let mut contenders: Vec<Contender> = Vec::new();
    #[cfg(feature = "ours")]
    if !options.skip_ours {
        contenders.push(("forkyard", ours::queue));
        contenders.push(("forkyard, inline", ours::inline));
    }
    contenders.extend([
        ("pipe", pipe as fn(_, _, _) -> _),
        ("unix socket", socket),
        ("crossbeam, threads", crossbeam),
    ]);
    let mut figures = Vec::new();
    for parties in PARTIES {
        for size in SIZES {
            let mut rounds = vec![Vec::new(); contenders.len()];
            for _ in 0..options.rounds {
                for (index, (_, measure)) in contenders.iter().enumerate() {
                    rounds[index].extend(measure(parties, size, options.length));
                }
            }
            for ((name, _), mut rates) in contenders.iter().zip(rounds) {
                rates.sort_by(f64::total_cmp);
                let median = rates.get(rates.len() / 2).copied();
                figures.push((parties, size, *name, median, rates));
            }
        }
    }
    if options.json {
        let rows = figures.iter().map(|((producers, consumers), size, name, median, rates)| {
            serde_json::json!({ "producers": producers, "consumers": consumers, "bytes": size,
                "contender": name, "median": median, "rounds": rates })
        });
        println!("{}", serde_json::Value::from_iter(rows));
        return;
    }
    println!("{:22}{:>8}{:>12}{:>12}{:>12}{:>12}   messages/s", "", "", "16 B", "1 KiB", "64 KiB", "1 MiB");
    for (producers, consumers) in PARTIES {
        for (name, _) in &contenders {
            print!("{name:22}{:>8}", format!("{producers}P{consumers}C"));
            for size in SIZES {
                let found = figures.iter().find(|(parties, bytes, who, ..)| {
                    (*parties, *bytes, who) == ((producers, consumers), size, name)
                });
                let median = found.and_then(|(_, _, _, median, _)| *median);
                print!("{:>12}", median.map_or_else(|| "–".to_owned(), |rate| format!("{rate:.0}")));
            }
            println!();
        }
    }
}
