//! 5. Terminate, and how a process ended.
//!
//! A process ends by returning, by `exit(code)`, by a panic or by a signal. Whoever joins it is told which.
//!
//! ```text
//! cargo run --example 05_exit_codes
//! ```

use std::time::Duration;

use forkyard::process::{self, Process};

#[forkyard::task]
fn finish() -> String {
    "done".to_owned()
}

#[forkyard::task]
fn give_up(code: i32) {
    process::exit(code);
}

#[forkyard::task]
fn stumble() {
    let numbers: Vec<u32> = Vec::new();
    println!("the largest is {}", numbers[0]);
}

#[forkyard::task]
fn sleep_for_an_hour() {
    std::thread::sleep(Duration::from_secs(3600));
}

fn main() -> forkyard::Result<()> {
    // Returned: `join` gives the value.
    println!("finish:    {:?}", process::spawn(finish, ())?.join()?);

    // Exited: there is no value, so `join` is an error that carries the exit status.
    report("give_up:  ", process::spawn(give_up, (3,))?);

    // Panicked: the error has the message and the place.
    report("stumble:  ", process::spawn(stumble, ())?);

    // Still running. `terminate` asks it to end (SIGTERM), `kill` ends it (SIGKILL).
    let sleeper = process::spawn(sleep_for_an_hour, ())?;
    println!("sleeper:   alive: {}", sleeper.is_alive());
    sleeper.terminate()?;
    report("terminate:", sleeper);

    let sleeper = process::spawn(sleep_for_an_hour, ())?;
    sleeper.kill()?;
    report("kill:     ", sleeper);

    // Waiting can have an end.
    let sleeper = process::spawn(sleep_for_an_hour, ())?;
    match sleeper.join_timeout(Duration::from_millis(50)) {
        Err(error) if error.is_timeout() => println!("time-out:  it still runs, and can be joined later"),
        other => println!("time-out:  {other:?}"),
    }
    sleeper.kill()
}

fn report(what: &str, process: Process<()>) {
    match process.join() {
        Ok(()) => println!("{what} ended well"),
        Err(error) => match (error.panic(), error.exit_status()) {
            (Some(panic), _) => println!("{what} panicked: {}", panic.message),
            (None, Some(status)) => println!("{what} ended by {status}"),
            (None, None) => println!("{what} {error}"),
        },
    }
}
