//! Benchmark of process starts alone, and the requester in which each method is measured; see `peers/run`.

use forkyard_peers::{options::Options, start, table::Report};

fn main() {
    start::requester();
    let options = Options::from_args();
    let mut report = Report::new(options.json, options.rounds);
    start::run(&options, &mut report);
    report.finish();
}
