//! `Signal`: a number from 1 to 64, its name, its meaning, and what it does when nobody handles it.

use std::fmt;
use std::str::FromStr;

use super::table::{ALIASES, ROWS};

/// A signal: its number is in 1–64, so it fits a mask, and 0 (the existence test of kill(2)) is none.
///
/// ```
/// use forkyard_sys::signal::{DefaultAction, Signal};
/// assert_eq!("SIGTERM".parse(), Ok(Signal::TERM));
/// assert_eq!("15".parse(), Ok(Signal::TERM));
/// assert_eq!(Signal::CHLD.default_action(), DefaultAction::Ignore);
/// assert_eq!(Signal::TERM.to_string(), "SIGTERM");
/// ```
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Signal(pub(super) u8);

/// What the kernel does with a signal that is neither handled nor ignored.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum DefaultAction {
    /// The process ends.
    Terminate,
    /// The process ends, and a core image is written where the limits allow it.
    Core,
    /// The process stops until `SIGCONT`.
    Stop,
    /// A stopped process goes on; nothing happens to another.
    Continue,
    /// Nothing.
    Ignore,
}

impl fmt::Display for DefaultAction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            DefaultAction::Terminate => "terminate",
            DefaultAction::Core => "core",
            DefaultAction::Stop => "stop",
            DefaultAction::Continue => "continue",
            DefaultAction::Ignore => "ignore",
        })
    }
}

/// The first real-time signal a program may use: glibc keeps 32 and 33 for itself.
const RTMIN: u8 = 34;
const RTMAX: u8 = 64;

const COUNT: usize = 31 + (RTMAX - RTMIN + 1) as usize;

const fn usable() -> [Signal; COUNT] {
    let mut all = [Signal(1); COUNT];
    let mut at = 0;
    while at < COUNT {
        let number = if at < 31 { at as u8 + 1 } else { at as u8 - 31 + RTMIN };
        all[at] = Signal(number);
        at += 1;
    }
    all
}

impl Signal {
    /// Every signal that a program may use, by number: 1–31, then the real-time ones. What `kill -l` lists.
    pub const ALL: &'static [Signal] = &usable();

    /// The signal of this number; `None` outside 1–64.
    #[must_use]
    pub const fn new(number: i32) -> Option<Signal> {
        if number >= 1 && number <= RTMAX as i32 { Some(Signal(number as u8)) } else { None }
    }

    /// The real-time signal `SIGRTMIN+n`; `None` beyond `SIGRTMAX`.
    #[must_use]
    #[doc(alias = "SIGRTMIN")]
    pub const fn realtime(n: i32) -> Option<Signal> {
        if n >= 0 && n <= (RTMAX - RTMIN) as i32 { Some(Signal(RTMIN + n as u8)) } else { None }
    }

    /// Its number, the same on every machine that Forkyard runs on.
    #[must_use]
    pub const fn number(self) -> i32 {
        self.0 as i32
    }

    /// Its name: `SIGTERM`, `SIGRTMIN+3`.
    #[must_use]
    pub const fn name(self) -> &'static str {
        ROWS[self.0 as usize - 1].0
    }

    /// What it says, in one line.
    #[must_use]
    pub const fn meaning(self) -> &'static str {
        ROWS[self.0 as usize - 1].2
    }

    /// What happens to a process that neither handles nor ignores it.
    #[must_use]
    pub const fn default_action(self) -> DefaultAction {
        ROWS[self.0 as usize - 1].1
    }

    /// True for a real-time signal: each one sent is delivered, in order, with its value. A standard signal
    /// that is pending already is not delivered a second time.
    #[must_use]
    pub const fn is_realtime(self) -> bool {
        self.0 >= RTMIN
    }

    /// True if glibc keeps it for itself (32 and 33): it can neither be handled, ignored nor blocked.
    #[must_use]
    pub const fn is_reserved(self) -> bool {
        self.0 > 31 && self.0 < RTMIN
    }
}

impl fmt::Display for Signal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

impl fmt::Debug for Signal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// A word that names no signal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ParseSignalError(String);

impl fmt::Display for ParseSignalError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?} is no signal: give a name (TERM, SIGTERM, RTMIN+1) or a number from 1 to 64", self.0)
    }
}

impl std::error::Error for ParseSignalError {}

impl FromStr for Signal {
    type Err = ParseSignalError;

    /// Reads a name with or without `SIG`, in either case, an old name (`CLD`, `IOT`, `POLL`), `RTMIN+n`,
    /// `RTMAX-n`, or a number.
    fn from_str(word: &str) -> Result<Signal, ParseSignalError> {
        parse(word).ok_or_else(|| ParseSignalError(word.to_owned()))
    }
}

fn parse(word: &str) -> Option<Signal> {
    if word.bytes().all(|byte| byte.is_ascii_digit()) {
        return Signal::new(word.parse().ok()?);
    }
    let upper = word.to_ascii_uppercase();
    let name = upper.strip_prefix("SIG").unwrap_or(&upper);
    if let Some(&(_, signal)) = ALIASES.iter().find(|(alias, _)| *alias == name) {
        return Some(signal);
    }
    if let Some(down) = name.strip_prefix("RTMAX-") {
        return digits(down).and_then(|n| Signal::realtime(i32::from(RTMAX - RTMIN) - n));
    }
    if let Some(up) = name.strip_prefix("RTMIN+") {
        return digits(up).and_then(Signal::realtime);
    }
    Signal::ALL.iter().copied().find(|signal| signal.name().strip_prefix("SIG") == Some(name))
}

fn digits(word: &str) -> Option<i32> {
    if word.bytes().all(|byte| byte.is_ascii_digit()) { word.parse().ok() } else { None }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_name_and_number_reads_back() {
        for &signal in Signal::ALL {
            assert_eq!(signal.name().parse(), Ok(signal));
            assert_eq!(signal.name()[3..].parse(), Ok(signal));
            assert_eq!(signal.name().to_lowercase().parse(), Ok(signal));
            assert_eq!(signal.number().to_string().parse(), Ok(signal));
            assert!(!signal.meaning().is_empty() && !signal.is_reserved());
        }
        assert_eq!(Signal::ALL.len(), 62);
    }

    #[test]
    fn rows_stand_at_their_numbers() {
        for (name, signal) in [("SIGHUP", Signal::HUP), ("SIGCHLD", Signal::CHLD), ("SIGSYS", Signal::SYS)] {
            assert_eq!(signal.name(), name);
        }
        assert_eq!(Signal::realtime(0).map(Signal::number), Some(libc::SIGRTMIN()));
        assert_eq!(Signal::realtime(30).map(Signal::number), Some(libc::SIGRTMAX()));
        assert_eq!("RTMAX-30".parse(), Ok(Signal::realtime(0).unwrap()));
        assert_eq!("CLD".parse(), Ok(Signal::CHLD));
    }

    #[test]
    fn what_is_no_signal_is_refused() {
        for word in
            ["", "0", "65", "-1", "SIG", "SIGSIGTERM", "TERMINATE", "RTMIN+31", "RTMAX-31", "RTMIN+-1", "+5"]
        {
            assert!(word.parse::<Signal>().is_err(), "{word:?}");
        }
    }
}
