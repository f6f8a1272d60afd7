//! 18. A chat: a host that listens, guests who know the key, and one who does not.
//!
//! The guests are processes of this program here; they could be any programs on any machine, in Python as well:
//! `multiprocessing.connection.Client` speaks the same.
//!
//! ```text
//! cargo run --example 18_chat
//! ```

use std::net::SocketAddr;
use std::os::fd::AsFd;

use forkyard::channel::{AuthKey, Connection, Listener, connect, wait};
use forkyard::process::{self, Builder};

const LINES: [&str; 2] = ["hello", "goodbye"];

/// Comes in, says its lines, and leaves when it has heard those of the others.
#[forkyard::task]
fn guest(host: SocketAddr, key: String, others: usize) -> Result<(), String> {
    talk(host, AuthKey::new(key), others).map_err(|error| error.to_string())
}

fn talk(host: SocketAddr, key: AuthKey, others: usize) -> forkyard::Result<()> {
    let host = connect(host, key)?;
    let me = process::current().name().to_owned();
    // The host says that all are here.
    println!("{me} heard: {}", text(&host.recv_bytes()?));
    for line in LINES {
        host.send_bytes(format!("{line}, says {me}").as_bytes())?;
    }
    for _ in 0..others * LINES.len() {
        println!("{me} heard: {}", text(&host.recv_bytes()?));
    }
    Ok(())
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// Passes on what each guest says to all others, until all have left.
fn host(mut guests: Vec<Connection>) -> forkyard::Result<()> {
    for connection in &guests {
        connection.send_bytes(b"all are here")?;
    }
    while !guests.is_empty() {
        let ready = wait(&guests.iter().map(AsFd::as_fd).collect::<Vec<_>>(), None)?;
        // From the last to the first, so that places stay right.
        for speaker in ready.into_iter().rev() {
            match guests[speaker].recv_bytes() {
                Ok(line) => {
                    for (_, other) in (0..).zip(&guests).filter(|(place, _)| *place != speaker) {
                        other.send_bytes(&line)?;
                    }
                }
                Err(error) if error.is_disconnected() => drop(guests.remove(speaker)),
                Err(error) => return Err(error),
            }
        }
    }
    Ok(())
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let address: SocketAddr = "127.0.0.1:0".parse()?;
    let listener = Listener::bind(address)?.authkey(AuthKey::new("open sesame"));
    let forkyard::channel::Address::Tcp(address) = *listener.address() else { return Ok(()) };

    let come = |name: &str, key: &str| Builder::new().name(name).spawn(guest, (address, key.to_owned(), 1));
    let eve = come("eve", "please")?;
    let others = [come("ann", "open sesame")?, come("bob", "open sesame")?];
    // Eve does not hold up the others, whenever she comes.
    let guests = vec![listener.accept()?, listener.accept()?];
    host(guests)?;
    for other in others {
        other.join()??;
    }
    // She may not have been heard yet.
    while listener.dropped() == 0 {
        let _ = listener.accept_timeout(std::time::Duration::from_millis(10));
    }
    if let Err(refusal) = eve.join()? {
        println!("eve was told: {refusal}");
    }
    println!("guests that were not let in: {}", listener.dropped());
    Ok(())
}
