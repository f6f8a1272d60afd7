//! 11. B must run after A: a semaphore without permits.
//!
//! ```text
//! cargo run --example 11_order
//! ```

#![allow(clippy::unwrap_used, reason = "a panic in a task is an error for whoever joins it")]

use std::thread::sleep;
use std::time::Duration;

use forkyard::process;
use forkyard::sync::Semaphore;

#[forkyard::task]
fn a(done: Semaphore) {
    // Work that takes long enough for B to come first, if it did not wait.
    sleep(Duration::from_millis(50));
    println!("A: the table is laid");
    // Gives a permit, and wakes whoever waits for one.
    done.release().unwrap();
}

#[forkyard::task]
fn b(ready: Semaphore) {
    // Takes a permit, and waits until there is one.
    ready.acquire().unwrap();
    println!("B: the soup is served");
}

fn main() -> forkyard::Result<()> {
    // No permits: B has to wait, although it is started first.
    let laid = Semaphore::new(0)?;
    let second = process::spawn(b, (laid.clone(),))?;
    let first = process::spawn(a, (laid,))?;
    first.join()?;
    second.join()
}
