//! Start + join of a process that does nothing.
//!
//! Every method is measured in a requester of its own, a fresh process whose only burden is the memory asked
//! for; so no method pays for the threads or mappings of another. The figure is the median start.

use std::process::Command;
use std::time::{Duration, Instant};

use crate::options::{Options, beside};
use crate::rounds::{Contender, Summary, alternate};
use crate::table::{Budget, Group, Report};

/// Memory touched in the requester, in MiB, besides none.
const BALLAST: usize = 2048;

/// A way to start a process and join it.
type Method = fn() -> Result<(), String>;

/// The methods by name.
const METHODS: &[(&str, Method)] = &[
    #[cfg(feature = "ours")]
    ("forkyard default", ours::default),
    #[cfg(feature = "ours")]
    ("forkyard Start::Fork", ours::fork),
    #[cfg(feature = "ours")]
    ("forkyard Start::Spawn", ours::spawn),
    ("fork + _exit + waitpid", empty_fork),
    ("Command /proc/self/exe", || command("/proc/self/exe")),
    ("Command /bin/true", || command("/bin/true")),
    ("procspawn", || procspawn::spawn((), |()| ()).join().map_err(|e| e.to_string())),
];

/// The argument with which this program, started by `Command`, does nothing.
const NOOP: &str = "noop";

/// For the `start` program: does its part when it was started by a measurement, and then never returns.
pub fn requester() {
    let args: Vec<String> = std::env::args().collect();
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    match args[..] {
        [_, NOOP] => std::process::exit(0),
        [_, "one", name, ballast, length] => {
            procspawn::init();
            let figure = one(name, ballast.parse().unwrap_or(0), length.parse().unwrap_or(0));
            match figure {
                Ok(figure) => println!("{figure}"),
                Err(reason) => {
                    eprintln!("{reason}");
                    std::process::exit(1);
                }
            }
            std::process::exit(0)
        }
        _ => procspawn::init(),
    }
}

/// Measures everything and adds it to the report.
pub fn run(options: &Options, report: &mut Report) {
    let names =
        METHODS.iter().map(|m| m.0).filter(|name| !(options.skip_ours && name.starts_with("forkyard")));
    let cases: Vec<(&str, usize)> = names.flat_map(|name| [(name, 0), (name, BALLAST)]).collect();
    let length = options.length / 4;
    let contenders = cases.iter().map(|&(name, ballast)| {
        Contender::new(&label(name, ballast), move || elsewhere(name, ballast, length))
    });
    let series = alternate(options.rounds, contenders.collect());
    let (ours, fork) = ("forkyard default", "fork + _exit + waitpid");
    let mut group = Group::new("start + join of a no-op (2 GiB: touched in the requester)", "µs", series)
        .row(ours, fork, Some(Budget::AtMost(1.3)))
        .row(&label(ours, BALLAST), ours, Some(Budget::AtMost(1.3)));
    for ballast in [0, BALLAST] {
        for (mine, other) in [
            (ours, fork),
            (ours, "Command /proc/self/exe"),
            (ours, "Command /bin/true"),
            (ours, "procspawn"),
            ("forkyard Start::Fork", fork),
            ("forkyard Start::Spawn", "Command /proc/self/exe"),
        ] {
            if (ballast, mine, other) != (0, ours, fork) {
                group = group.row(&label(mine, ballast), &label(other, ballast), None);
            }
        }
    }
    report.add(&group);
}

fn label(name: &str, ballast: usize) -> String {
    if ballast == 0 { name.into() } else { format!("{name}, {} GiB", ballast >> 10) }
}

/// Has a fresh requester measure one method.
fn elsewhere(name: &str, ballast: usize, length: Duration) -> Result<f64, String> {
    let mut command = Command::new(beside("start"));
    command.args(["one", name, &ballast.to_string(), &length.as_millis().to_string()]);
    let output = command.output().map_err(|e| format!("requester: {e}"))?;
    let said = String::from_utf8_lossy(if output.status.success() { &output.stdout } else { &output.stderr });
    let last = said.lines().last().unwrap_or_default();
    last.parse().map_err(|_| format!("requester: {}: {last}", output.status))
}

/// The median time of one method in µs, over `length` ms but at least five starts.
fn one(name: &str, ballast: usize, length: u64) -> Result<f64, String> {
    let method = METHODS.iter().find(|m| m.0 == name).ok_or_else(|| format!("no method {name}"))?.1;
    let memory = touched(ballast << 20);
    for _ in 0..3 {
        method()?;
    }
    let begin = Instant::now();
    let mut times = Vec::new();
    while times.len() < 5 || begin.elapsed() < Duration::from_millis(length) {
        let start = Instant::now();
        method()?;
        times.push(start.elapsed().as_secs_f64() * 1e6);
    }
    drop(memory);
    Summary::of(&times).map(|s| s.median).ok_or_else(|| "no figures".into())
}

/// Memory with every page written.
fn touched(size: usize) -> Vec<u8> {
    let mut memory = vec![0; size];
    memory.iter_mut().step_by(4096).for_each(|byte| *byte = 1);
    std::hint::black_box(memory)
}

/// What the kernel takes for a process that does nothing.
fn empty_fork() -> Result<(), String> {
    let mut status = 0;
    // SAFETY: the child calls nothing but `_exit`; `status` is local.
    let (child, reaped) = unsafe {
        let child = libc::fork();
        if child == 0 {
            libc::_exit(0);
        }
        (child, libc::waitpid(child, &raw mut status, 0))
    };
    if child > 0 && reaped == child && status == 0 {
        return Ok(());
    }
    Err(format!("fork: {}", std::io::Error::last_os_error()))
}

fn command(program: &str) -> Result<(), String> {
    let status = Command::new(program).arg(NOOP).status().map_err(|e| e.to_string())?;
    if status.success() { Ok(()) } else { Err(status.to_string()) }
}

#[cfg(feature = "ours")]
mod ours {
    use forkyard::process::{Builder, Start};

    #[forkyard::task]
    fn noop() {}

    pub(super) fn default() -> Result<(), String> {
        forkyard::process::spawn(noop, ()).and_then(|p| p.join()).map_err(|e| e.to_string())
    }

    pub(super) fn fork() -> Result<(), String> {
        by(Start::Fork)
    }

    pub(super) fn spawn() -> Result<(), String> {
        by(Start::Spawn)
    }

    fn by(start: Start) -> Result<(), String> {
        let process = Builder::new().start(start).spawn(noop, ());
        process.and_then(|p| p.join()).map_err(|e| e.to_string())
    }
}
