//! One constant for each standard signal, under its POSIX name.

use super::number::Signal;

impl Signal {
    /// `SIGHUP`: the terminal went away; daemons take it as "read the configuration again".
    #[doc(alias = "SIGHUP")]
    pub const HUP: Signal = Signal(libc::SIGHUP as u8);
    /// `SIGINT`: interrupt from the keyboard (Ctrl-C).
    #[doc(alias = "SIGINT")]
    pub const INT: Signal = Signal(libc::SIGINT as u8);
    /// `SIGQUIT`: quit from the keyboard (Ctrl-\).
    #[doc(alias = "SIGQUIT")]
    pub const QUIT: Signal = Signal(libc::SIGQUIT as u8);
    /// `SIGILL`: an instruction the processor does not know.
    #[doc(alias = "SIGILL")]
    pub const ILL: Signal = Signal(libc::SIGILL as u8);
    /// `SIGTRAP`: a breakpoint or trace step was reached.
    #[doc(alias = "SIGTRAP")]
    pub const TRAP: Signal = Signal(libc::SIGTRAP as u8);
    /// `SIGABRT`: the program gave itself up with abort.
    #[doc(alias = "SIGABRT")]
    pub const ABRT: Signal = Signal(libc::SIGABRT as u8);
    /// `SIGBUS`: an access to memory that is mapped but not there.
    #[doc(alias = "SIGBUS")]
    pub const BUS: Signal = Signal(libc::SIGBUS as u8);
    /// `SIGFPE`: an arithmetic error, such as a division by zero.
    #[doc(alias = "SIGFPE")]
    pub const FPE: Signal = Signal(libc::SIGFPE as u8);
    /// `SIGKILL`: end at once; cannot be handled, ignored or blocked.
    #[doc(alias = "SIGKILL")]
    pub const KILL: Signal = Signal(libc::SIGKILL as u8);
    /// `SIGUSR1`: free for the program's own use.
    #[doc(alias = "SIGUSR1")]
    pub const USR1: Signal = Signal(libc::SIGUSR1 as u8);
    /// `SIGSEGV`: an access to memory that is not mapped or not allowed.
    #[doc(alias = "SIGSEGV")]
    pub const SEGV: Signal = Signal(libc::SIGSEGV as u8);
    /// `SIGUSR2`: free for the program's own use.
    #[doc(alias = "SIGUSR2")]
    pub const USR2: Signal = Signal(libc::SIGUSR2 as u8);
    /// `SIGPIPE`: a write to a pipe or socket that nobody reads.
    #[doc(alias = "SIGPIPE")]
    pub const PIPE: Signal = Signal(libc::SIGPIPE as u8);
    /// `SIGALRM`: the time set with alarm or the real-time timer is over.
    #[doc(alias = "SIGALRM")]
    pub const ALRM: Signal = Signal(libc::SIGALRM as u8);
    /// `SIGTERM`: a request to end, with time to clean up.
    #[doc(alias = "SIGTERM")]
    pub const TERM: Signal = Signal(libc::SIGTERM as u8);
    /// `SIGSTKFLT`: stack fault of a coprocessor; the kernel never sends it.
    #[doc(alias = "SIGSTKFLT")]
    pub const STKFLT: Signal = Signal(libc::SIGSTKFLT as u8);
    /// `SIGCHLD`: a child ended, stopped or went on.
    #[doc(alias = "SIGCHLD")]
    pub const CHLD: Signal = Signal(libc::SIGCHLD as u8);
    /// `SIGCONT`: go on, if stopped.
    #[doc(alias = "SIGCONT")]
    pub const CONT: Signal = Signal(libc::SIGCONT as u8);
    /// `SIGSTOP`: stop; cannot be handled, ignored or blocked.
    #[doc(alias = "SIGSTOP")]
    pub const STOP: Signal = Signal(libc::SIGSTOP as u8);
    /// `SIGTSTP`: stop from the keyboard (Ctrl-Z).
    #[doc(alias = "SIGTSTP")]
    pub const TSTP: Signal = Signal(libc::SIGTSTP as u8);
    /// `SIGTTIN`: a background process read from the terminal.
    #[doc(alias = "SIGTTIN")]
    pub const TTIN: Signal = Signal(libc::SIGTTIN as u8);
    /// `SIGTTOU`: a background process wrote to the terminal.
    #[doc(alias = "SIGTTOU")]
    pub const TTOU: Signal = Signal(libc::SIGTTOU as u8);
    /// `SIGURG`: urgent data arrived on a socket.
    #[doc(alias = "SIGURG")]
    pub const URG: Signal = Signal(libc::SIGURG as u8);
    /// `SIGXCPU`: the CPU time limit was passed.
    #[doc(alias = "SIGXCPU")]
    pub const XCPU: Signal = Signal(libc::SIGXCPU as u8);
    /// `SIGXFSZ`: the file size limit was passed.
    #[doc(alias = "SIGXFSZ")]
    pub const XFSZ: Signal = Signal(libc::SIGXFSZ as u8);
    /// `SIGVTALRM`: the timer of user CPU time is over.
    #[doc(alias = "SIGVTALRM")]
    pub const VTALRM: Signal = Signal(libc::SIGVTALRM as u8);
    /// `SIGPROF`: the timer of user and system CPU time is over.
    #[doc(alias = "SIGPROF")]
    pub const PROF: Signal = Signal(libc::SIGPROF as u8);
    /// `SIGWINCH`: the terminal window changed its size.
    #[doc(alias = "SIGWINCH")]
    pub const WINCH: Signal = Signal(libc::SIGWINCH as u8);
    /// `SIGIO`: a descriptor is ready for input or output.
    #[doc(alias = "SIGIO")]
    pub const IO: Signal = Signal(libc::SIGIO as u8);
    /// `SIGPWR`: the power is failing.
    #[doc(alias = "SIGPWR")]
    pub const PWR: Signal = Signal(libc::SIGPWR as u8);
    /// `SIGSYS`: a system call that does not exist or is not allowed.
    #[doc(alias = "SIGSYS")]
    pub const SYS: Signal = Signal(libc::SIGSYS as u8);
}
