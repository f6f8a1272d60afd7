//! 9. Threads with the words of processes.
//!
//! A process has its own memory, and its death harms nobody else. A thread shares the memory of the others, starts
//! faster, and dies with them. Here both are started, named and joined by the same words, so that a program can
//! change its mind.
//!
//! ```text
//! cargo run --example 09_threads
//! ```

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use forkyard::{process, thread};

#[forkyard::task]
fn grind(beans: String, grams: u32) -> String {
    format!("{grams} g of ground {beans}")
}

fn main() -> forkyard::Result<()> {
    // The same task, twice. `thread` or `process`: that is the one word.
    let first = thread::Builder::new().name("mill-1").spawn(grind, ("arabica".to_owned(), 250))?;
    let second = process::Builder::new().name("mill-2").spawn(grind, ("robusta".to_owned(), 500))?;
    println!("{} ground {}", first.name(), first.join()?);
    println!("{} ground {}", second.name(), second.join()?);

    // A thread takes any closure, and sees what its captures point to.
    let cups = Arc::new(AtomicU32::new(0));
    let mut threads = Vec::new();
    for guest in 1..=3 {
        let cups = Arc::clone(&cups);
        threads.push(thread::spawn(move || cups.fetch_add(guest, Ordering::Relaxed), ())?);
    }
    for thread in threads {
        thread.join()?;
    }
    println!("{} cups were served", cups.load(Ordering::Relaxed));

    // A panic is an error for whoever joins, and nothing for the others.
    let clumsy = thread::spawn(|cups: u32| assert!(cups < 3, "dropped {cups} cups"), (4,))?;
    if let Err(error) = clumsy.join() {
        println!("clumsy: {}", error.panic().map_or("", |panic| &panic.message));
    }

    // The end of main waits for a thread, unless it is daemonic.
    let _daemon = thread::Builder::new().daemon(true).spawn(
        || {
            loop {
                std::thread::sleep(Duration::from_secs(3600));
            }
        },
        (),
    )?;
    let _closing = thread::spawn(
        || {
            std::thread::sleep(Duration::from_millis(100));
            println!("the last one turns off the light");
        },
        (),
    )?;
    println!("main ends");
    Ok(())
}
