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
    let cache = read("memory.stat").map_or(0, |text| reclaimable_in(&text));
    Some(most.saturating_sub(used.saturating_sub(cache)))
}

/// What gives way to others in a group: its share of the page cache, without shared memory, and what the kernel keeps about files.
fn reclaimable_in(stat: &str) -> u64 {
    const GIVES_WAY: [&str; 3] = ["inactive_file", "active_file", "slab_reclaimable"];
    let lines = stat.lines().filter_map(|line| line.split_once(' '));
    let sizes = lines.filter(|(name, _)| GIVES_WAY.contains(name)).map(|(_, size)| size.parse::<u64>());
    sizes.map(|size| size.unwrap_or(0)).fold(0, u64::saturating_add)
}

#[cfg(test)]
mod tests {
    use super::{available_in, reclaimable_in};

    #[test]
    fn the_kernels_words_are_read() {
        assert_eq!(available_in("MemTotal: 5 kB\nMemAvailable:      12 kB\n"), Some(12 * 1024));
        assert_eq!(available_in("MemTotal: 5 kB\n"), None);
        assert_eq!(available_in("MemAvailable: many kB\n"), None);
        assert_eq!(
            reclaimable_in("anon 9\nactive_file 1\ninactive_file 20\nslab_reclaimable 300\nshmem 9\n"),
            321
        );
        assert!(super::available().is_some_and(|bytes| bytes > 0));
    }
}
