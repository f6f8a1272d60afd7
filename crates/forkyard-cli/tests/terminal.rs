//! Claims about `forkyard connect` on a terminal, made of a pseudo-terminal.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by a panic")]

mod common;

use std::fs::File;
use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::os::fd::OwnedFd;
use std::os::unix::process::ExitStatusExt as _;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::thread;
use std::time::Instant;

use common::{LIMIT, forkyard, read_until, serve_one};
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{LocalModes, Winsize, tcgetattr, tcsetwinsize};

/// A client on a terminal of 80 columns.
struct Session {
    child: Child,
    keyboard: File,
    /// The other side, to look at its modes.
    terminal: OwnedFd,
    screen: Receiver<Vec<u8>>,
    seen: String,
}

impl Session {
    fn start(args: &[&str]) -> Session {
        let master = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC).unwrap();
        grantpt(&master).unwrap();
        unlockpt(&master).unwrap();
        let name = ptsname(&master, Vec::new()).unwrap().into_string().unwrap();
        let terminal = OwnedFd::from(File::options().read(true).write(true).open(name).unwrap());
        tcsetwinsize(&terminal, Winsize { ws_row: 24, ws_col: 80, ws_xpixel: 0, ws_ypixel: 0 }).unwrap();

        // The terminal becomes the controlling one of a session of its own, so that its Ctrl-C is a signal.
        let plain = forkyard();
        let mut command = Command::new("setsid");
        command.args(["--ctty", "--wait"]).arg(plain.get_program()).args(args);
        for (name, value) in plain.get_envs() {
            match value {
                Some(value) => command.env(name, value),
                None => command.env_remove(name),
            };
        }
        command.env("TERM", "xterm");
        let end = || Stdio::from(terminal.try_clone().unwrap());
        let child = command.stdin(end()).stdout(end()).stderr(end()).spawn().expect("setsid starts");

        let keyboard = File::from(master);
        let mut reader = keyboard.try_clone().unwrap();
        let (sender, screen) = channel();
        thread::spawn(move || {
            let mut buffer = [0; 4096];
            while let Ok(length @ 1..) = reader.read(&mut buffer) {
                if sender.send(buffer[..length].to_vec()).is_err() {
                    return;
                }
            }
        });
        Session { child, keyboard, terminal, screen, seen: String::new() }
    }

    /// Types. Control keys mean what they mean to the editor once the prompt is there.
    fn press(&mut self, keys: &str) {
        self.keyboard.write_all(keys.as_bytes()).unwrap();
    }

    /// Waits until these words are on the screen, after those that were waited for before.
    #[track_caller]
    fn shows(&mut self, words: &str) {
        let deadline = Instant::now() + LIMIT;
        loop {
            if let Some(at) = self.seen.find(words) {
                self.seen.drain(..at + words.len());
                return;
            }
            match self.screen.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
                Ok(bytes) => self.seen.push_str(&String::from_utf8_lossy(&bytes)),
                Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => {
                    panic!("{words:?} is not on the screen: {:?}", self.seen)
                }
            }
        }
    }

    /// Waits for the end; gives the code that a shell would show, and checks that the terminal is as it was.
    fn ends(self) -> Option<i32> {
        let status = common::end(self.child).status;
        let modes = tcgetattr(&self.terminal).unwrap().local_modes;
        assert!(modes.contains(LocalModes::ICANON | LocalModes::ECHO | LocalModes::ISIG), "{modes:?}");
        status.code().or(status.signal().map(|number| 128 + number))
    }
}

/// Answers each line in capitals.
fn shout(mut stream: TcpStream) {
    let mut reader = std::io::BufReader::new(stream.try_clone().unwrap());
    let mut line = String::new();
    while std::io::BufRead::read_line(&mut reader, &mut line).unwrap() > 0 {
        stream.write_all(line.to_uppercase().as_bytes()).unwrap();
        line.clear();
    }
    stream.write_all(b"goodbye\n").unwrap();
}

#[test]
fn a_line_goes_out_with_enter_and_the_answer_is_shown() {
    let mut session = Session::start(&["connect", &serve_one(shout)]);
    session.shows("> ");
    session.press("hello\r");
    session.shows("HELLO");
    session.shows("> ");
    session.press("two\rthree\r");
    session.shows("TWO");
    session.shows("THREE");
    session.shows("> ");
    session.press("\x04");
    session.shows("goodbye");
    assert_eq!(session.ends(), Some(0));
}

#[test]
fn answers_are_shown_while_a_line_is_being_typed_and_the_line_goes_on() {
    let (say, what) = channel::<&str>();
    let address = serve_one(move |mut stream| {
        for words in what {
            stream.write_all(words.as_bytes()).unwrap();
        }
        let line = read_until(&mut stream, "\n");
        stream.write_all(format!("got {line}").as_bytes()).unwrap();
    });
    let mut session = Session::start(&["connect", &address]);
    session.shows("> ");
    session.press("hel");
    session.shows("hel");
    say.send("news\n").unwrap();
    session.shows("news");
    session.shows("> hel");
    // The cursor is where it was, too: two characters to the left of the end.
    session.press("\x1b[D\x1b[D");
    say.send("more\n").unwrap();
    session.shows("more");
    session.shows("> hel");
    drop(say);
    session.press("X\x05p\r");
    session.shows("got hXelp");
    session.shows("closed by the peer");
    assert_eq!(session.ends(), Some(0));
}

#[test]
fn many_answers_come_whole_and_in_order_while_somebody_types() {
    const LINES: usize = 2000;
    let address = serve_one(|mut stream| {
        for number in 0..LINES {
            stream.write_all(format!("line {number}.\n").as_bytes()).unwrap();
        }
        shout(stream);
    });
    let mut session = Session::start(&["connect", &address]);
    for key in "typing".chars() {
        session.press(&key.to_string());
    }
    for number in 0..LINES {
        session.shows(&format!("line {number}."));
    }
    session.press("\r");
    session.shows("TYPING");
    session.shows("> ");
    session.press("\x04");
    session.shows("goodbye");
    assert_eq!(session.ends(), Some(0));
}

#[test]
fn a_question_without_a_line_end_is_shown_before_the_prompt() {
    let address = serve_one(|mut stream| {
        stream.write_all(b"your name? ").unwrap();
        let name = read_until(&mut stream, "\n");
        stream.write_all(format!("hello {name}").as_bytes()).unwrap();
    });
    let mut session = Session::start(&["connect", &address]);
    session.shows("your name? > ");
    session.press("Ada\r");
    session.shows("hello Ada");
    assert_eq!(session.ends(), Some(0));
}

#[test]
fn earlier_lines_come_back_also_from_a_file() {
    let path = std::env::temp_dir().join(format!("forkyard-history-{}", std::process::id()));
    let history = path.to_str().unwrap();
    let mut session = Session::start(&["connect", "--history", history, &serve_one(shout)]);
    session.shows("> ");
    session.press("first\r");
    session.shows("FIRST");
    session.shows("> ");
    session.press("\x1b[A");
    session.shows("first");
    session.press("!\r");
    session.shows("FIRST!");
    session.shows("> ");
    session.press("\x04");
    assert_eq!(session.ends(), Some(0));

    let mut session = Session::start(&["connect", "--history", history, &serve_one(shout)]);
    session.shows("> ");
    session.press("\x1b[A\x1b[A\r");
    session.shows("FIRST");
    session.shows("> ");
    session.press("\x04");
    assert_eq!(session.ends(), Some(0));
    std::fs::remove_file(path).unwrap();
}

#[test]
fn ctrl_c_drops_the_line_and_ends_an_empty_one() {
    let mut session = Session::start(&["connect", &serve_one(shout)]);
    session.shows("> ");
    session.press("wrong");
    session.shows("wrong");
    session.press("\x03right\r");
    session.shows("RIGHT");
    session.shows("> ");
    session.press("\x03");
    assert_eq!(session.ends(), Some(130));
}

#[test]
fn ctrl_c_ends_the_wait_for_a_peer_that_does_not_close() {
    let address = serve_one(|mut stream| {
        let mut text = Vec::new();
        stream.read_to_end(&mut text).unwrap();
        stream.write_all(b"now I sleep\n").unwrap();
        thread::sleep(LIMIT);
    });
    let mut session = Session::start(&["connect", &address]);
    session.shows("> ");
    session.press("\x04");
    session.shows("now I sleep");
    session.press("\x03");
    assert_eq!(session.ends(), Some(130));
}

#[test]
fn a_peer_that_closes_ends_the_client_in_the_middle_of_a_line() {
    let (close, wait) = channel::<()>();
    let address = serve_one(move |_stream| wait.recv().unwrap());
    let mut session = Session::start(&["connect", &address]);
    session.shows("> ");
    session.press("unfinis");
    session.shows("unfinis");
    close.send(()).unwrap();
    session.shows("closed by the peer");
    assert_eq!(session.ends(), Some(0));
}
