//! Claims about `forkyard connect` in a pipe.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by a panic")]

mod common;

use std::io::{Read as _, Write as _};
use std::net::{Shutdown, TcpListener};
use std::os::unix::net::UnixListener;
use std::process::Stdio;
use std::thread;

use common::{forkyard, read_until, run, run_with_input, serve_one};
use forkyard_cli::exit;

/// Sends everything back, in capitals, until the end of the input.
fn shout(mut stream: impl std::io::Read + std::io::Write) {
    let mut text = Vec::new();
    stream.read_to_end(&mut text).unwrap();
    stream.write_all(&text.to_ascii_uppercase()).unwrap();
}

#[test]
fn input_goes_there_its_end_is_told_and_the_answer_comes_back() {
    let address = serve_one(shout);
    let ended = run_with_input(&["connect", &address], b"hello\n").code(exit::OK);
    assert_eq!((ended.stdout.as_str(), ended.stderr.as_str()), ("HELLO\n", ""));
}

#[test]
fn a_host_may_be_a_name_and_a_socket_may_be_a_file() {
    let address = serve_one(shout).replace("127.0.0.1", "localhost");
    assert_eq!(run_with_input(&["connect", &address], b"a\n").code(exit::OK).stdout, "A\n");

    let path = std::env::temp_dir().join(format!("forkyard-connect-{}", std::process::id()));
    let listener = UnixListener::bind(&path).unwrap();
    thread::spawn(move || shout(listener.accept().unwrap().0));
    let to = format!("unix:{}", path.display());
    assert_eq!(run_with_input(&["connect", &to], b"b\n").code(exit::OK).stdout, "B\n");
    std::fs::remove_file(path).unwrap();
}

#[test]
fn both_directions_flow_at_once() {
    // More than any buffer holds: whoever sends everything first and reads then would hang.
    const SIZE: usize = 16 << 20;
    let address = serve_one(|mut stream| {
        let mut reader = stream.try_clone().unwrap();
        let mut buffer = vec![0; 4096];
        while let Ok(length @ 1..) = reader.read(&mut buffer) {
            stream.write_all(&buffer[..length]).unwrap();
        }
    });
    let input: Vec<u8> = (0..SIZE).map(|at| b'a' + (at % 26) as u8).collect();
    let ended = run_with_input(&["connect", &address], &input).code(exit::OK);
    assert!(ended.stdout.as_bytes() == input, "{} of {SIZE} bytes came back", ended.stdout.len());
}

#[test]
fn answers_are_printed_before_the_input_ends() {
    let address = serve_one(|mut stream| {
        let line = read_until(&mut stream, "\n");
        stream.write_all(line.to_uppercase().as_bytes()).unwrap();
        shout(stream);
    });
    let mut child = forkyard().args(["connect", &address]).stdin(Stdio::piped()).spawn().unwrap();
    let (mut stdin, mut stdout) = (child.stdin.take().unwrap(), child.stdout.take().unwrap());
    stdin.write_all(b"one\n").unwrap();
    assert_eq!(read_until(&mut stdout, "\n"), "ONE\n");
    stdin.write_all(b"two\n").unwrap();
    drop(stdin);
    assert_eq!(read_until(&mut stdout, "\n"), "TWO\n");
    common::end(child).code(exit::OK);
}

#[test]
fn it_ends_with_the_peer_although_there_may_be_more_input() {
    let address = serve_one(|mut stream| {
        read_until(&mut stream, "\n");
        stream.write_all(b"bye\n").unwrap();
    });
    let mut child = forkyard().args(["connect", &address]).stdin(Stdio::piped()).spawn().unwrap();
    let mut stdin = child.stdin.take().unwrap();
    stdin.write_all(b"hello\n").unwrap();
    let ended = common::end(child).code(exit::OK);
    assert_eq!(ended.stdout, "bye\n");
    drop(stdin);
}

#[test]
fn input_that_the_peer_does_not_take_is_an_error() {
    let address = serve_one(|stream| {
        // The end of what it says, and no reading: the input stays where it is.
        stream.shutdown(Shutdown::Write).unwrap();
        thread::sleep(common::LIMIT);
    });
    let ended = run_with_input(&["connect", &address], &vec![b'x'; 32 << 20]);
    ended.code(exit::FAILED).says("before it had taken all input");
}

#[test]
fn a_reset_is_an_error() {
    let address = serve_one(|mut stream| {
        // Closing with unread input resets the connection.
        let mut first = [0];
        stream.read_exact(&mut first).unwrap();
    });
    run_with_input(&["connect", &address], &vec![b'x'; 32 << 20]).code(exit::FAILED).says("by the peer");
}

#[test]
fn what_cannot_be_reached_is_told_with_the_reason() {
    let free = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string();
    run(["connect", &free]).code(exit::NOT_STARTED).says("refused; nobody listens");
    run(["connect", "no-such-host.invalid:1"])
        .code(exit::NOT_STARTED)
        .says("\"no-such-host.invalid\" is not known");
    run(["connect", "unix:/nonexistent/socket"]).code(exit::NOT_STARTED).says("no such socket");
    run(["-q", "connect", "unix:/nonexistent/socket"]).code(exit::NOT_STARTED).says("no such socket");
}

#[test]
fn the_connection_has_its_own_deadline() {
    // A full backlog takes no further connection; where the kernel has room left, some more fill it.
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let mut filling = Vec::new();
    while let Ok(stream) =
        std::net::TcpStream::connect_timeout(&address, std::time::Duration::from_millis(200))
    {
        filling.push(stream);
        if filling.len() > 8192 {
            eprintln!("skipped: the backlog does not fill");
            return;
        }
    }
    let ended = run(["connect", "-t", "300ms", &address.to_string()]);
    ended.code(exit::TIMED_OUT).says("timed out");
}

#[test]
fn a_reader_that_leaves_is_a_quiet_end() {
    let address = serve_one(|mut stream| while stream.write_all(&[b'x'; 4096]).is_ok() {});
    let mut child = forkyard().args(["connect", &address]).stdin(Stdio::piped()).spawn().unwrap();
    let _held_open = child.stdin.take();
    drop(child.stdout.take());
    let ended = common::end(child).code(exit::OK);
    assert_eq!(ended.stderr, "");
}

#[test]
fn input_that_cannot_be_read_is_an_error() {
    let address = serve_one(shout);
    let directory = std::fs::File::open("/").unwrap();
    let child = forkyard().args(["connect", &address]).stdin(Stdio::from(directory)).spawn().unwrap();
    common::end(child).code(exit::FAILED).says("cannot read standard input");
}
