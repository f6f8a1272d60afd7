//! What the test says: a line for each operation, and which point hung, if one does.

use std::sync::Mutex;
use std::time::{Duration, Instant};

/// Longer than every deadline inside a point, and than walking through an operation on a machine that does much else: only a tracee that
/// never stops again gets here.
const HUNG: Duration = Duration::from_secs(300);

/// So many failures of an operation are told in full.
const SHOWN: usize = 5;

static CURRENT: Mutex<Option<(Instant, String)>> = Mutex::new(None);

/// Ends the test with a message when a point takes for ever.
pub(crate) fn watch() {
    std::thread::spawn(|| {
        loop {
            std::thread::sleep(Duration::from_secs(1));
            if let Some((since, what)) = &*CURRENT.lock().unwrap()
                && since.elapsed() > HUNG
            {
                eprintln!("hung: {what}");
                std::process::exit(1);
            }
        }
    });
}

/// One operation and what was found.
pub(crate) struct Operation {
    name: String,
    since: Instant,
    points: usize,
    failures: usize,
    /// Failures that are told in full.
    shown: usize,
}

impl Operation {
    pub(crate) fn new(name: impl Into<String>) -> Operation {
        Operation { name: name.into(), since: Instant::now(), points: 0, failures: 0, shown: SHOWN }
    }

    /// Of which failures are expected.
    pub(crate) fn control(name: &str) -> Operation {
        Operation { shown: 0, ..Operation::new(name) }
    }

    /// Tries one point, and keeps what went wrong.
    pub(crate) fn point(&mut self, at: &str, attempt: impl FnOnce() -> Result<(), String>) -> bool {
        *CURRENT.lock().unwrap() = Some((Instant::now(), format!("{}, killed {at}", self.name)));
        self.points += 1;
        let result = attempt();
        *CURRENT.lock().unwrap() = None;
        let Err(why) = result else { return true };
        if self.failures < self.shown {
            println!("{}, killed {at}: {why}", self.name);
        }
        self.failures += 1;
        false
    }

    /// Says what was found; how many points went wrong.
    pub(crate) fn finish(self, details: &str) -> usize {
        let (name, points, failed) = (&self.name, self.points, self.failures);
        println!(
            "{name}: {points} kill points ({details}), {failed} wrong, {:.1} s",
            self.since.elapsed().as_secs_f64()
        );
        failed
    }
}
