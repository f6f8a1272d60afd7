//! 10. Two writers share the standard output: with a lock, and without.
//!
//! ```text
//! cargo run --example 10_lock
//! ```

#![allow(clippy::unwrap_used, reason = "a panic in a task is an error for whoever joins it")]

use std::io::Write;
use std::thread::sleep;
use std::time::Duration;

use forkyard::process::{self, Builder};
use forkyard::sync::Lock;

/// Writes two lines, a piece at a time. What others write meanwhile comes between.
fn write_slowly(name: &str) {
    let mut out = std::io::stdout();
    let name = format!("{name}:");
    for piece in [&name, " one", " two", " three\n"].repeat(2) {
        // An error here means that nobody listens any more.
        let _ = out.write_all(piece.as_bytes()).and_then(|()| out.flush());
        // Writing takes its time, so that without a lock the others come in between.
        sleep(Duration::from_millis(3));
    }
}

#[forkyard::task]
fn writer(lock: Option<Lock>) {
    let name = process::current().name();
    match &lock {
        // Released when the guard is dropped.
        Some(lock) => {
            let _guard = lock.lock().unwrap();
            write_slowly(&name);
        }
        None => write_slowly(&name),
    }
}

fn main() -> forkyard::Result<()> {
    println!("without a lock:");
    both(None)?;
    println!("with a lock:");
    // A lock is a handle: clones of it, also in other processes, are the same lock.
    both(Some(Lock::new()?))
}

fn both(lock: Option<Lock>) -> forkyard::Result<()> {
    let start = |name| Builder::new().name(name).spawn(writer, (lock.clone(),));
    let (ann, bob) = (start("ann")?, start("bob")?);
    ann.join()?;
    bob.join()
}
