//! The whole benchmark in one run; see `peers/run`.

use forkyard_peers::{locks, options::Options, queues, serve, start, table::Report};

fn main() {
    let options = Options::from_args();
    let mut report = Report::new(options.json, options.rounds);
    locks::run(&options, &mut report);
    start::run(&options, &mut report);
    queues::run_some(&options, &mut report);
    serve::run(&options, &mut report);
    report.finish();
}
