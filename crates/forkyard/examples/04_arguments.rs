//! 4. Processes with arguments and names.
//!
//! ```text
//! cargo run --example 04_arguments
//! ```

use forkyard::process::{self, Builder};
use serde::{Deserialize, Serialize};

/// Anything that serde can carry is an argument or a result.
#[derive(Debug, Serialize, Deserialize)]
struct Order {
    dish: String,
    portions: u32,
}

#[derive(Debug, Serialize, Deserialize)]
struct Bill {
    cook: String,
    cents: u32,
}

#[forkyard::task]
fn cook(order: Order, cents_each: u32) -> Bill {
    // A process knows its own name. `ps` and /proc/PID/comm show it too (its first 15 bytes).
    let me = process::current();
    println!("{} cooks {} × {}", me.name(), order.portions, order.dish);
    Bill { cook: me.name(), cents: order.portions * cents_each }
}

fn main() -> forkyard::Result<()> {
    let orders = [("soup", 2, 350), ("curry", 1, 890), ("pie", 3, 420)];

    // Start them all, then wait for each: they run at the same time.
    let mut kitchen = Vec::new();
    for (number, (dish, portions, cents)) in orders.into_iter().enumerate() {
        let order = Order { dish: dish.to_owned(), portions };
        let name = format!("cook-{}", number + 1);
        kitchen.push(Builder::new().name(name).spawn(cook, (order, cents))?);
    }
    for process in &kitchen {
        println!("{} is process {}", process.name(), process.pid());
    }

    for process in kitchen {
        let bill = process.join()?;
        println!("{} asks for {}.{:02}", bill.cook, bill.cents / 100, bill.cents % 100);
    }
    Ok(())
}
