//! 7. The TCP server, in 30 lines.
//!
//! Every connection is served by a process of its own: what happens in one is not noticed by the others. Start it,
//! connect several times, and kill any process below it. Ctrl-C stops it once the last connection has ended.
//!
//! ```text
//! cargo run --example 07_tcp_server               # then, in another terminal:
//! printf 'hello\n' | nc -N 127.0.0.1 8081
//! ```

use std::io::{self, BufRead, BufReader, Write};

use forkyard::serve::{Connection, Server};
use forkyard::signal::{self, Signal};

/// Serves one connection: each line comes back in capitals. An error ends this connection and no other.
#[forkyard::handler]
fn shout(connection: Connection) -> io::Result<()> {
    for line in BufReader::new(&connection).lines() {
        writeln!(&connection, "{}", line?.to_uppercase())?;
    }
    Ok(())
}

fn main() -> forkyard::Result<()> {
    let address = std::env::args().nth(1).unwrap_or("127.0.0.1:8081".to_owned());
    let server = Server::bind(&address)?;
    for address in server.addresses() {
        println!("listening on {address}");
    }

    // The server runs until it is told to stop: here by Ctrl-C, or by `kill` without a number.
    let (control, again) = (server.control(), server.control());
    let _int = signal::handle(Signal::INT, move |_| control.stop())?;
    let _term = signal::handle(Signal::TERM, move |_| again.stop())?;

    let stats = server.run(shout)?;
    println!("connections served: {}", stats.counts.accepted);
    Ok(())
}
