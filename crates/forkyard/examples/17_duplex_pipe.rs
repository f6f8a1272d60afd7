//! 17. A pipe that goes both ways: values there and back, until one side ends.
//!
//! ```text
//! cargo run --example 17_duplex_pipe
//! ```

#![allow(clippy::unwrap_used, reason = "a panic in a task is an error for whoever joins it")]

use std::time::Duration;

use forkyard::channel::{Connection, pipe};
use forkyard::process;
use serde::{Deserialize, Serialize};

#[derive(Debug, Serialize, Deserialize)]
enum Question {
    Length(String),
    Sum(Vec<i64>),
}

/// Answers until the other end is gone.
#[forkyard::task]
fn answers(asker: Connection) -> usize {
    let mut count = 0;
    while let Ok(question) = asker.recv() {
        let answer = match question {
            Question::Length(text) => text.len() as i64,
            Question::Sum(numbers) => numbers.iter().sum(),
        };
        asker.send(&answer).unwrap();
        count += 1;
    }
    count
}

fn main() -> forkyard::Result<()> {
    let (ours, theirs) = pipe()?;
    let child = process::spawn(answers, (theirs,))?;
    for question in [Question::Length("how long is this?".to_owned()), Question::Sum((1..=100).collect())] {
        ours.send(&question)?;
        println!("{question:?} -> {}", ours.recv::<i64>()?);
    }
    // Nobody has asked.
    let silence = ours.recv_timeout::<i64>(Duration::from_millis(10)).unwrap_err();
    println!("without a question: timed out: {}", silence.is_timeout());
    drop(ours);
    println!("questions answered: {}", child.join()?);

    // One that is killed is an end, too.
    let (ours, theirs) = pipe()?;
    let child = process::spawn(answers, (theirs,))?;
    child.kill()?;
    let end = ours.recv::<i64>().unwrap_err();
    println!("the other end was killed: {}", end.is_disconnected());
    child.wait_ended()?;
    Ok(())
}
