//! 15. The dining philosophers, who report their deadlock.
//!
//! Each takes the fork on the left, and then the one on the right. When all have one fork, nobody ever gets the other. One
//! of them is told so, with the names of all, puts the fork back and tries again later; then all can eat.
//!
//! ```text
//! cargo run --example 15_philosophers
//! ```

#![allow(clippy::unwrap_used, reason = "a panic in a task is an error for whoever joins it")]

use forkyard::process::{self, Builder};
use forkyard::sync::{Barrier, LockError, Mutex};

const NAMES: [&str; 5] = ["plato", "hypatia", "kant", "arendt", "confucius"];

/// A fork: how often it was used.
type Fork = Mutex<u32>;

#[forkyard::task]
fn philosopher(left: Fork, right: Fork, all: Barrier) {
    let name = process::current().name();
    let mut first = left.lock().unwrap();
    // All have one fork now, so what rarely happens happens.
    all.wait().unwrap();
    let mut second = match right.lock() {
        Err(LockError::Deadlock(deadlock)) => {
            println!("{name} was told of a deadlock:");
            for blocked in deadlock.circle() {
                println!("  {} has a fork and waits for one", blocked.process);
            }
            // The others can eat when this fork is free.
            drop(first);
            let second = right.lock().unwrap();
            first = left.lock().unwrap();
            second
        }
        other => other.unwrap(),
    };
    *first += 1;
    *second += 1;
    println!("{name} eats");
}

fn main() -> forkyard::Result<()> {
    let forks = NAMES.iter().map(|_| Fork::new(0)).collect::<forkyard::Result<Vec<Fork>>>()?;
    let all = Barrier::new(NAMES.len())?;
    let mut guests = Vec::new();
    for (seat, name) in NAMES.into_iter().enumerate() {
        let (left, right) = (forks[seat].clone(), forks[(seat + 1) % forks.len()].clone());
        guests.push(Builder::new().name(name).spawn(philosopher, (left, right, all.clone()))?);
    }
    for guest in guests {
        guest.join()?;
    }
    println!("all have eaten");
    Ok(())
}
