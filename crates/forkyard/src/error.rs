//! The error of everything above the kernel objects: opaque, with predicates.

use std::fmt;

use forkyard_sys::Errno;
use forkyard_sys::wait::ExitStatus;
use serde::{Deserialize, Serialize};

/// What this crate's functions return.
pub type Result<T> = std::result::Result<T, Error>;

/// Why something failed: what was tried, what went wrong, and what to do about it where that is known.
///
/// The kind is asked for with the `is_*` predicates; what an error carries (an errno, a child's exit status, a
/// panic) with [`errno`](Error::errno), [`exit_status`](Error::exit_status) and [`panic`](Error::panic).
/// The message is a lowercase fragment that reads after "failed to".
pub struct Error(Box<Inner>);

struct Inner {
    what: String,
    kind: Kind,
}

/// The private list of reasons. A new one needs a predicate only if a caller would act on it.
#[derive(Debug)]
pub(crate) enum Kind {
    /// The kernel said no. `hint` names the limit it met, or what to do.
    Os { errno: Errno, hint: Option<String> },
    /// The deadline of the call passed.
    TimedOut,
    /// A wait for any child, and there is none.
    NoChildren,
    /// A wait for a process that is not a child of this one.
    NotAChild,
    /// The result was already taken by an earlier join.
    AlreadyJoined,
    /// A process or thread that would wait for itself.
    JoinSelf,
    /// A daemonic process may not have children.
    Daemonic,
    /// Fork in a process with this many other threads.
    OtherThreads(usize),
    /// The child ended without a result.
    ChildEnded { status: ExitStatus, ended: Ended },
    /// The child panicked.
    Panicked { panic: Panic, status: Option<ExitStatus> },
    /// Arguments, a result or a message could not be encoded or decoded.
    Codec(String),
    /// What a peer sent breaks the protocol.
    Protocol(String),
    /// What the caller gave is not acceptable.
    Invalid(String),
    /// The other end of a connection is gone.
    Disconnected(String),
    /// A peer does not know the key, or does not believe that we do.
    Authentication(String),
    /// There is no room for more in the family's shared memory.
    Full(String),
    /// A shared object is gone: its last holder has dropped it or died.
    Gone(String),
    /// A queue was closed.
    Closed,
    /// A queue has nothing to give.
    Empty,
    /// It would have had to wait, and was asked not to.
    WouldBlock,
    /// What it got was in use by a process that has died, and may be half changed.
    OwnerDied(String),
    /// It would have waited for ever, in a circle of processes that wait for each other.
    Deadlock(String),
    /// What the caller gives back is not its own.
    NotOwner(String),
    /// A party at the barrier died or gave up, or somebody aborted or reset it.
    BrokenBarrier,
}

/// A panic that happened in another process or thread.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Panic {
    /// The panic's message.
    pub message: String,
    /// `file:line:column`, where it is known.
    pub location: Option<String>,
    /// The backtrace at the panic, resolved in the process where it happened.
    pub backtrace: Option<String>,
}

impl fmt::Display for Panic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "panicked: {}", self.message)?;
        match &self.location {
            Some(location) => write!(f, " (at {location})"),
            None => Ok(()),
        }
    }
}

/// How a child ended that gave no result.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Ended {
    /// It never reached its task.
    BeforeTask,
    /// The task called [`exit`](crate::process::exit) or `std::process::exit`: exit hooks ran.
    Exit,
    /// The task ended the process by [`_exit`](crate::process::_exit), or became another program that ended.
    QuickExit,
    /// A signal ended it in its task.
    Signal,
    /// The task had returned, and the process then ended badly, in an exit hook for instance.
    AfterTask,
    /// It overwrote the shared memory in which its outcome should have been.
    Garbled,
    /// Somebody else took its status, and it left no result.
    Unknown,
}

impl fmt::Display for Ended {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Ended::BeforeTask => "ended before it reached its task",
            Ended::Exit => "ended by exit",
            Ended::QuickExit => "ended by _exit",
            Ended::Signal => "was ended by a signal",
            Ended::AfterTask => "ended badly after its task had returned",
            Ended::Garbled => "overwrote its outcome in shared memory",
            Ended::Unknown => "ended without a result",
        })
    }
}

impl Error {
    /// An error of `kind` in an attempt to do `what` ("start process \"a\"").
    #[cold]
    pub(crate) fn new(what: impl Into<String>, kind: Kind) -> Error {
        Error(Box::new(Inner { what: what.into(), kind }))
    }

    /// The kernel refused `what`.
    #[cold]
    pub(crate) fn os(what: impl Into<String>, errno: Errno) -> Error {
        Error::new(what, Kind::Os { errno, hint: None })
    }

    /// The kernel refused `what`, and the hint says which limit was met or what to do.
    #[cold]
    pub(crate) fn os_hint(what: impl Into<String>, errno: Errno, hint: impl Into<String>) -> Error {
        Error::new(what, Kind::Os { errno, hint: Some(hint.into()) })
    }

    /// A call of the standard library was refused by the kernel.
    #[cold]
    pub(crate) fn io(what: impl Into<String>, error: &std::io::Error) -> Error {
        Error::os(what, Errno::from_io_error(error).unwrap_or(Errno::IO))
    }

    /// True if the time-out or deadline of the call passed.
    #[must_use]
    pub fn is_timeout(&self) -> bool {
        matches!(self.0.kind, Kind::TimedOut)
    }

    /// True if there was no child to wait for (`ECHILD` of wait(2)).
    #[must_use]
    #[doc(alias = "ECHILD")]
    pub fn is_no_children(&self) -> bool {
        matches!(self.0.kind, Kind::NoChildren)
    }

    /// True if the process is not a child of this one.
    #[must_use]
    pub fn is_not_a_child(&self) -> bool {
        matches!(self.0.kind, Kind::NotAChild)
    }

    /// True if the result had been taken by an earlier join.
    #[must_use]
    pub fn is_already_joined(&self) -> bool {
        matches!(self.0.kind, Kind::AlreadyJoined)
    }

    /// True if a process or thread tried to wait for itself.
    #[must_use]
    pub fn is_join_self(&self) -> bool {
        matches!(self.0.kind, Kind::JoinSelf)
    }

    /// True if a daemonic process tried to have children.
    #[must_use]
    pub fn is_daemonic(&self) -> bool {
        matches!(self.0.kind, Kind::Daemonic)
    }

    /// True if fork was refused because the caller has other threads.
    #[must_use]
    pub fn is_other_threads(&self) -> bool {
        matches!(self.0.kind, Kind::OtherThreads(_))
    }

    /// True if the child ended by a signal, an exit, or before it reached the user's code.
    #[must_use]
    pub fn is_child_ended(&self) -> bool {
        matches!(self.0.kind, Kind::ChildEnded { .. })
    }

    /// True if the child panicked.
    #[must_use]
    pub fn is_panic(&self) -> bool {
        matches!(self.0.kind, Kind::Panicked { .. })
    }

    /// True if what the caller gave is not acceptable.
    #[must_use]
    pub fn is_invalid(&self) -> bool {
        matches!(self.0.kind, Kind::Invalid(_))
    }

    /// True if the other end of a connection is gone, by a drop or a death.
    #[must_use]
    pub fn is_disconnected(&self) -> bool {
        matches!(self.0.kind, Kind::Disconnected(_))
    }

    /// True if a peer does not know the key, or does not believe that we do.
    #[must_use]
    pub fn is_authentication(&self) -> bool {
        matches!(self.0.kind, Kind::Authentication(_))
    }

    /// True if there is no room for more in the family's shared memory, or in its process table.
    #[must_use]
    pub fn is_full(&self) -> bool {
        matches!(self.0.kind, Kind::Full(_))
    }

    /// True if a shared object is gone: its last holder has dropped it or died.
    #[must_use]
    pub fn is_gone(&self) -> bool {
        matches!(self.0.kind, Kind::Gone(_))
    }

    /// True if a queue was closed.
    #[must_use]
    pub fn is_closed(&self) -> bool {
        matches!(self.0.kind, Kind::Closed)
    }

    /// True if a queue had no message.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        matches!(self.0.kind, Kind::Empty)
    }

    /// True if the call would have had to wait, and was asked not to.
    #[must_use]
    pub fn is_would_block(&self) -> bool {
        matches!(self.0.kind, Kind::WouldBlock)
    }

    /// True if what the call got was in use by a process that has died, and may be half changed.
    #[must_use]
    pub fn is_owner_died(&self) -> bool {
        matches!(self.0.kind, Kind::OwnerDied(_))
    }

    /// True if the call would have waited for ever, in a circle of processes that wait for each other.
    #[must_use]
    pub fn is_deadlock(&self) -> bool {
        matches!(self.0.kind, Kind::Deadlock(_))
    }

    /// True if the caller tried to give back what is not its own.
    #[must_use]
    pub fn is_not_owner(&self) -> bool {
        matches!(self.0.kind, Kind::NotOwner(_))
    }

    /// True if the barrier is broken: a party died or gave up, or somebody aborted or reset it.
    #[must_use]
    #[doc(alias = "BrokenBarrierError")]
    pub fn is_broken_barrier(&self) -> bool {
        matches!(self.0.kind, Kind::BrokenBarrier)
    }

    /// The kernel's error number, if the kernel said no.
    #[must_use]
    pub fn errno(&self) -> Option<Errno> {
        match self.0.kind {
            Kind::Os { errno, .. } => Some(errno),
            _ => None,
        }
    }

    /// How far the child came that ended without a result.
    #[must_use]
    pub fn ended(&self) -> Option<Ended> {
        match self.0.kind {
            Kind::ChildEnded { ended, .. } => Some(ended),
            _ => None,
        }
    }

    /// The exit status of the child that ended or panicked.
    #[must_use]
    pub fn exit_status(&self) -> Option<ExitStatus> {
        match &self.0.kind {
            Kind::ChildEnded { status, .. } => Some(*status),
            Kind::Panicked { status, .. } => *status,
            _ => None,
        }
    }

    /// The panic of the child.
    #[must_use]
    pub fn panic(&self) -> Option<&Panic> {
        match &self.0.kind {
            Kind::Panicked { panic, .. } => Some(panic),
            _ => None,
        }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.0.what, self.0.kind)
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Kind::Os { errno, hint: None } => write!(f, "{errno}"),
            Kind::Os { errno, hint: Some(hint) } => write!(f, "{errno} ({hint})"),
            Kind::TimedOut => f.write_str("timed out"),
            Kind::Closed => f.write_str("it was closed"),
            Kind::Empty => f.write_str("it is empty"),
            Kind::NoChildren => f.write_str("there are no children to wait for"),
            Kind::NotAChild => f.write_str("not a child of this process"),
            Kind::AlreadyJoined => f.write_str("its result was already taken by an earlier join"),
            Kind::JoinSelf => f.write_str("it would wait for itself for ever"),
            Kind::Daemonic => f.write_str(
                "a daemonic process may not have children (Builder::allow_children on its own start lifts this)",
            ),
            Kind::OtherThreads(n) => write!(
                f,
                "this process has {n} other thread(s), whose locks a copy would inherit locked; \
                 start a task instead, or insist with the unsafe variant",
            ),
            Kind::ChildEnded { status, ended } => write!(f, "the child {ended}: {status}"),
            Kind::Panicked { panic, .. } => write!(f, "the child {panic}"),
            Kind::WouldBlock => f.write_str("it would have had to wait"),
            Kind::BrokenBarrier => f.write_str(
                "the barrier is broken: a party died or gave up, or somebody aborted or reset it",
            ),
            Kind::Codec(why) | Kind::Protocol(why) | Kind::Invalid(why) | Kind::Disconnected(why) | Kind::Authentication(why) | Kind::Full(why) | Kind::Gone(why) => {
                f.write_str(why)
            }
            Kind::OwnerDied(why) | Kind::Deadlock(why) | Kind::NotOwner(why) => f.write_str(why),
        }
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Error({self})")?;
        match self.panic().and_then(|panic| panic.backtrace.as_deref()) {
            Some(backtrace) => write!(f, "\n{backtrace}"),
            None => Ok(()),
        }
    }
}

impl std::error::Error for Error {}

impl From<Error> for std::io::Error {
    fn from(error: Error) -> std::io::Error {
        use std::io::ErrorKind;
        let kind = match &error.0.kind {
            Kind::Os { errno, .. } => std::io::Error::from(*errno).kind(),
            Kind::TimedOut => ErrorKind::TimedOut,
            Kind::Invalid(_) => ErrorKind::InvalidInput,
            Kind::Disconnected(_) => ErrorKind::UnexpectedEof,
            Kind::Authentication(_) => ErrorKind::PermissionDenied,
            Kind::Full(_) => ErrorKind::OutOfMemory,
            Kind::Gone(_) => ErrorKind::NotFound,
            Kind::WouldBlock => ErrorKind::WouldBlock,
            Kind::Deadlock(_) => ErrorKind::Deadlock,
            Kind::NotOwner(_) => ErrorKind::PermissionDenied,
            Kind::Codec(_) | Kind::Protocol(_) => ErrorKind::InvalidData,
            _ => ErrorKind::Other,
        };
        std::io::Error::new(kind, error)
    }
}
