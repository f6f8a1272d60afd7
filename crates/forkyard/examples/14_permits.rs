//! 14. A resource that three may use at a time; and one of the users is killed.
//!
//! ```text
//! cargo run --example 14_permits
//! ```

#![allow(clippy::unwrap_used, reason = "a panic in a task is an error for whoever joins it")]

use std::sync::atomic::{AtomicU32, Ordering};
use std::thread::sleep;
use std::time::Duration;

use forkyard::process::{self, Builder};
use forkyard::sync::{BoundedSemaphore, Event, Value};

const PERMITS: u32 = 3;

#[forkyard::task]
fn eat(seats: BoundedSemaphore, seated: Value<AtomicU32>, most: Value<AtomicU32>) {
    seats.acquire().unwrap();
    let now = seated.fetch_add(1, Ordering::Relaxed) + 1;
    most.fetch_max(now, Ordering::Relaxed);
    // The meal.
    sleep(Duration::from_millis(20));
    println!("{} has eaten", process::current().name());
    seated.fetch_sub(1, Ordering::Relaxed);
    seats.release().unwrap();
}

#[forkyard::task]
fn never_leaves(seats: BoundedSemaphore, seated: Event) {
    seats.acquire().unwrap();
    seated.set().unwrap();
    loop {
        std::thread::park();
    }
}

fn main() -> forkyard::Result<()> {
    let seats = BoundedSemaphore::new(PERMITS)?;
    let (seated, most) = (Value::new(AtomicU32::new(0))?, Value::new(AtomicU32::new(0))?);
    let mut guests = Vec::new();
    for number in 1..=8 {
        let name = format!("guest-{number}");
        let arguments = (seats.clone(), seated.clone(), most.clone());
        guests.push(Builder::new().name(name).spawn(eat, arguments)?);
    }
    for guest in guests {
        guest.join()?;
    }
    println!("never more than {PERMITS}: {}", most.load(Ordering::Relaxed) <= PERMITS);

    // A permit that the dead had comes back.
    let sits = Event::new()?;
    let stubborn = process::spawn(never_leaves, (seats.clone(), sits.clone()))?;
    sits.wait()?;
    println!("free seats: {}", seats.value());
    stubborn.kill()?;
    stubborn.wait_ended()?;
    println!("free seats when that guest was killed: {}", seats.value());
    Ok(())
}
