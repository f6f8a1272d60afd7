//! Messages between processes: Forkyard's queues and their peers. With `--syscalls`, how many system calls a message takes, by strace(1).

use std::process::{Command, Stdio};

use forkyard_peers::options::Options;
use forkyard_peers::queues;
use forkyard_peers::table::Report;

/// Messages of which the system calls are counted.
const COUNTED: u64 = 2000;

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["--send", name, size, count] => {
            let number = |text: &str| text.parse().unwrap_or(0);
            let sent = queues::send_some(name, number(size) as usize, number(count));
            std::process::exit(i32::from(!sent));
        }
        ["--syscalls"] => syscalls(),
        _ => {
            let options = Options::from_args();
            let mut report = Report::new(options.json, options.rounds);
            queues::run(&options, &mut report);
            report.finish();
        }
    }
}

fn syscalls() {
    print!("{:22}", "system calls a message");
    queues::SIZES.iter().for_each(|&size| print!("{:>12}", queues::bytes(size)));
    println!();
    for name in queues::names(false) {
        print!("{name:22}");
        for size in queues::SIZES {
            // Without those of starting and ending.
            let more = calls(name, size, COUNTED).zip(calls(name, size, 0));
            let each = more.map(|(all, none)| all.saturating_sub(none) as f64 / COUNTED as f64);
            print!("{:>12}", each.map_or_else(|| "–".to_owned(), |each| format!("{each:.2}")));
        }
        println!();
    }
}

/// All system calls of sending so many messages.
fn calls(name: &str, size: usize, count: u64) -> Option<u64> {
    let own = std::env::current_exe().ok()?;
    let mut strace = Command::new("strace");
    strace.args(["-f", "-qq", "-c", "-U", "calls,name", "-o", "/dev/stdout"]).arg(own);
    strace.args(["--send", name, &size.to_string(), &count.to_string()]).stderr(Stdio::null());
    let output = strace.output().ok().filter(|output| output.status.success())?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let total = text.lines().find(|line| line.trim_end().ends_with("total"))?;
    total.split_whitespace().next()?.parse().ok()
}
