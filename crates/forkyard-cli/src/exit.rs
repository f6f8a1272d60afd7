//! Exit codes: what a script may act on.

/// All went well.
pub const OK: u8 = 0;
/// The work failed after it had begun: a connection was reset, or the peer left before it had read everything.
pub const FAILED: u8 = 1;
/// The command line cannot be understood; nothing was done.
pub const USAGE: u8 = 2;
/// The work could not begin: an address is taken, a host is unknown, a connection was refused.
pub const NOT_STARTED: u8 = 3;
/// A deadline given on the command line passed.
pub const TIMED_OUT: u8 = 124;
/// Forkyard itself failed.
pub const TOOL_FAILED: u8 = 125;
/// The program after `--` was found and cannot be executed.
pub const NOT_EXECUTABLE: u8 = 126;
/// The program after `--` was not found.
pub const NOT_FOUND: u8 = 127;

/// What the shell shows for a command that ended by signal `number`.
///
/// The command really ends by the signal; it exits with this code only where it cannot: as PID 1, which no
/// default action ends.
#[must_use]
pub const fn signalled(number: i32) -> u8 {
    128u8.wrapping_add((number & 0x7f) as u8)
}

/// Code, meaning, and the commands that end with it (none named: all), as help and manual list them.
pub(crate) const TABLE: &[(&str, &str, &[&str])] = &[
    ("0", "all went well", &[]),
    ("1", "the connection broke: it was reset, or the peer left before it had taken all input", &["connect"]),
    ("2", "the command line cannot be understood; nothing was done", &[]),
    ("3", "the work could not begin: address taken, no such user", &["serve"]),
    ("3", "there is no connection: host unknown, connection refused", &["connect"]),
    ("3", "there is no such process, or it belongs to no family, or to another user", &["top"]),
    ("124", "the time of --connect-timeout passed", &["connect"]),
    ("125", "forkyard itself failed", &[]),
    ("126", "the program after -- cannot be executed", &["serve"]),
    ("127", "the program after -- was not found", &["serve"]),
    ("128+n", "ended by signal n: 130 after Ctrl-C, 143 after TERM", &["serve", "connect"]),
];
