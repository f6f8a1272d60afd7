//! 12. A critical resource: an event says that it may be used, and nobody waits for ever.
//!
//! ```text
//! cargo run --example 12_event
//! ```

#![allow(clippy::unwrap_used, reason = "a panic in a task is an error for whoever joins it")]

use std::time::Duration;

use forkyard::process::{self, Builder};
use forkyard::sync::{Event, Mutex};

#[forkyard::task]
fn visit(open: Event, visits: Mutex<u32>) {
    let name = process::current().name();
    // With a time-out, and something to do meanwhile.
    while let Err(error) = open.wait_timeout(Duration::from_millis(100)) {
        assert!(error.is_timeout(), "{error}");
        println!("{name}: still closed");
    }
    // What the mutex protects cannot be reached without it.
    let mut visits = visits.lock().unwrap();
    *visits += 1;
    println!("{name}: visitor number {visits}", visits = *visits);
}

fn main() -> forkyard::Result<()> {
    let (open, visits) = (Event::new()?, Mutex::new(0)?);
    let mut users = Vec::new();
    for name in ["ann", "bob"] {
        users.push(Builder::new().name(name).spawn(visit, (open.clone(), visits.clone()))?);
    }

    // Nobody will open this one: the time-out is an error that says so.
    let never = Event::new()?;
    match never.wait_timeout(Duration::from_millis(250)) {
        Err(error) if error.is_timeout() => println!("main: nobody opened the other door"),
        other => other?,
    }

    println!("main: open!");
    open.set()?;
    for user in users {
        user.join()?;
    }
    println!("main: {} visitors", *visits.lock()?);
    Ok(())
}
