//! A child for a built-in handler: a program of its own, with an address space of a few pages and no library at all.
//!
//! Not a module of the library: `build.rs` compiles it, `mod.rs` beside it holds the result and has it executed. What it does with the
//! scoreboard is `scoreboard/words.rs`, what it does with the lane is what `handoff.rs` does, and `child.rs` is the same child
//! as a clone of the zygote, where this one cannot be executed.
//!
//! Arguments: its name, its slot of the scoreboard, `upper` or `echo` (or `try`), the idle time-out in microseconds (0: none), the
//! length of the scoreboard; and, if it is started with a connection, that one's line and number. Descriptors: 3 lane or connection, 4
//! scoreboard, 5 bell (with a lane only).
//!
//! Killed here: README.md of `serve`, "If … is killed here".
//!
//! # Safety
//! System calls get integers, or pointers to local variables, to the one buffer, or to what the kernel mapped, each with its own length. One
//! thread, so there is one reference to the buffer at a time. The scoreboard is sealed memory, looked at as atomic words only.
#![no_std]
#![no_main]
#![allow(unsafe_code)]

use core::arch::{asm, global_asm};
use core::ffi::{CStr, c_char};
use core::sync::atomic::{AtomicU64, Ordering};

#[allow(dead_code)]
#[path = "../scoreboard/words.rs"]
mod words;

use words::{Bell, CONNECTION, Cell, ChildState, Fact, PACKET, QUIT, Words};

#[cfg(target_arch = "x86_64")]
global_asm!(".globl _start", "_start:", "xor ebp, ebp", "mov rdi, rsp", "and rsp, -16", "call {}", sym begin);

const LANE: usize = 3;
const BOARD: usize = 4;
const BELL: usize = 5;

/// What a trial ends with.
const TRIED: usize = 42;
const FAILED: usize = 1;

const EINTR: isize = -4;
const EAGAIN: isize = -11;
const ECONNRESET: isize = -104;

const READ_WRITE: usize = 3;
const SHARED: usize = 1;
const NOSIGNAL: usize = 0x4000;
const CMSG_CLOEXEC: usize = 0x4000_0000;

/// Room for one read. What a read does not reach is never touched.
const ROOM: usize = 64 * 1024;
static mut BUFFER: Buffer = Buffer([0; ROOM]);

/// Aligned, because older kernels refuse a program whose only writable memory begins within a page.
#[repr(align(4096))]
struct Buffer([u8; ROOM]);

/// The system calls that are made here, by their numbers.
#[cfg(target_arch = "x86_64")]
mod nr {
    pub(crate) const WRITE: usize = 1;
    pub(crate) const CLOSE: usize = 3;
    pub(crate) const MMAP: usize = 9;
    pub(crate) const SENDTO: usize = 44;
    pub(crate) const RECVFROM: usize = 45;
    pub(crate) const RECVMSG: usize = 47;
    pub(crate) const SETSOCKOPT: usize = 54;
    pub(crate) const PRCTL: usize = 157;
    pub(crate) const CLOCK_GETTIME: usize = 228;
    pub(crate) const EXIT_GROUP: usize = 231;
}

/// What runs first: `stack` is what the kernel leaves there, the number of arguments and then the arguments.
unsafe extern "C" fn begin(stack: *const usize) -> ! {
    // SAFETY: the kernel's start of a program: a count and so many strings.
    let (count, arguments) = unsafe { (*stack, stack.add(1).cast::<*const c_char>()) };
    let argument = |index: usize| {
        // SAFETY: below the count, so it is a string that lives as long as the program.
        (index < count).then(|| unsafe { CStr::from_ptr(*arguments.add(index)) }.to_bytes())
    };
    let number = |index: usize| argument(index).and_then(number);
    let given = number(5).zip(number(6)).map(|(index, number)| (index as usize, number));
    let code = match (argument(0), number(1), argument(2), number(3), number(4)) {
        (Some(name), Some(slot), Some(work), Some(idle), Some(length)) => {
            const SET_NAME: usize = 15;
            call(nr::PRCTL, [SET_NAME, name.as_ptr() as usize, 0, 0, 0, 0]);
            Board::map(length as usize).map_or(FAILED, |board| live(&board, slot as u32, work, idle, given))
        }
        _ => FAILED,
    };
    loop {
        call(nr::EXIT_GROUP, [code, 0, 0, 0, 0, 0]);
    }
}

fn number(digits: &[u8]) -> Option<u64> {
    digits.iter().try_fold(0u64, |number, digit| {
        let digit = digit.wrapping_sub(b'0');
        if digit < 10 { number.checked_mul(10)?.checked_add(u64::from(digit)) } else { None }
    })
}

/// The scoreboard.
struct Board {
    words: &'static [AtomicU64],
    shape: (usize, usize),
}

impl Board {
    fn map(length: usize) -> Option<Board> {
        let address = call(nr::MMAP, [0, length, READ_WRITE, SHARED, BOARD, 0]);
        if (-4095..0).contains(&address) {
            return None;
        }
        // SAFETY: mapped just now and never unmapped; all its bytes are atomic words.
        let words = unsafe { core::slice::from_raw_parts(address as *const AtomicU64, length / 8) };
        let shape = words.first().map_or(0, |word| word.load(Ordering::Acquire));
        Some(Board { words, shape: words::shape(shape, words.len() / 16) })
    }
}

impl Words for Board {
    fn shape(&self) -> (usize, usize) {
        self.shape
    }

    fn word(&self, line: usize, word: usize) -> Option<&AtomicU64> {
        self.words.get(line.checked_mul(16)?.checked_add(word)?)
    }
}

/// The child's life; its exit code.
fn live(board: &Board, slot: u32, work: &[u8], idle: u64, given: Option<(usize, u64)>) -> usize {
    let place = slot as usize;
    let upper = match work {
        b"upper" => true,
        b"echo" => false,
        _ => return if board.fact(Fact::Shape) != 0 { TRIED } else { FAILED },
    };
    // Reading first lets the kernel map the neighbouring pages along with this one; writing would not.
    if board.child_state(place) == ChildState::Leaving {
        return 0;
    }
    let (fd, (index, number)) = match given {
        // The master has claimed it for this child.
        Some(given) => (LANE, given),
        None => match take(board, slot) {
            Ok(taken) => taken,
            Err(code) => return code,
        },
    };
    limit(fd, idle);
    let timed_out = serve(fd, upper, board, place);
    // Closed first: whoever hears that it is over may count on it.
    close(fd);
    // The bell is not rung: the master hears of this process's end.
    board.finish(index, number, slot, timed_out, clock);
    0
}

/// Waits for a connection and claims it; an exit code if there will be none.
fn take(board: &Board, slot: u32) -> Result<(usize, (usize, u64)), usize> {
    let place = slot as usize;
    loop {
        board.set_child_state(place, ChildState::Idle);
        match receive() {
            Packet::Connection { fd, index, number, accepted } => {
                let claimed = board.claim(index, number, slot, accepted, clock);
                if board.bell_wanted(Bell::Claimed) {
                    let one = 1u64;
                    call(nr::WRITE, [BELL, (&raw const one) as usize, size_of::<u64>(), 0, 0, 0]);
                }
                if claimed {
                    board.set_child_state(place, ChildState::Busy);
                    return Ok((fd, (index, number)));
                }
                close(fd);
            }
            Packet::End => {
                board.set_child_state(place, ChildState::Leaving);
                return Err(0);
            }
            Packet::Failed => return Err(FAILED),
        }
    }
}

fn close(fd: usize) {
    call(nr::CLOSE, [fd, 0, 0, 0, 0, 0]);
}

/// Answers until the client finishes; true if that took too long.
fn serve(fd: usize, upper: bool, board: &Board, place: usize) -> bool {
    let mut answers = board.cell(place, Cell::Requests);
    let buffer = &raw mut BUFFER;
    loop {
        let received = again(nr::RECVFROM, [fd, buffer as usize, ROOM, 0, 0, 0]);
        if received <= 0 {
            return received == EAGAIN;
        }
        // SAFETY: the kernel has written no more than there is room for.
        let bytes = unsafe { core::slice::from_raw_parts_mut(buffer.cast::<u8>(), received as usize) };
        if upper {
            bytes.make_ascii_uppercase();
        }
        let mut rest = &*bytes;
        while !rest.is_empty() {
            let sent = again(nr::SENDTO, [fd, rest.as_ptr() as usize, rest.len(), NOSIGNAL, 0, 0]);
            match usize::try_from(sent).ok().and_then(|sent| rest.get(sent..)) {
                Some(unsent) => rest = unsent,
                None => return sent == EAGAIN,
            }
        }
        answers += 1;
        board.set_cell(place, Cell::Requests, answers);
    }
}

/// Has the socket give up after so many microseconds, unless there are none.
fn limit(fd: usize, idle: u64) {
    const SOCKET: usize = 1;
    const RECEIVE_AND_SEND: [usize; 2] = [20, 21];
    let time = [idle / 1_000_000, idle % 1_000_000];
    for option in RECEIVE_AND_SEND.into_iter().filter(|_| idle > 0) {
        // Refused only to a socket that is dead already.
        call(nr::SETSOCKOPT, [fd, SOCKET, option, (&raw const time) as usize, size_of_val(&time), 0]);
    }
}

/// What a child finds in its lane.
enum Packet {
    Connection {
        fd: usize,
        index: usize,
        number: u64,
        accepted: u64,
    },
    /// It is to leave.
    End,
    Failed,
}

/// `struct iovec`.
#[repr(C)]
struct Part {
    base: *mut u64,
    length: usize,
}

/// `struct msghdr`.
#[repr(C)]
struct Header {
    name: usize,
    name_length: usize,
    parts: *mut Part,
    count: usize,
    control: *mut Control,
    control_length: usize,
    flags: usize,
}

/// `struct cmsghdr` with one descriptor.
#[repr(C)]
struct Control {
    length: usize,
    level: u32,
    kind: u32,
    fd: u32,
    padding: u32,
}

/// Waits for the next packet. One of another shape is ignored.
fn receive() -> Packet {
    const SOCKET: u32 = 1;
    const RIGHTS: u32 = 1;
    loop {
        let mut words = [0u64; PACKET / 8];
        let mut part = Part { base: words.as_mut_ptr(), length: PACKET };
        let mut control = Control { length: 0, level: 0, kind: 0, fd: 0, padding: 0 };
        let mut header = Header {
            name: 0,
            name_length: 0,
            parts: &raw mut part,
            count: 1,
            control: &raw mut control,
            control_length: size_of::<Control>(),
            flags: 0,
        };
        let length = again(nr::RECVMSG, [LANE, (&raw mut header) as usize, CMSG_CLOEXEC, 0, 0, 0]);
        match length {
            0 | ECONNRESET => return Packet::End,
            ..0 => return Packet::Failed,
            _ => {}
        }
        let arrived = header.control_length >= 20 && control.level == SOCKET && control.kind == RIGHTS;
        let fd = arrived.then_some(control.fd as usize);
        let [kind, index, number, accepted, ..] = words;
        match (kind, fd) {
            (QUIT, None) => return Packet::End,
            (CONNECTION, Some(fd)) if length as usize == PACKET && index <= u64::from(u32::MAX) => {
                return Packet::Connection { fd, index: index as usize, number, accepted };
            }
            // A connection whose fd did not fit into this process is lost with it; the master gives it up.
            (_, None) => {}
            (_, Some(fd)) => close(fd),
        }
    }
}

/// The monotonic clock, in nanoseconds.
fn clock() -> u64 {
    const MONOTONIC: usize = 1;
    let mut time = [0u64; 2];
    call(nr::CLOCK_GETTIME, [MONOTONIC, (&raw mut time) as usize, 0, 0, 0, 0]);
    time[0].wrapping_mul(1_000_000_000).wrapping_add(time[1])
}

/// A system call, repeated when a signal came in between.
fn again(number: usize, arguments: [usize; 6]) -> isize {
    loop {
        match call(number, arguments) {
            EINTR => {}
            result => return result,
        }
    }
}

/// A system call: its value, or an errno below zero. What pointers it is given is said in the heading.
#[cfg(target_arch = "x86_64")]
#[inline(always)]
fn call(number: usize, [a, b, c, d, e, f]: [usize; 6]) -> isize {
    let result;
    // SAFETY: the kernel's convention: number and result in rax, rcx and r11 clobbered.
    unsafe {
        asm!("syscall", inlateout("rax") number => result, in("rdi") a, in("rsi") b, in("rdx") c, in("r10") d,
             in("r8") e, in("r9") f, lateout("rcx") _, lateout("r11") _, options(nostack));
    }
    result
}

/// What the compiler calls to copy.
///
/// # Safety
/// As in C.
#[unsafe(no_mangle)]
unsafe extern "C" fn memcpy(to: *mut u8, from: *const u8, length: usize) -> *mut u8 {
    // SAFETY: the caller's promise.
    unsafe {
        asm!("rep movsb", inout("rdi") to => _, inout("rsi") from => _, inout("rcx") length => _, options(nostack))
    };
    to
}

/// What the compiler calls to fill.
///
/// # Safety
/// As in C.
#[unsafe(no_mangle)]
unsafe extern "C" fn memset(to: *mut u8, byte: i32, length: usize) -> *mut u8 {
    // SAFETY: the caller's promise.
    unsafe {
        asm!("rep stosb", inout("rdi") to => _, in("al") byte as u8, inout("rcx") length => _, options(nostack))
    };
    to
}

/// What the compiler calls to compare.
///
/// # Safety
/// As in C.
#[unsafe(no_mangle)]
unsafe extern "C" fn memcmp(one: *const u8, other: *const u8, length: usize) -> i32 {
    let mut at = 0;
    while at < length {
        // SAFETY: the caller's promise. Volatile, so that the compiler does not make a call of this out of it.
        let (a, b) = unsafe { (one.add(at).read_volatile(), other.add(at).read_volatile()) };
        if a != b {
            return i32::from(a) - i32::from(b);
        }
        at += 1;
    }
    0
}

/// What the compiler calls to measure a string.
///
/// # Safety
/// As in C.
#[unsafe(no_mangle)]
unsafe extern "C" fn strlen(text: *const c_char) -> usize {
    let mut length = 0;
    // SAFETY: the caller's promise.
    while unsafe { text.add(length).read_volatile() } != 0 {
        length += 1;
    }
    length
}

#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    loop {
        call(nr::EXIT_GROUP, [101, 0, 0, 0, 0, 0]);
    }
}
