//! 21. Each request brings the queue for its answer, and a counter outlives the process that made it.
//!
//! A shared object is there as long as a process, or a message that nobody has got yet, has a handle of it.
//!
//! ```text
//! cargo run --example 21_request_and_answer
//! ```

#![allow(clippy::unwrap_used, reason = "a panic in a task is an error for whoever joins it")]

use forkyard::channel::Queue;
use forkyard::process;
use forkyard::sync::Value;
use serde::{Deserialize, Serialize};

#[derive(Serialize, Deserialize)]
struct Request {
    text: String,
    answer_to: Queue<String>,
}

/// Answers whoever asks, and returns a counter that it has made itself.
#[forkyard::task]
fn serve(requests: Queue<Request>) -> Value<u64> {
    let served = Value::new(0).unwrap();
    for request in &requests {
        // Who asked may have been killed meanwhile: its queue is still there, and goes with this handle.
        request.answer_to.put(request.text.to_uppercase()).unwrap();
        *served.lock().unwrap() += 1;
    }
    served
}

#[forkyard::task]
fn ask(name: String, requests: Queue<Request>) -> String {
    let answer_to = Queue::bounded(1).unwrap();
    requests.put(Request { text: format!("{name} asks"), answer_to: answer_to.clone() }).unwrap();
    answer_to.get().unwrap()
}

fn main() -> forkyard::Result<()> {
    let requests = Queue::unbounded()?;
    let server = process::spawn(serve, (requests.clone(),))?;
    for name in ["ann", "bob", "cyd"] {
        println!("{}", process::spawn(ask, (name.to_owned(), requests.clone()))?.join()?);
    }
    requests.close();
    let served = server.join()?;
    println!("its process is gone, its counter says {}", served.get()?);
    Ok(())
}
