//! Benchmark of servers alone; see `peers/run`.

use forkyard_peers::{options::Options, serve, table::Report};

fn main() {
    let options = Options::from_args();
    let mut report = Report::new(options.json, options.rounds);
    serve::run(&options, &mut report);
    report.finish();
}
