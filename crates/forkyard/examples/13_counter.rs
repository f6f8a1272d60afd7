//! 13. A counter that four processes share.
//!
//! ```text
//! cargo run --example 13_counter
//! ```

#![allow(clippy::unwrap_used, reason = "a panic in a task is an error for whoever joins it")]

use std::sync::atomic::{AtomicU64, Ordering};

use forkyard::process;
use forkyard::sync::Value;

const TIMES: u64 = 10_000;

#[forkyard::task]
fn count(locked: Value<u64>, atomic: Value<AtomicU64>) {
    for _ in 0..TIMES {
        // `*locked.lock().unwrap() += 1` reads, adds and writes while nobody else does.
        *locked.lock().unwrap() += 1;
        // An atomic needs no lock.
        atomic.fetch_add(1, Ordering::Relaxed);
    }
}

fn main() -> forkyard::Result<()> {
    let (locked, atomic) = (Value::new(0)?, Value::new(AtomicU64::new(0))?);
    let mut children = Vec::new();
    for _ in 0..4 {
        children.push(process::spawn(count, (locked.clone(), atomic.clone()))?);
    }
    for child in children {
        child.join()?;
    }
    println!("locked: {}", locked.get()?);
    println!("atomic: {}", atomic.load(Ordering::Relaxed));
    Ok(())
}
