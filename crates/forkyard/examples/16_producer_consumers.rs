//! 16. One process produces, three consume, and one of these is killed.
//!
//! What a killed consumer had not finished goes to another one: nothing is lost.
//!
//! ```text
//! cargo run --example 16_producer_consumers
//! ```

#![allow(clippy::unwrap_used, reason = "a panic in a task is an error for whoever joins it")]

use forkyard::channel::{JoinableQueue, Queue};
use forkyard::process::{self, Builder};
use forkyard::sync::Event;

const ORDERS: u32 = 1000;

#[forkyard::task]
fn produce(orders: JoinableQueue<u32>) {
    for number in 1..=ORDERS {
        // Waits while the queue is full.
        orders.put(number).unwrap();
    }
}

#[forkyard::task]
fn consume(orders: JoinableQueue<u32>, totals: Queue<u64>) {
    let mut total = 0;
    // Until the queue is closed and empty.
    while let Ok(order) = orders.get() {
        total += u64::from(order.finish().unwrap());
    }
    totals.put(total).unwrap();
}

/// Takes an order, and does not finish it.
#[forkyard::task]
fn dawdle(orders: JoinableQueue<u32>, took_one: Event) {
    let _order = orders.get().unwrap();
    took_one.set().unwrap();
    loop {
        std::thread::park();
    }
}

fn main() -> forkyard::Result<()> {
    let (orders, totals) = (JoinableQueue::bounded(100)?, Queue::bounded(10)?);
    let producer = process::spawn(produce, (orders.clone(),))?;
    let took_one = Event::new()?;
    let dawdler = process::spawn(dawdle, (orders.clone(), took_one.clone()))?;
    took_one.wait()?;
    dawdler.kill()?;
    println!("the first consumer: {}", dawdler.wait_ended()?);

    let mut consumers = Vec::new();
    for number in 1..=3 {
        let name = format!("consumer-{number}");
        consumers.push(Builder::new().name(name).spawn(consume, (orders.clone(), totals.clone()))?);
    }
    producer.join()?;
    // Until every order is finished.
    orders.join()?;
    orders.close();
    let mut sum = 0;
    for consumer in consumers {
        consumer.join()?;
        sum += totals.get()?;
    }
    println!(
        "sum of all orders: {sum}, which is right: {}",
        sum == u64::from(ORDERS) * u64::from(ORDERS + 1) / 2
    );
    Ok(())
}
