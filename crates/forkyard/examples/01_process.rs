//! 1. Start a process and wait for it.
//!
//! ```text
//! cargo run --example 01_process
//! ```

use forkyard::process;

/// A function with `#[task]` can run in another process: its arguments travel there, its result travels back.
#[forkyard::task]
fn sum_up_to(n: u64) -> u64 {
    println!("child:  I am process {}", process::current().pid());
    (1..=n).sum()
}

fn main() -> forkyard::Result<()> {
    println!("parent: I am process {}", process::current().pid());

    // The arguments are a tuple, also when there is only one: (1000,).
    let child = process::spawn(sum_up_to, (1000,))?;
    println!("parent: started process {}", child.pid());

    // `join` waits until the child has ended and gives its result.
    let sum = child.join()?;
    println!("parent: the child says that 1 + 2 + … + 1000 = {sum}");

    // `fork` is the classic: the child is a copy of this process, at this point of its program, and runs the
    // closure. So it may use all that is here, like `greeting`, without sending it.
    let greeting = String::from("hello from a copy");
    let copy = process::fork(move || greeting.to_uppercase())?;
    println!("parent: the copy says {:?}", copy.join()?);
    Ok(())
}
