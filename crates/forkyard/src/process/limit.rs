//! Which limit a refused start has met, with its value: for the error's text.

use std::fs;
use std::path::Path;

use forkyard_sys::Errno;
use forkyard_sys::limits::Resource;

/// The limits that an errno of a start speaks of.
pub(crate) fn hint(errno: Errno) -> String {
    match errno {
        Errno::AGAIN => format!(
            "a limit on processes was met: RLIMIT_NPROC {}, kernel.threads-max {}, kernel.pid_max {}{}",
            soft("nproc"),
            setting("/proc/sys/kernel/threads-max"),
            setting("/proc/sys/kernel/pid_max"),
            cgroup(),
        ),
        Errno::MFILE => {
            format!("the limit on this process's open files was met: RLIMIT_NOFILE {}", soft("nofile"))
        }
        Errno::NFILE => {
            format!(
                "the limit on the system's open files was met: fs.file-max {}",
                setting("/proc/sys/fs/file-max")
            )
        }
        Errno::NOMEM => format!("no memory: RLIMIT_AS {}{}", soft("as"), cgroup()),
        Errno::FBIG => format!("the limit on the size of files was met: RLIMIT_FSIZE {}", soft("fsize")),
        Errno::TOOMANYREFS => "too many file descriptors are in flight between processes".to_owned(),
        Errno::NOENT if !Path::new("/proc/self").exists() => "there is no /proc here".to_owned(),
        _ => "refused by the kernel".to_owned(),
    }
}

fn soft(name: &str) -> String {
    match Resource::from_name(name).map(Resource::get) {
        Some(Ok((Some(soft), _))) => soft.to_string(),
        Some(Ok((None, _))) => "unlimited".to_owned(),
        _ => "unknown".to_owned(),
    }
}

fn setting(path: &str) -> String {
    fs::read_to_string(path).map_or_else(|_| "unknown".to_owned(), |text| text.trim().to_owned())
}

/// The limit of a control group, where there is one that can be read.
fn cgroup() -> String {
    let own = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    let max = own.lines().find_map(|line| {
        let (_, rest) = line.split_once(':')?;
        let (controllers, path) = rest.split_once(':')?;
        let folder = match controllers {
            "" => format!("/sys/fs/cgroup{path}"),
            "pids" => format!("/sys/fs/cgroup/pids{path}"),
            _ => return None,
        };
        fs::read_to_string(format!("{folder}/pids.max")).ok()
    });
    max.map_or_else(String::new, |max| format!(", pids.max of the control group {}", max.trim()))
}
