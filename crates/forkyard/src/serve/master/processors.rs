//! How many processors have nothing to do: /proc/stat, over a span of time.
//!
//! Only those that this process may run on count. Where it cannot be told, in some sandboxes, all count as idle.

use std::fs::read_to_string;
use std::ops::RangeInclusive;

use forkyard_sys::fallback::{Feature, forced};

/// What the processors have done so far, in the kernel's ticks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Times {
    processors: u64,
    idle: u64,
    all: u64,
}

impl Times {
    /// Until now; `None` if it cannot be told.
    pub(super) fn now() -> Option<Times> {
        if forced(Feature::CpuTimes) {
            return None;
        }
        let status = read_to_string("/proc/self/status").ok()?;
        let allowed = status.lines().find_map(|line| line.strip_prefix("Cpus_allowed_list:"))?;
        Times::of(&read_to_string("/proc/stat").ok()?, &ranges(allowed))
    }

    /// From the kernel's text: `cpu0 user nice system idle iowait irq softirq steal …`.
    fn of(stat: &str, allowed: &[RangeInclusive<u64>]) -> Option<Times> {
        let mut times = Times::default();
        for line in stat.lines() {
            let Some((name, rest)) = line.strip_prefix("cpu").and_then(|line| line.split_once(' ')) else {
                continue;
            };
            let Ok(number) = name.parse() else { continue };
            if !allowed.iter().any(|range| range.contains(&number)) {
                continue;
            }
            // What guests use is in the first two already.
            let ticks: Vec<u64> =
                rest.split_whitespace().take(8).map_while(|word| word.parse().ok()).collect();
            let [_, _, _, idle, waiting, ..] = ticks[..] else { return None };
            times.processors += 1;
            times.idle += idle + waiting;
            times.all += ticks.iter().sum::<u64>();
        }
        (times.processors > 0).then_some(times)
    }

    /// How many processors were idle, rounded: half of one is one.
    pub(super) fn idle_since(self, before: Times) -> usize {
        let idle = self.idle.saturating_sub(before.idle).saturating_mul(self.processors);
        let all = self.all.saturating_sub(before.all).max(1);
        usize::try_from((2 * idle + all) / (2 * all)).unwrap_or(usize::MAX)
    }
}

/// A list like `0-3,7`.
fn ranges(list: &str) -> Vec<RangeInclusive<u64>> {
    let range = |part: &str| {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        Some(first.parse().ok()?..=last.parse().ok()?)
    };
    list.trim().split(',').filter_map(range).collect()
}

#[cfg(test)]
mod tests {
    use super::{Times, ranges};

    const BEFORE: &str =
        "cpu  9 9 9 9 9 9 9 9 9 9\ncpu0 10 0 10 100 0 0 0 0 5 0\ncpu1 10 0 10 100 0 0 0 0 0 0\nintr 7\n";
    const AFTER: &str =
        "cpu  9 9 9 9 9 9 9 9 9 9\ncpu0 20 0 10 100 0 0 0 0 9 0\ncpu1 14 0 10 104 2 0 0 0 0 0\nintr 7\n";

    #[test]
    fn half_a_processor_counts_as_one_and_less_does_not() {
        let idle = |list: &str| {
            let times = |text| Times::of(text, &ranges(list)).unwrap();
            times(AFTER).idle_since(times(BEFORE))
        };
        assert_eq!(idle("0-1"), 1);
        assert_eq!(idle("1"), 1);
        assert_eq!(idle("0"), 0);
        assert_eq!(Times::of(BEFORE, &ranges("7")), None);
    }

    #[test]
    fn no_time_at_all_is_no_idle_time() {
        let times = Times::of(BEFORE, &ranges("0-1")).unwrap();
        assert_eq!(times.idle_since(times), 0);
    }

    #[test]
    fn this_machine_tells() {
        assert!(
            Times::now().is_some()
                || forkyard_sys::fallback::forced(forkyard_sys::fallback::Feature::CpuTimes)
        );
    }

    #[test]
    fn lists_have_numbers_and_ranges() {
        assert_eq!(ranges(" 0-3,7\n"), [0..=3, 7..=7]);
    }
}
