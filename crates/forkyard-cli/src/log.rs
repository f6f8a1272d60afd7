//! The log: one line an event, on standard error or in a file that can be opened anew.
//!
//! On standard error a line begins with the command's name, in a file with the time (UTC). A log that cannot be
//! written is no reason to fail: the line is lost.

use std::fmt;
use std::fs::{File, OpenOptions};
use std::io::{self, Write as _};
use std::path::PathBuf;
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

/// How much is printed; each level has what is above it, too.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd)]
pub(crate) enum Level {
    /// What went wrong.
    Error,
    /// What the operator wants to know.
    Info,
    /// What only somebody who looks for a fault wants to know.
    Detail,
}

static LEVEL: AtomicU8 = AtomicU8::new(Level::Info as u8);
static FILE: Mutex<Option<(PathBuf, File)>> = Mutex::new(None);

/// Prints up to this level from now on.
pub(crate) fn set_level(level: Level) {
    LEVEL.store(level as u8, Ordering::Relaxed);
}

/// Writes to this file from now on, at its end.
pub(crate) fn to_file(path: PathBuf) -> io::Result<()> {
    let file = OpenOptions::new().append(true).create(true).open(&path)?;
    *FILE.lock().unwrap_or_else(PoisonError::into_inner) = Some((path, file));
    Ok(())
}

/// Opens the file by its name again, after it was moved away. True if there is a file.
pub(crate) fn reopen() -> io::Result<bool> {
    let path = FILE.lock().unwrap_or_else(PoisonError::into_inner).as_ref().map(|(path, _)| path.clone());
    path.map_or(Ok(false), |path| to_file(path).map(|()| true))
}

pub(crate) fn error(event: fmt::Arguments<'_>) {
    write(Level::Error, event);
}

pub(crate) fn info(event: fmt::Arguments<'_>) {
    write(Level::Info, event);
}

pub(crate) fn detail(event: fmt::Arguments<'_>) {
    write(Level::Detail, event);
}

fn write(level: Level, event: fmt::Arguments<'_>) {
    if level as u8 > LEVEL.load(Ordering::Relaxed) {
        return;
    }
    // One write per line, so that lines of several processes do not mix.
    let mut file = FILE.lock().unwrap_or_else(PoisonError::into_inner);
    let _ = match file.as_mut() {
        Some((_, file)) => file.write_all(format!("{} {event}\n", Utc::now()).as_bytes()),
        None => io::stderr().write_all(format!("forkyard: {event}\n").as_bytes()),
    };
}

/// A point in time, printed as `2025-01-31T23:59:59.123Z`.
struct Utc {
    seconds: i64,
    millis: u32,
}

impl Utc {
    fn now() -> Utc {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Utc { seconds: since.as_secs() as i64, millis: since.subsec_millis() }
    }
}

impl fmt::Display for Utc {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (days, second) = (self.seconds.div_euclid(86400), self.seconds.rem_euclid(86400));
        let (year, month, day) = civil(days);
        let (hour, minute, second) = (second / 3600, second / 60 % 60, second % 60);
        write!(f, "{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{:03}Z", self.millis)
    }
}

/// Year, month and day of a day counted from 1970-01-01, by counting years that begin in March.
fn civil(days: i64) -> (i64, i64, i64) {
    const ERA: i64 = 146_097;
    let shifted = days + 719_468;
    let (era, day) = (shifted.div_euclid(ERA), shifted.rem_euclid(ERA));
    let year = (day - day / 1460 + day / 36_524 - day / 146_096) / 365;
    let day = day - (365 * year + year / 4 - year / 100);
    let month = (5 * day + 2) / 153;
    let day = day - (153 * month + 2) / 5 + 1;
    let (year, month) = (era * 400 + year, month + 3);
    if month > 12 { (year + 1, month - 12, day) } else { (year, month, day) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn days_become_dates() {
        for (days, date) in [
            (0, (1970, 1, 1)),
            (58, (1970, 2, 28)),
            (59, (1970, 3, 1)),
            (11_016, (2000, 2, 29)),
            (-1, (1969, 12, 31)),
        ] {
            assert_eq!(civil(days), date, "{days}");
        }
        assert_eq!(Utc { seconds: 1_738_367_999, millis: 7 }.to_string(), "2025-01-31T23:59:59.007Z");
    }
}
