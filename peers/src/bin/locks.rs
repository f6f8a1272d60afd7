//! Benchmark of locks alone; see `peers/run`.

use forkyard_peers::{locks, options::Options, table::Report};

fn main() {
    let options = Options::from_args();
    let mut report = Report::new(options.json, options.rounds);
    locks::run(&options, &mut report);
    report.finish();
}
