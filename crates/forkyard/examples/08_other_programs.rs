//! 8. Other programs.
//!
//! A task is a function of this program in another process. A program is somebody else's code: it gets words
//! and a few open files, and gives back bytes and an exit status.
//!
//! ```text
//! cargo run --example 08_other_programs
//! ```

use std::error::Error;
use std::io::{BufRead, BufReader};
use std::time::Duration;

use forkyard::process::{PopenMode, Program, Stdio, popen, popen2, system};

fn main() -> Result<(), Box<dyn Error>> {
    // A command line for the shell, as one types it. Control returns when it has ended.
    println!("system: {}", system("exit 3")?);

    // The same with a pipe: we read what it writes, line by line, while it runs.
    let mut seasons = popen("for s in spring summer autumn winter; do echo $s; done", PopenMode::Read)?;
    for line in BufReader::new(seasons.stdout.take().ok_or("popen gives a pipe")?).lines() {
        println!("popen: {}", line?);
    }
    seasons.wait()?;

    // Both ways at once, without either side stopping the other when a pipe is full.
    let output = popen2("tr a-z A-Z")?.communicate("any amount of text")?;
    println!("popen2: {}", String::from_utf8(output.stdout)?);

    // A program without a shell: arguments are passed as they are, so nothing needs to be quoted.
    let greeting = Program::new("printenv").arg("GREETING").env("GREETING", "it's $5 & more").output()?;
    print!("program: {}", String::from_utf8(greeting.stdout)?);

    // Programs in a row. Everybody has only the pipe ends that it needs, so each sees the end of its input.
    let words = Program::new("printf").arg(r"pear\nplum\npear\nfig\npear\n");
    let count = (words | Program::new("sort") | Program::new("uniq").arg("-c")).output()?;
    for line in String::from_utf8(count.stdout)?.lines() {
        println!("pipeline: {}", line.trim());
    }

    // One that takes too long is ended, and its status says by what.
    let mut sleeper = Program::new("sleep").arg("1000").stdin(Stdio::Null).start()?;
    if let Err(error) = sleeper.wait_timeout(Duration::from_millis(20)) {
        println!("sleeper: timed out: {}", error.is_timeout());
        sleeper.terminate()?;
    }
    println!("sleeper: {}", sleeper.wait()?);

    // A program that does not exist is an error that says so, here and now.
    if let Err(error) = Program::new("no-such-program").start() {
        println!("error: {error}");
    }
    Ok(())
}
