//! 19. An open file is sent to another process, which reads on where this one stopped.
//!
//! ```text
//! cargo run --example 19_send_a_file
//! ```

use std::fs::{self, File};
use std::io::{Read, Write};
use std::{env, io};

use forkyard::channel::{Connection, pipe};
use forkyard::process;

/// Reads files that it could not open itself: their names are gone.
#[forkyard::task]
fn read_files(files: Connection) -> Result<(), String> {
    serve(&files).map_err(|error| error.to_string())
}

fn serve(files: &Connection) -> Result<(), Box<dyn std::error::Error>> {
    loop {
        let mut file = match files.recv_fd() {
            Ok(descriptor) => File::from(descriptor),
            Err(error) if error.is_disconnected() => return Ok(()),
            Err(error) => return Err(error.into()),
        };
        let mut text = String::new();
        file.read_to_string(&mut text)?;
        files.send(&text)?;
    }
}

/// A file without a name: closed everywhere, it is gone.
fn unnamed(text: &str) -> io::Result<File> {
    let path = env::temp_dir().join(format!("forkyard-example-{}", std::process::id()));
    File::create_new(&path)?.write_all(text.as_bytes())?;
    let file = File::open(&path);
    fs::remove_file(path)?;
    file
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let (ours, theirs) = pipe()?;
    let reader = process::spawn(read_files, (theirs,))?;
    for number in 1..=2 {
        let mut file = unnamed(&format!("head of file {number}, and the rest of it"))?;
        let mut head = [0; 15];
        file.read_exact(&mut head)?;
        ours.send_fd(&file)?;
        // The other process has a descriptor of its own now.
        drop(file);
        println!("this process read {:?}", String::from_utf8_lossy(&head));
        println!("the other one read {:?}", ours.recv::<String>()?);
    }
    drop(ours);
    reader.join()??;
    Ok(())
}
