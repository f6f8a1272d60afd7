//! How much memory there is to be had.
//!
//! Shared memory is taken page by page, and where there is none left the kernel kills somebody instead of refusing. So whoever is about
//! to take much asks first. It is an estimate: others take memory meanwhile.

use std::path::Path;

/// Bytes that this process could take now without others being killed for it, as the kernel estimates: `MemAvailable` of proc(5), and what
/// the limits of its control group and of those above leave (`memory.max`, cgroup v2). `None`: the kernel does not tell.
#[must_use]
pub fn available() -> Option<u64> {
    let machine = std::fs::read_to_string("/proc/meminfo").ok().and_then(|text| available_in(&text));
    let group = std::fs::read_to_string("/proc/self/cgroup").ok().and_then(|text| left_in_groups(&text));
    match (machine, group) {
        (Some(machine), Some(group)) => Some(machine.min(group)),
        (machine, group) => machine.or(group),
    }
}

fn available_in(meminfo: &str) -> Option<u64> {
    let line = meminfo.lines().find_map(|line| line.strip_prefix("MemAvailable:"))?;
    line.trim().strip_suffix(" kB")?.trim().parse::<u64>().ok()?.checked_mul(1024)
}

/// What the tightest of the groups leaves that this process is in.
fn left_in_groups(groups: &str) -> Option<u64> {
    let path = groups.lines().find_map(|line| line.strip_prefix("0::"))?;
    let root = Path::new("/sys/fs/cgroup");
    let group = root.join(path.trim_start_matches('/'));
    group.ancestors().take_while(|group| group.starts_with(root)).filter_map(left_in).min()
}

fn left_in(group: &Path) -> Option<u64> {
    let read = |name: &str| std::fs::read_to_string(group.join(name)).ok();
    let number = |name: &str| read(name)?.trim().parse::<u64>().ok();
    let (most, used) = (number("memory.max")?, number("memory.current")?);
    // Files that nobody uses just now give way.
    let cache = read("memory.stat").and_then(|text| {
        text.lines().find_map(|line| line.strip_prefix("inactive_file "))?.trim().parse::<u64>().ok()
    });
    Some(most.saturating_sub(used.saturating_sub(cache.unwrap_or(0))))
}

#[cfg(test)]
mod tests {
    use super::available_in;

    #[test]
    fn the_kernels_words_are_read() {
        assert_eq!(available_in("MemTotal: 5 kB\nMemAvailable:      12 kB\n"), Some(12 * 1024));
        assert_eq!(available_in("MemTotal: 5 kB\n"), None);
        assert_eq!(available_in("MemAvailable: many kB\n"), None);
        assert!(super::available().is_some_and(|bytes| bytes > 0));
    }
}
