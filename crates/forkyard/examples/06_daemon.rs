//! 6. A daemon that reports at intervals, and ends with its parent.
//!
//! A daemonic process works for its parent and has no reason to outlive it: at the end of the parent's `main` it is
//! ended. Even when the parent is killed with `kill -9`, it is gone within a second: no stray process remains.
//!
//! ```text
//! cargo run --example 06_daemon
//! ```

use std::error::Error;
use std::io::{self, BufRead, BufReader, PipeWriter, Write};
use std::thread;
use std::time::Duration;

use forkyard::process::{Builder, Fd};

/// Says "I am ok" every so often, as long as somebody can hear it. Nobody has to end this loop.
#[forkyard::task]
fn heartbeat(every: Duration, to: Fd) {
    let mut to = PipeWriter::from(to);
    while writeln!(to, "I am ok").is_ok() {
        thread::sleep(every);
    }
}

fn main() -> Result<(), Box<dyn Error>> {
    let (from_daemon, to_parent) = io::pipe()?;
    let daemon = Builder::new()
        .name("heartbeat")
        .daemon(true)
        .spawn(heartbeat, (Duration::from_millis(100), Fd::from(to_parent)))?;
    println!("daemon {} runs", daemon.pid());

    for beat in BufReader::new(from_daemon).lines().take(3) {
        println!("daemon: {}", beat?);
    }

    // Nobody joins the daemon, and main ends here: so does the daemon.
    println!("the parent ends");
    Ok(())
}
