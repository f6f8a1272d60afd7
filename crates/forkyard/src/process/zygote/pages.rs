//! Cheaper clones: a copy gets the page tables of code and constants with it.
//!
//! fork(2) copies no page-table entries of a private file mapping that was never written to, because a fault could
//! fill them in again. A child that lives for microseconds pays for that with a fault per stretch of code it runs: about
//! twenty, which is more than its clone costs. The kernel copies the entries if one page of the mapping is private, so
//! the zygote writes one byte of each mapping over itself, through `/proc/self/mem`, which changes no protection. Where
//! that is not allowed (`proc_mem.force_override=`, no /proc), children are slower to start and nothing else.

use std::fs::{File, OpenOptions, read_to_string};
use std::os::unix::fs::FileExt;

/// Makes every read-only private file mapping of this process one whose page tables a clone copies.
pub(super) fn hand_down() {
    let Ok(maps) = read_to_string("/proc/self/maps") else { return };
    let Ok(memory) = OpenOptions::new().read(true).write(true).open("/proc/self/mem") else { return };
    for start in maps.lines().filter_map(constant_mapping) {
        // An error means that this mapping stays as it is.
        let _ = touch(&memory, start);
    }
}

/// Writes the byte that is there.
fn touch(memory: &File, address: u64) -> std::io::Result<()> {
    let mut byte = [0];
    memory.read_exact_at(&mut byte, address)?;
    memory.write_all_at(&byte, address)
}

/// The start of the mapping, if it is a private one of a file that cannot be written to: a line is
/// `start-end perms offset device inode path` (proc_pid_maps(5)).
fn constant_mapping(line: &str) -> Option<u64> {
    let mut fields = line.split_whitespace();
    let (start, _) = fields.next()?.split_once('-')?;
    let permissions = fields.next()?;
    let inode: u64 = fields.nth(2)?.parse().ok()?;
    let constant = matches!(permissions, "r-xp" | "r--p") && inode != 0;
    constant.then(|| u64::from_str_radix(start, 16).ok())?
}

#[cfg(test)]
mod tests {
    use super::constant_mapping;

    #[test]
    fn only_constant_file_mappings_count() {
        let text = "55f01ce1b000-55f01cea1000 r-xp 00025000 fe:00 10012093    /usr/bin/x";
        assert_eq!(constant_mapping(text), Some(0x55f0_1ce1_b000));
        assert_eq!(constant_mapping("7ff843521000-7ff843677000 rw-p 00026000 fe:00 326279 /lib/x"), None);
        assert_eq!(constant_mapping("7ff843521000-7ff843677000 rw-s 00026000 fe:00 326279 /memfd:x"), None);
        assert_eq!(constant_mapping("7ff84370e000-7ff843710000 r-xp 00000000 00:00 0 [vdso]"), None);
        assert_eq!(constant_mapping("nonsense"), None);
    }
}
