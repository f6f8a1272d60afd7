//! `SignalInfo`: which signal came, from whom, and why.
//!
//! # Safety
//! The one unsafe block reads a siginfo that the kernel has filled.
#![allow(unsafe_code)]

use rustix::process::Pid;

use super::Signal;
use crate::wait::{Ending, ExitStatus};

/// What the kernel told about one signal (`siginfo_t` of sigaction(2)).
#[derive(Clone, Copy, PartialEq, Eq)]
#[doc(alias = "siginfo_t")]
pub struct SignalInfo {
    signal: Signal,
    code: i32,
    /// The union of `siginfo_t` begins with three numbers: pid, uid and status or value; or, of a timer: id,
    /// overrun and value. `code` tells what they mean.
    first: i32,
    second: i32,
    third: i32,
}

/// Where a signal came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Origin {
    /// A process, by kill(2) or a pidfd.
    Process,
    /// A thread, by tgkill(2): raise(3), pthread_kill(3), abort(3).
    Thread,
    /// A process, with a value, by sigqueue(3).
    Queue,
    /// A POSIX timer, an asynchronous read or write, or a message queue.
    Completion,
    /// The kernel: the terminal, `alarm` and interval timers, limits, descriptors, faults.
    Kernel,
    /// A child that ended, stopped or went on.
    Child,
    /// Nobody knows: the signal came when too many others were waiting to be handled.
    Lost,
}

/// What happened to the child behind a `SIGCHLD`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ChildEvent {
    /// It ended. No resource usage is known here.
    Ended(ExitStatus),
    /// A signal stopped it (or a tracer did).
    Stopped(i32),
    /// It goes on after a stop.
    Continued,
}

/// `code` of a signal whose siginfo did not fit the pipe. No signal has it: the kernel's own are small.
const CODE_LOST: i32 = i32::MIN;
const SI_ASYNCIO: i32 = -4;
const SI_DETHREAD: i32 = -7;

impl SignalInfo {
    /// A signal of which nothing but its number is known.
    pub(super) const fn lost(signal: Signal) -> SignalInfo {
        SignalInfo { signal, code: CODE_LOST, first: 0, second: 0, third: 0 }
    }

    /// Reads what the kernel wrote. Async-signal-safe.
    pub(super) fn read(signal: Signal, info: &libc::siginfo_t) -> SignalInfo {
        // SAFETY: `siginfo_t` is 128 bytes of which the kernel has set all, and which every union member
        // reads as plain numbers.
        let (first, second, third) = unsafe { (info.si_pid(), info.si_uid(), info.si_status()) };
        SignalInfo { signal, code: info.si_code, first, second: second.cast_signed(), third }
    }

    /// Puts together what [`parts`](SignalInfo::parts) took apart.
    pub(super) const fn from_parts(
        signal: Signal,
        code: i32,
        [first, second, third]: [i32; 3],
    ) -> SignalInfo {
        SignalInfo { signal, code, first, second, third }
    }

    /// `si_code`, and the beginning of the union.
    pub(super) const fn parts(&self) -> (i32, [i32; 3]) {
        (self.code, [self.first, self.second, self.third])
    }

    /// Which signal it is.
    #[must_use]
    pub const fn signal(&self) -> Signal {
        self.signal
    }

    /// `si_code`: why it was sent, as the kernel's number. [`origin`](SignalInfo::origin) puts it in words.
    #[must_use]
    #[doc(alias = "si_code")]
    pub const fn code(&self) -> i32 {
        self.code
    }

    /// Where it came from.
    #[must_use]
    pub const fn origin(&self) -> Origin {
        match self.code {
            CODE_LOST => Origin::Lost,
            libc::SI_USER => Origin::Process,
            libc::SI_TKILL | SI_DETHREAD => Origin::Thread,
            libc::SI_QUEUE => Origin::Queue,
            libc::SI_TIMER | libc::SI_MESGQ | SI_ASYNCIO => Origin::Completion,
            code if self.signal.number() == libc::SIGCHLD && code > 0 && code <= libc::CLD_CONTINUED => {
                Origin::Child
            }
            _ => Origin::Kernel,
        }
    }

    /// The process that sent it, or the child behind a `SIGCHLD`; `None` where there is none, or where it
    /// lives in another pid namespace.
    #[must_use]
    #[doc(alias = "si_pid")]
    pub fn pid(&self) -> Option<Pid> {
        match self.origin() {
            Origin::Process | Origin::Thread | Origin::Queue | Origin::Child => Pid::from_raw(self.first),
            _ => None,
        }
    }

    /// The real user id of that process.
    #[must_use]
    #[doc(alias = "si_uid")]
    pub const fn uid(&self) -> Option<u32> {
        match self.origin() {
            Origin::Process | Origin::Thread | Origin::Queue | Origin::Child => {
                Some(self.second.cast_unsigned())
            }
            _ => None,
        }
    }

    /// The value that was sent with it.
    #[must_use]
    #[doc(alias = "si_value")]
    pub const fn value(&self) -> Option<i32> {
        match self.origin() {
            Origin::Queue | Origin::Completion => Some(self.third),
            _ => None,
        }
    }

    /// What happened to the child, if this is a `SIGCHLD` from the kernel.
    #[must_use]
    #[doc(alias = "si_status")]
    pub fn child(&self) -> Option<ChildEvent> {
        if self.origin() != Origin::Child {
            return None;
        }
        let ended = |ending| Some(ChildEvent::Ended(ExitStatus::new(ending, None)));
        match self.code {
            libc::CLD_EXITED => ended(Ending::Exited(self.third)),
            libc::CLD_KILLED => ended(Ending::Signaled { signal: self.third, core: false }),
            libc::CLD_DUMPED => ended(Ending::Signaled { signal: self.third, core: true }),
            libc::CLD_CONTINUED => Some(ChildEvent::Continued),
            _ => Some(ChildEvent::Stopped(self.third)),
        }
    }
}

impl std::fmt::Debug for SignalInfo {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let mut out = f.debug_struct("SignalInfo");
        out.field("signal", &self.signal).field("code", &self.code).field("origin", &self.origin());
        if let Some(pid) = self.pid() {
            out.field("pid", &pid.as_raw_nonzero()).field("uid", &self.second.cast_unsigned());
        }
        if let Some(value) = self.value() {
            out.field("value", &value);
        }
        if let Some(child) = self.child() {
            out.field("child", &child);
        }
        out.finish()
    }
}
