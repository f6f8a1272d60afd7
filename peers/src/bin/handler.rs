//! A server with a handler that is a Rust function, in a process of its own for each connection; see `peers/run`. Prints where it listens.

use std::io::{self, Read as _, Write as _};

use forkyard::serve::{Connection, Server};
use forkyard::signal::{self, Signal};

/// Answers every line in capitals until the client is done.
#[forkyard::handler]
fn upper(connection: Connection) -> io::Result<()> {
    let mut line = [0; 4096];
    loop {
        let n = (&connection).read(&mut line)?;
        let Some(text) = line.get_mut(..n).filter(|text| !text.is_empty()) else { return Ok(()) };
        text.make_ascii_uppercase();
        (&connection).write_all(text)?;
    }
}

fn main() -> forkyard::Result<()> {
    let server = Server::bind("127.0.0.1:0")?;
    for address in server.addresses() {
        println!("{address}");
    }
    let control = server.control();
    let _term = signal::handle(Signal::TERM, move |_| control.stop())?;
    server.run(upper).map(|_| ())
}
