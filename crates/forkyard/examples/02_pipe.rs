//! 2. A pipe between parent and child.
//!
//! A pipe has two ends: what one process writes into one, another reads from the other. An open end is a file
//! descriptor, and a descriptor is an argument like any other.
//!
//! ```text
//! cargo run --example 02_pipe
//! ```

use std::error::Error;
use std::io::{self, BufRead, BufReader, PipeReader, PipeWriter, Write};

use forkyard::process::{self, Fd};

/// What the child does. A result that travels to another process is made of plain data; an error travels as text.
#[forkyard::task]
fn shout(questions: Fd, answers: Fd) -> Result<usize, String> {
    capitals(PipeReader::from(questions), PipeWriter::from(answers)).map_err(|error| error.to_string())
}

/// Reads lines until the pipe ends and writes each in capitals; returns how many there were.
fn capitals(questions: PipeReader, mut answers: PipeWriter) -> io::Result<usize> {
    let mut lines = 0;
    for line in BufReader::new(questions).lines() {
        writeln!(answers, "{}", line?.to_uppercase())?;
        lines += 1;
    }
    Ok(lines)
}

fn main() -> Result<(), Box<dyn Error>> {
    // One pipe for each direction.
    let (child_reads, mut to_child) = io::pipe()?;
    let (from_child, child_writes) = io::pipe()?;

    // The child's ends move into the call: afterwards only the child has them.
    let child = process::spawn(shout, (Fd::from(child_reads), Fd::from(child_writes)))?;

    for word in ["apples", "pears", "plums"] {
        writeln!(to_child, "{word}")?;
    }
    // The child's loop ends when nobody can write any more. We are the last who can.
    drop(to_child);

    for line in BufReader::new(from_child).lines() {
        println!("child sent: {}", line?);
    }
    // The first `?` is about the process, the second about what its task returned.
    println!("child counted {} lines", child.join()??);
    Ok(())
}
