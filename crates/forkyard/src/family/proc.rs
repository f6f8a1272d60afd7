//! What proc(5) says of a process.

use std::fs;
use std::time::UNIX_EPOCH;

/// Numbers of `/proc/PID/stat`.
pub(super) struct Stat {
    pub(super) name: String,
    pub(super) state: char,
    pub(super) parent: u32,
    pub(super) age_seconds: f64,
    pub(super) cpu_seconds: f64,
}

impl Stat {
    /// `None` if there is no such process.
    pub(super) fn of(pid: u32) -> Option<Stat> {
        let text = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        let up: f64 = fs::read_to_string("/proc/uptime").ok()?.split_whitespace().next()?.parse().ok()?;
        Stat::parse(&text, up, forkyard_sys::time::clock_ticks() as f64)
    }

    /// The name may have spaces and parentheses in it, so the rest is what stands behind the last one.
    fn parse(text: &str, up: f64, ticks: f64) -> Option<Stat> {
        let (head, tail) = text.rsplit_once(')')?;
        let name = head.split_once('(')?.1.to_owned();
        let fields: Vec<&str> = tail.split_whitespace().collect();
        let seconds = |index: usize| Some(fields.get(index)?.parse::<f64>().ok()? / ticks);
        Some(Stat {
            name,
            state: fields.first()?.chars().next()?,
            parent: fields.get(1)?.parse().ok()?,
            cpu_seconds: seconds(11)? + seconds(12)?,
            age_seconds: (up - seconds(19)?).max(0.0),
        })
    }
}

/// Seconds since 1970.
pub(super) fn now() -> f64 {
    UNIX_EPOCH.elapsed().map_or(0.0, |time| time.as_secs_f64())
}

/// A process's proportional share of memory, in bytes.
pub(super) fn pss(pid: u32) -> Option<u64> {
    let text = fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix("Pss:"))?;
    Some(line.split_whitespace().next()?.parse::<u64>().ok()? * 1024)
}

#[cfg(test)]
mod tests {
    use super::Stat;

    #[test]
    fn a_name_with_parentheses_does_not_shift_the_fields() {
        let text = "7 (a) (b) S 5 7 7 0 -1 4194560 1 2 3 4 100 50 0 0 20 0 1 0 300 1 2";
        let stat = Stat::parse(text, 10.0, 100.0).unwrap();
        assert_eq!((stat.name.as_str(), stat.state, stat.parent), ("a) (b", 'S', 5));
        assert!((stat.cpu_seconds - 1.5).abs() < 1e-9 && (stat.age_seconds - 7.0).abs() < 1e-9);
        assert!(Stat::parse("7 (a", 1.0, 100.0).is_none());
    }
}
