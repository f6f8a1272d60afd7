//! Servers: a process per connection, a program per connection, and kept connections on prefork workers.

use std::ffi::{OsStr, OsString};
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use crate::flood::{CAPITALS, ECHO, Flood, connections_per_second};
use crate::kept::requests_per_second;
use crate::options::{Options, beside, forkyard, source};
use crate::rounds::{Contender, alternate};
use crate::server::Server;
use crate::table::{Budget, Group, Report};

/// Connections in flight at once.
const CONCURRENCY: usize = 16;

/// A command line that starts a server; an error if it is not installed.
type Start = Result<Vec<OsString>, String>;

/// Measures everything that is wanted and adds it to the report.
pub fn run(options: &Options, report: &mut Report) {
    let process = "a process per connection";
    let program = "a program per connection";
    let kept = "kept connections";
    if options.wants(process) {
        report.add(&process_per_connection(options));
    }
    if options.wants(program) {
        report.add(&program_per_connection(options, beside("upper"), CAPITALS, Some(Budget::AtLeast(1.2))));
        report.add(&program_per_connection(options, "/bin/cat".into(), ECHO, None));
    }
    if options.wants(kept) {
        for connections in [16, 64] {
            report.add(&self::kept(options, connections));
        }
    }
}

fn process_per_connection(options: &Options) -> Group {
    let ours = ours(options, &["--mode", "process"], &[]);
    let python = |script: &str| -> Start { Ok(vec![python()?, source(script).into()]) };
    let servers = vec![
        ("forkyard serve", ours),
        ("forkyard::serve, a Rust function", rust_function(options)),
        ("C accept+fork", Ok(vec![beside("c_fork").into()])),
        ("Python ForkingTCPServer", python("python/forking.py")),
        ("Python multiprocessing.Process", python("python/process.py")),
    ];
    let series = alternate(options.rounds, flooded(options, CAPITALS, servers));
    Group::new("a process per connection, 16 at a time", "connections/s", series)
        .row("forkyard serve", "C accept+fork", Some(Budget::AtLeast(1.0)))
        .row("forkyard::serve, a Rust function", "C accept+fork", None)
        .row("forkyard serve", "Python ForkingTCPServer", None)
        .row("forkyard serve", "Python multiprocessing.Process", None)
}

/// The budget counts for `upper`, which has no start-up of its own; with `cat` most of the time is its start.
fn program_per_connection(
    options: &Options,
    program: PathBuf,
    reply: &'static [u8],
    budget: Option<Budget>,
) -> Group {
    let name = program.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let program = OsString::from(program);
    let tcpserver = || -> Start {
        let tcpserver = installed("tcpserver", "ucspi-tcp")?;
        let flags = "-1 -q -H -R -l localhost -c 1000 -b 1024 127.0.0.1 0";
        Ok([tcpserver.into()].into_iter().chain(words(flags)).chain([program.clone()]).collect())
    };
    let servers = vec![
        ("forkyard serve -- PROGRAM", ours(options, &[], &["--".into(), program.clone()])),
        ("tcpserver PROGRAM", tcpserver()),
        ("C accept+fork+exec", Ok(vec![beside("c_fork").into(), program.clone()])),
    ];
    let series = alternate(options.rounds, flooded(options, reply, servers));
    Group::new(&format!("a program per connection ({name}), 16 at a time"), "connections/s", series)
        .row("forkyard serve -- PROGRAM", "tcpserver PROGRAM", budget)
        .row("forkyard serve -- PROGRAM", "C accept+fork+exec", None)
}

fn kept(options: &Options, connections: usize) -> Group {
    let prefork = |listeners: &str| Ok(vec![beside("c_prefork").into(), "2".into(), listeners.into()]);
    let servers = vec![
        ("forkyard serve --mode prefork", ours(options, &["--mode", "prefork", "-w", "2"], &[])),
        ("C epoll prefork, one listener", prefork("shared")),
        ("C epoll prefork, SO_REUSEPORT", prefork("own")),
    ];
    let contenders = contenders(options, servers, move |server, length| {
        requests_per_second(server.addr, connections, length)
    });
    Group::new(
        &format!("{connections} kept connections, 2 workers"),
        "requests/s",
        alternate(options.rounds, contenders),
    )
    .row("forkyard serve --mode prefork", "C epoll prefork, one listener", Some(Budget::AtLeast(0.95)))
    .row("forkyard serve --mode prefork", "C epoll prefork, SO_REUSEPORT", None)
}

fn flooded(
    options: &Options,
    reply: &'static [u8],
    servers: Vec<(&'static str, Start)>,
) -> Vec<Contender<'static>> {
    contenders(options, servers, move |server, length| {
        let flood = Flood::new(server.addr, reply, CONCURRENCY).map_err(|e| e.to_string())?;
        connections_per_second(flood, length)
    })
}

/// A contender per server: every round starts it, measures it, ends it, and looks whether anything is left.
fn contenders(
    options: &Options,
    servers: Vec<(&'static str, Start)>,
    measure: impl Fn(&Server, Duration) -> Result<f64, String> + Copy + 'static,
) -> Vec<Contender<'static>> {
    let (length, verbose) = (options.length, options.verbose);
    let contender = |(name, start): (&'static str, Start)| {
        Contender::new(name, move || {
            let words = start.clone()?;
            let (program, args) = words.split_first().ok_or("no command")?;
            let server = Server::start(program, &args.iter().map(OsStr::new).collect::<Vec<_>>())?;
            let figure = measure(&server, length);
            if verbose {
                eprintln!("{name}: pid {} {figure:?}", server.pid());
            }
            server.stop()?;
            figure
        })
    };
    servers.into_iter().map(contender).collect()
}

/// `forkyard serve` on a free port.
fn ours(options: &Options, flags: &[&str], program: &[OsString]) -> Start {
    if options.skip_ours {
        return Err("left out".into());
    }
    let forkyard = forkyard();
    if !forkyard.exists() {
        return Err(format!("{} is not built", forkyard.display()));
    }
    let fixed = words("serve -1 -b 127.0.0.1:0 -c 1000");
    let flags = flags.iter().map(OsString::from);
    Ok([forkyard.into()].into_iter().chain(fixed).chain(flags).chain(program.iter().cloned()).collect())
}

/// A server of this package with a handler of its own.
fn rust_function(options: &Options) -> Start {
    let program = beside("handler");
    match program.exists() && !options.skip_ours {
        true => Ok(vec![program.into()]),
        false => Err("left out".into()),
    }
}

fn words(text: &str) -> impl Iterator<Item = OsString> {
    text.split(' ').map(OsString::from)
}

fn installed(program: &str, package: &str) -> Result<PathBuf, String> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let found = std::env::split_paths(&path).map(|dir| dir.join(program)).find(|file| file.is_file());
    found.ok_or_else(|| format!("{program} is not installed (Debian package {package})"))
}

/// The interpreter itself, past any launcher script of the same name.
fn python() -> Result<OsString, String> {
    let python = installed("python3", "python3")?;
    let told = Command::new(python).args(["-c", "import sys; print(sys.executable)"]).output();
    let told = told.map_err(|e| format!("python3: {e}"))?;
    Ok(String::from_utf8_lossy(&told.stdout).trim().into())
}
