//! Another process or thread, driven by ptrace(2): one instruction, or up to the next system call's entry or exit.
//!
//! All calls about one tracee come from the thread that seized it.
//!
//! # Safety
//! ptrace and waitpid get numbers, null, or pointers to live local variables of the type that they fill.
#![allow(unsafe_code, reason = "each unsafe block has its own reason")]

use std::ffi::c_long;
use std::io;
use std::ptr;

/// A process or thread that this thread has seized.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Tracee(pub(crate) i32);

/// How far a tracee may go.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Until {
    /// One instruction on.
    Instruction,
    /// The next entry or exit of a system call.
    CallBoundary,
    /// Nowhere in particular.
    Event,
}

/// Why a tracee stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stop {
    /// After one instruction.
    Stepped,
    /// Before or after a system call.
    CallBoundary,
    /// It was interrupted, or is new and has not run yet.
    Interrupted,
    /// It made a process or thread.
    Made(i32),
    /// It is about to end, and how is decided.
    Exiting,
    /// Something that needs no attention; resume it.
    Other,
    /// A signal is about to be delivered; resuming with it delivers it.
    Signal(i32),
    /// It is gone.
    Ended,
}

/// Which side of a system call a tracee stands on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Boundary {
    /// About to enter the call of this number.
    Entry(c_long),
    /// Just back from it.
    Exit,
}

/// What a tracee will do next.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Next {
    /// Of the instruction.
    pub(crate) address: u64,
    /// The number of the system call that it is, if it is one.
    pub(crate) call: Option<c_long>,
    /// What follows it, if it is one that repeats itself, each time a step.
    pub(crate) behind: Option<u64>,
}

impl Tracee {
    /// Seizes a process or thread without stopping it. What it makes is seized as well if `descendants` says so, and
    /// stands still before its first instruction.
    pub(crate) fn seize(pid: i32, descendants: bool) -> io::Result<Tracee> {
        let mut options = libc::PTRACE_O_TRACESYSGOOD | libc::PTRACE_O_EXITKILL;
        if descendants {
            options |= libc::PTRACE_O_TRACECLONE | libc::PTRACE_O_TRACEFORK | libc::PTRACE_O_TRACEVFORK;
            options |= libc::PTRACE_O_TRACEEXEC;
        }
        ptrace(libc::PTRACE_SEIZE, pid, 0, options as usize).map(|_| Tracee(pid))
    }

    /// Stops it wherever it is, unless it has ended; a system call that it waits in begins again when it goes on.
    pub(crate) fn interrupt(self) -> Stop {
        loop {
            // ESRCH: it is ending, which the wait tells.
            let _ = ptrace(libc::PTRACE_INTERRUPT, self.0, 0, 0);
            match self.wait() {
                stop @ (Stop::Interrupted | Stop::Ended) => return stop,
                // Any other stop came instead of the one that was asked for.
                stop => self.ignore(stop),
            }
        }
    }

    /// Lets it go on.
    pub(crate) fn resume(self, until: Until) {
        self.resume_with(until, 0);
    }

    /// Lets it go on, and delivers a signal.
    pub(crate) fn resume_with(self, until: Until, signal: i32) {
        let request = match until {
            Until::Instruction => libc::PTRACE_SINGLESTEP,
            Until::CallBoundary => libc::PTRACE_SYSCALL,
            Until::Event => libc::PTRACE_CONT,
        };
        // ESRCH: somebody killed it meanwhile; the next wait tells.
        let _ = ptrace(request, self.0, 0, signal as usize);
    }

    /// Lets it go on unobserved; it has to stand.
    pub(crate) fn release(self) {
        // ESRCH: somebody killed it meanwhile.
        let _ = ptrace(libc::PTRACE_DETACH, self.0, 0, 0);
    }

    /// Waits for its next stop or its end.
    pub(crate) fn wait(self) -> Stop {
        let mut status = 0;
        // SAFETY: see the heading.
        while unsafe { libc::waitpid(self.0, &raw mut status, libc::__WALL) } != self.0 {
            let error = io::Error::last_os_error();
            assert_eq!(error.kind(), io::ErrorKind::Interrupted, "wait for tracee {}: {error}", self.0);
        }
        self.decode(status)
    }

    /// Goes on to the next point of this kind; false if the tracee ended before.
    pub(crate) fn go(self, until: Until) -> bool {
        let mut signal = 0;
        loop {
            self.resume_with(until, signal);
            signal = 0;
            match self.wait() {
                Stop::Stepped | Stop::CallBoundary => return true,
                Stop::Ended => return false,
                Stop::Signal(number) => signal = number,
                Stop::Interrupted | Stop::Made(_) | Stop::Other | Stop::Exiting => {}
            }
        }
    }

    /// SIGKILL where it stands; it is gone on return, and its parent is told.
    pub(crate) fn kill(self) {
        kill(self.0);
        // One that is exiting already is not woken by the signal.
        self.resume(Until::Event);
        while self.wait() != Stop::Ended {
            self.resume(Until::Event);
        }
    }

    /// Lets it go on after a stop that nobody is interested in.
    pub(crate) fn ignore(self, stop: Stop) {
        self.pass(stop, Until::Event);
    }

    /// Lets it go on after this stop.
    pub(crate) fn pass(self, stop: Stop, until: Until) {
        match stop {
            Stop::Ended => {}
            Stop::Signal(number) => self.resume_with(until, number),
            _ => self.resume(until),
        }
    }

    fn decode(self, status: i32) -> Stop {
        if !libc::WIFSTOPPED(status) {
            return Stop::Ended;
        }
        match (status >> 16, libc::WSTOPSIG(status)) {
            (libc::PTRACE_EVENT_STOP, _) => Stop::Interrupted,
            (libc::PTRACE_EVENT_CLONE | libc::PTRACE_EVENT_FORK | libc::PTRACE_EVENT_VFORK, _) => {
                let mut message: libc::c_ulong = 0;
                let _ = ptrace(libc::PTRACE_GETEVENTMSG, self.0, 0, &raw mut message as usize);
                Stop::Made(i32::try_from(message).unwrap())
            }
            (libc::PTRACE_EVENT_EXIT, _) => Stop::Exiting,
            (0, number) if number == libc::SIGTRAP | 0x80 => Stop::CallBoundary,
            (0, libc::SIGTRAP) => Stop::Stepped,
            (0, number) => Stop::Signal(number),
            _ => Stop::Other,
        }
    }

    /// Stops at its end as well, when nothing can change how that is told.
    pub(crate) fn stop_at_exit(self) {
        let options = libc::PTRACE_O_TRACESYSGOOD | libc::PTRACE_O_EXITKILL | libc::PTRACE_O_TRACEEXIT;
        ptrace(libc::PTRACE_SETOPTIONS, self.0, 0, options as usize).unwrap();
    }

    /// Which side of which call it stands on, at a [`Stop::CallBoundary`]; `None` if it has been killed there.
    pub(crate) fn boundary(self) -> Option<Boundary> {
        // SAFETY: all-zero is a value of this structure of numbers.
        let mut info: libc::ptrace_syscall_info = unsafe { std::mem::zeroed() };
        let size = size_of_val(&info);
        ptrace(libc::PTRACE_GET_SYSCALL_INFO, self.0, size, &raw mut info as usize).ok()?;
        if info.op == libc::PTRACE_SYSCALL_INFO_ENTRY {
            // SAFETY: `op` says that this is the member that was filled.
            Some(Boundary::Entry(c_long::try_from(unsafe { info.u.entry.nr }).ok()?))
        } else {
            Some(Boundary::Exit)
        }
    }

    /// Its next stop or its end, if it has come already.
    pub(crate) fn try_wait(self) -> Option<Stop> {
        let mut status = 0;
        // SAFETY: see the heading.
        let changed =
            unsafe { libc::waitpid(self.0, &raw mut status, libc::__WALL | libc::WNOHANG) } == self.0;
        changed.then(|| self.decode(status))
    }

    /// True if its next instruction is a system call.
    pub(crate) fn is_before_call(self) -> bool {
        self.next().is_some_and(|next| next.call.is_some())
    }

    /// Its next instruction.
    pub(crate) fn next(self) -> Option<Next> {
        // SAFETY: all-zero is a value of this structure of numbers.
        let mut registers: libc::user_regs_struct = unsafe { std::mem::zeroed() };
        let mut slice =
            libc::iovec { iov_base: (&raw mut registers).cast(), iov_len: size_of_val(&registers) };
        const NT_PRSTATUS: usize = 1;
        ptrace(libc::PTRACE_GETREGSET, self.0, NT_PRSTATUS, &raw mut slice as usize).ok()?;
        #[cfg(target_arch = "x86_64")]
        let (address, number, call, mask) = (registers.rip, registers.rax, 0x050f, 0xffff);
        #[cfg(target_arch = "aarch64")]
        let (address, number, call, mask) = (registers.pc, registers.regs[8], 0xd400_0001, 0xffff_ffff);
        let text = ptrace(libc::PTRACE_PEEKDATA, self.0, address as usize, 0).ok()?;
        // `rep movs` and `rep stos` of bytes or double words, and of quad words.
        let behind = match text.to_le_bytes() {
            [0xf3, 0xa4 | 0xa5 | 0xaa | 0xab, ..] if cfg!(target_arch = "x86_64") => Some(address + 2),
            [0xf3, 0x48, 0xa5 | 0xab, ..] if cfg!(target_arch = "x86_64") => Some(address + 3),
            _ => None,
        };
        let call = (text & mask == call).then_some(number.cast_signed());
        Some(Next { address, call, behind })
    }

    /// Has it stop before the instruction at this address, as after a step; or no more. False where that cannot be had.
    #[cfg(target_arch = "x86_64")]
    pub(crate) fn stop_before(self, address: Option<u64>) -> bool {
        let register = |number: usize| std::mem::offset_of!(libc::user, u_debugreg) + number * 8;
        let set = |number, value| ptrace(libc::PTRACE_POKEUSER, self.0, register(number), value).is_ok();
        match address {
            Some(address) => set(7, 0) && set(0, address as usize) && set(7, 1),
            None => set(7, 0),
        }
    }

    /// Has it stop before the instruction at this address, as after a step; or no more. False where that cannot be had.
    #[cfg(not(target_arch = "x86_64"))]
    pub(crate) fn stop_before(self, _address: Option<u64>) -> bool {
        false
    }
}

/// SIGKILL for a child of this process, which only this thread reaps, or for a tracee.
pub(crate) fn kill(pid: i32) {
    // SAFETY: numbers only.
    unsafe { libc::kill(pid, libc::SIGKILL) };
}

/// Waits for any tracee or child of this thread's process: its number, and why it stopped. `None`: none has news.
/// An error: there are none left.
pub(crate) fn any_news() -> io::Result<Option<(Tracee, Stop)>> {
    let mut status = 0;
    // SAFETY: see the heading.
    match unsafe { libc::waitpid(-1, &raw mut status, libc::__WALL | libc::WNOHANG) } {
        -1 => Err(io::Error::last_os_error()),
        0 => Ok(None),
        pid => Ok(Some((Tracee(pid), Tracee(pid).decode(status)))),
    }
}

/// The raw call, as glibc has it: what was peeked is the result.
fn ptrace(request: libc::c_uint, pid: i32, address: usize, data: usize) -> io::Result<c_long> {
    let mut peeked: c_long = 0;
    let data = match request {
        libc::PTRACE_PEEKDATA => ptr::from_mut(&mut peeked).addr(),
        _ => data,
    };
    // SAFETY: see the heading. The system call itself, because glibc's function mixes errors with what it peeks.
    match unsafe { libc::syscall(libc::SYS_ptrace, request, pid, address, data) } {
        -1 => Err(io::Error::last_os_error()),
        _ => Ok(peeked),
    }
}
