//! The options that all benchmark programs share.

use std::path::PathBuf;
use std::time::Duration;

/// What to measure and for how long.
#[derive(Debug, Clone)]
pub struct Options {
    /// Print JSON instead of text.
    pub json: bool,
    /// Leave Forkyard out: the peers among themselves.
    pub skip_ours: bool,
    /// Rounds per contender.
    pub rounds: usize,
    /// Length of one measurement.
    pub length: Duration,
    /// Print what happens on stderr.
    pub verbose: bool,
    /// Only what has this in its title.
    pub only: Option<String>,
}

impl Options {
    /// Reads the command line; prints the usage and exits on anything unknown.
    pub fn from_args() -> Options {
        let mut options = Options {
            json: false,
            skip_ours: false,
            rounds: 5,
            length: Duration::from_millis(1500),
            verbose: false,
            only: None,
        };
        let mut args = std::env::args().skip(1);
        while let Some(arg) = args.next() {
            match arg.as_str() {
                "--json" => options.json = true,
                "--skip-ours" => options.skip_ours = true,
                "--quick" => options.length = Duration::from_millis(300),
                "--verbose" => options.verbose = true,
                "--only" => options.only = Some(args.next().unwrap_or_else(|| usage())),
                "--rounds" => options.rounds = number(args.next()),
                "--length-ms" => options.length = Duration::from_millis(number(args.next()) as u64),
                _ => usage(),
            }
        }
        options
    }

    /// True if a group of this title is to be measured.
    pub fn wants(&self, title: &str) -> bool {
        self.only.as_ref().is_none_or(|only| title.contains(only.as_str()))
    }
}

fn number(arg: Option<String>) -> usize {
    arg.and_then(|a| a.parse().ok()).filter(|&n| n > 0).unwrap_or_else(|| usage())
}

fn usage() -> ! {
    eprintln!(
        "usage: [--quick] [--json] [--skip-ours] [--rounds N] [--length-ms N] [--only TEXT] [--verbose]\n\
         --quick: short measurements, the same rounds\n\
         --only: the groups that have this in their titles (locks, queues, servers)"
    );
    std::process::exit(2)
}

/// A program of this package, beside the running one.
pub fn beside(name: &str) -> PathBuf {
    let mut path = std::env::current_exe().unwrap_or_else(|_| PathBuf::from("."));
    path.set_file_name(name);
    path
}

/// A file of this package's source tree.
pub fn source(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join(name)
}

/// The `forkyard` program: `$FORKYARD`, or the release build of the tree this package lies in.
pub fn forkyard() -> PathBuf {
    std::env::var_os("FORKYARD").map_or_else(|| source("../target/release/forkyard"), PathBuf::from)
}
