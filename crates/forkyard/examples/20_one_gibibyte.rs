//! 20. A gibibyte is handed to another process: written once, read where it lies, and never copied.
//!
//! ```text
//! cargo run --release --example 20_one_gibibyte            # 1024 MiB
//! cargo run --release --example 20_one_gibibyte -- 64      # 64 MiB
//! ```

#![allow(clippy::unwrap_used, reason = "a panic in a task is an error for whoever joins it")]

use std::time::Instant;

use forkyard::channel::{ByteQueue, Queue};
use forkyard::process;

const PAGE: usize = 4096;

/// Says what it found on each page, added up.
#[forkyard::task]
fn add_up(buffers: ByteQueue, sums: Queue<u64>) {
    while let Ok(buffer) = buffers.get() {
        // Its memory is this process's now, and is given back at the end of this block.
        sums.put(sum(&buffer)).unwrap();
    }
}

fn sum(bytes: &[u8]) -> u64 {
    bytes.chunks(PAGE).map(|page| u64::from(page[0])).sum()
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mebibytes: usize = std::env::args().nth(1).map_or(Ok(1024), |number| number.parse())?;
    let (buffers, sums) = (ByteQueue::bounded(2)?, Queue::bounded(2)?);
    let reader = process::spawn(add_up, (buffers.clone(), sums.clone()))?;

    // Shared memory, to be filled as if it were a vector.
    let mut buffer = buffers.loan(mebibytes << 20)?;
    let filling = Instant::now();
    for (number, page) in buffer.chunks_mut(PAGE).enumerate() {
        page.fill(number as u8);
    }
    let expected = sum(&buffer);
    println!("filled {mebibytes} MiB in {:?}", filling.elapsed());

    // Whatever its size, sending it is a few words.
    let sending = Instant::now();
    buffers.send(buffer)?;
    println!("handed over in {:?}", sending.elapsed());

    println!("the other process found the same: {}", sums.get()? == expected);
    buffers.close();
    reader.join()?;
    Ok(())
}
