//! After the requester's death: nothing guarded remains.
//!
//! Every process that the dead requester's guarded children started carries its token in the part of its
//! memory that `/proc/PID/environ` shows: a copy has it from the zygote, a program from its environment. Parents do not
//! matter, so it finds what has been reparented. A process that the kernel kills is opened first and read
//! afterwards, so a recycled number is never hit.
//!
//! In the middle of execve(2) a process has left its old memory, and its new one does not show an environment yet. Such a one
//! is looked at again.

use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use forkyard_sys::{Pid, pidfd};

const SIGKILL: i32 = 9;
/// Who has no environment for so long does not want one to be seen (`PR_SET_MM`, prctl(2)).
const PATIENCE: Duration = Duration::from_secs(1);

/// What a look at a process came to.
#[derive(PartialEq)]
enum Look {
    Stranger,
    /// It executes a program just now: nobody can tell.
    Executing,
    Killed,
}

/// Kills every other process that carries the token, until none is found.
pub(crate) fn sweep(token: &str) {
    // A process could fork faster than one pass; a second pass that finds nothing proves the end of that.
    let mut end = Instant::now() + PATIENCE;
    loop {
        match pass(token.as_bytes()) {
            Look::Stranger => return,
            Look::Killed => end = Instant::now() + PATIENCE,
            Look::Executing if Instant::now() > end => return,
            Look::Executing => std::thread::yield_now(),
        }
    }
}

/// Looks at everybody: `Killed` if anybody was, `Executing` if anybody may have to be.
fn pass(token: &[u8]) -> Look {
    let Ok(entries) = std::fs::read_dir("/proc") else { return Look::Stranger };
    let own = pidfd::own_pid();
    let pids = entries
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
        .filter_map(Pid::from_raw)
        .filter(|&pid| pid != own);
    pids.map(|pid| kill_if_marked(pid, token)).fold(Look::Stranger, |seen, look| match (seen, look) {
        (Look::Killed, _) | (_, Look::Killed) => Look::Killed,
        (Look::Executing, _) | (_, Look::Executing) => Look::Executing,
        _ => Look::Stranger,
    })
}

fn kill_if_marked(pid: Pid, token: &[u8]) -> Look {
    let Ok(process) = pidfd::open(pid) else { return Look::Stranger };
    let Ok(environment) = std::fs::read(format!("/proc/{}/environ", pid.as_raw_nonzero())) else {
        return Look::Stranger;
    };
    if environment.windows(token.len()).any(|window| window == token) {
        let killed = pidfd::send_signal(process.as_fd(), SIGKILL).is_ok();
        return if killed { Look::Killed } else { Look::Stranger };
    }
    let stat = || std::fs::read_to_string(format!("/proc/{}/stat", pid.as_raw_nonzero()));
    if environment.is_empty() && stat().is_ok_and(|stat| executes(&stat)) {
        Look::Executing
    } else {
        Look::Stranger
    }
}

/// Of a process whose environment was found empty: true unless it has no variables, or no memory, as a kernel thread or a dead process.
/// `vsize`, `env_start` and `env_end` of proc_pid_stat(5) are its 23rd, 50th and 51st field. The last two are zero in the middle of an
/// exec; where there is something between them now, the exec was over between two looks.
fn executes(stat: &str) -> bool {
    let Some((_, after_name)) = stat.rsplit_once(')') else { return false };
    let number = |field: usize| after_name.split_whitespace().nth(field - 3)?.parse::<u64>().ok();
    let (start, end) = (number(50), number(51));
    number(23).is_some_and(|size| size > 0) && end.is_some() && (end == Some(0) || start < end)
}

#[cfg(test)]
mod tests {
    use super::executes;

    #[test]
    fn a_process_between_two_programs_is_told_from_others() {
        let stat = |size: u64, start: u64, end: u64| {
            let fields = (3..=52).map(|field| match field {
                23 => size.to_string(),
                50 => start.to_string(),
                51 => end.to_string(),
                other => other.to_string(),
            });
            format!("7 (a) b) {}\n", fields.collect::<Vec<_>>().join(" "))
        };
        assert!(executes(&stat(4096, 0, 0)), "in the middle");
        assert!(executes(&stat(4096, 7, 9)), "it was, and has variables by now");
        assert!(!executes(&stat(4096, 9, 9)), "it has no variables");
        assert!(!executes(&stat(0, 0, 0)), "it has no memory");
        assert!(!executes("7 (cut"));
    }
}
