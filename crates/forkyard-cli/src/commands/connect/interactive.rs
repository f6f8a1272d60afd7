//! The client on a terminal: line editing and history below, answers above, as they come.
//!
//! One thread (the main one) owns the terminal: it edits and it prints. The other receives and, when there is
//! something to print while a line is being edited, interrupts the edit; the line goes on where it was.
//!
//! The interrupt is a SIGINT to this process, for which the editor has a handler while it lives (the keyboard's
//! Ctrl-C is a key meanwhile). A signal that arrives just before the editor sleeps does not wake it, so it is
//! repeated until the edit has been left.

use std::io::{self, Write as _};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use forkyard::signal::Signal;
use rustyline::error::ReadlineError;
use rustyline::history::DefaultHistory;
use rustyline::{Cmd, Config, Editor, EventHandler, KeyCode, KeyEvent, Modifiers};

use super::editing::{EarlyEnd, Interrupt, Watch};
use super::screen::{Screen, rows};
use super::stream::Stream;
use crate::flags::Connect;
use crate::{exit, log, own};

type LineEditor = Editor<Watch, DefaultHistory>;

/// What the receiving thread hands to the one that owns the terminal.
#[derive(Default)]
struct Inbox {
    data: Vec<u8>,
    /// How it ended, once it has.
    end: Option<io::Result<()>>,
    /// A line is being edited: a newcomer must interrupt.
    editing: bool,
}

#[derive(Default)]
struct Shared {
    inbox: Mutex<Inbox>,
    changed: Condvar,
}

/// After how long an interrupt that was not noticed is repeated.
const AGAIN: Duration = Duration::from_millis(20);

/// Why editing is over.
enum Leave {
    /// Ctrl-D: nothing more to send.
    EndOfInput,
    /// Ctrl-C on an empty line.
    Interrupted,
    /// The peer closed, or the connection broke.
    Closed(io::Result<()>),
    /// The line could not be sent or the terminal failed.
    Failed(String),
}

pub(super) fn run(stream: &Stream, options: &Connect) -> u8 {
    let quit = Arc::new(AtomicBool::new(false));
    let mut editor = match editor(options, &quit) {
        Ok(editor) => editor,
        Err(error) => {
            log::error(format_args!("cannot use the terminal: {error}"));
            return exit::TOOL_FAILED;
        }
    };
    let shared = Shared::default();
    thread::scope(|scope| {
        let receiver =
            thread::Builder::new().name("receive".into()).spawn_scoped(scope, || receive(stream, &shared));
        if let Err(error) = receiver {
            log::error(format_args!("cannot start the thread that receives: {error}"));
            return exit::TOOL_FAILED;
        }
        let mut screen = Screen::default();
        let leave = edit(&mut editor, stream, &shared, &mut screen, &quit, &options.prompt);
        if let Some(Err(error)) = options.history.as_ref().map(|path| editor.save_history(path)) {
            log::error(format_args!("cannot keep the history: {error}"));
        }
        // From here on Ctrl-C is a signal again, and ends the client.
        drop(editor);
        let code = match leave {
            Leave::EndOfInput => drain(stream, &shared, &mut screen),
            Leave::Interrupted => own::end_by(Signal::INT),
            Leave::Closed(end) => {
                let code = ended(end, &mut screen);
                if code == exit::OK {
                    log::info(format_args!("closed by the peer"));
                }
                code
            }
            Leave::Failed(why) => {
                log::error(format_args!("{why}"));
                exit::FAILED
            }
        };
        // The receiving thread may wait for a peer that says nothing; the process ends without it.
        std::process::exit(i32::from(code))
    })
}

fn editor(options: &Connect, quit: &Arc<AtomicBool>) -> rustyline::Result<LineEditor> {
    let config = Config::builder().auto_add_history(true).max_history_size(1000)?.build();
    let mut editor = LineEditor::with_config(config)?;
    editor.set_helper(Some(Watch::default()));
    for key in [KeyEvent::ctrl('C'), KeyEvent::ctrl('\\')] {
        editor.bind_sequence(key, EventHandler::Conditional(Box::new(Interrupt(quit.clone()))));
    }
    editor.bind_sequence(KeyEvent::ctrl('@'), EventHandler::Conditional(Box::new(EarlyEnd)));
    editor.bind_sequence(KeyEvent(KeyCode::Tab, Modifiers::NONE), Cmd::SelfInsert(1, '\t'));
    if let Some(path) = options.history.as_ref().filter(|path| path.exists()) {
        editor.load_history(path)?;
    }
    Ok(editor)
}

/// Prints and edits in turns until there is a reason to leave.
fn edit(
    editor: &mut LineEditor,
    stream: &Stream,
    shared: &Shared,
    screen: &mut Screen,
    quit: &AtomicBool,
    prompt: &str,
) -> Leave {
    // The line that was interrupted, before and after the cursor.
    let mut unfinished = (String::new(), String::new());
    loop {
        let mut inbox = shared.lock();
        let data = std::mem::take(&mut inbox.data);
        let end = inbox.end.take();
        inbox.editing = end.is_none();
        drop(inbox);
        show(&screen.lines(&data));
        if let Some(end) = end {
            return Leave::Closed(end);
        }
        let prompt = format!("{}{prompt}", screen.tail());
        let line = editor.readline_with_initial(&prompt, (&unfinished.0, &unfinished.1));
        shared.lock().editing = false;
        shared.changed.notify_all();
        match line {
            Ok(line) => {
                screen.forget_tail();
                unfinished = Default::default();
                if let Err(error) = stream.send(format!("{line}\n").as_bytes()) {
                    return Leave::Failed(format!("cannot send the line: {error}"));
                }
            }
            Err(ReadlineError::Interrupted) if quit.load(Ordering::Relaxed) => return Leave::Interrupted,
            Err(ReadlineError::Interrupted | ReadlineError::Signal(_)) => {
                unfinished = editor.helper().map(Watch::line).unwrap_or_default();
                let columns = editor.dimensions().map_or(80, |(columns, _)| usize::from(columns));
                let shown = rows(&format!("{prompt}{}{}", unfinished.0, unfinished.1), columns);
                show(&format!("\x1b[{shown}A\r\x1b[J"));
            }
            // The terminal is gone; so is whoever typed.
            Err(ReadlineError::Eof | ReadlineError::Io(_)) => return Leave::EndOfInput,
            Err(error) => return Leave::Failed(format!("cannot read from the terminal: {error}")),
        }
    }
}

/// Sends no more and prints until the peer has said everything.
fn drain(stream: &Stream, shared: &Shared, screen: &mut Screen) -> u8 {
    let _ = stream.end_sending();
    loop {
        let inbox = shared.lock();
        let nothing = |inbox: &mut Inbox| inbox.data.is_empty() && inbox.end.is_none();
        let mut inbox = shared.changed.wait_while(inbox, nothing).unwrap_or_else(PoisonError::into_inner);
        let data = std::mem::take(&mut inbox.data);
        let end = inbox.end.take();
        drop(inbox);
        show(&screen.lines(&data));
        if let Some(end) = end {
            return ended(end, screen);
        }
    }
}

/// Prints what is left and tells how it ended.
fn ended(end: io::Result<()>, screen: &mut Screen) -> u8 {
    let tail = screen.tail();
    if !tail.is_empty() {
        show(&format!("{tail}\n"));
        screen.forget_tail();
    }
    end.map_or_else(|error| super::broke(&error), |()| exit::OK)
}

fn receive(stream: &Stream, shared: &Shared) {
    own::leave_to_main(Signal::INT);
    let mut buffer = vec![0; 64 << 10];
    loop {
        let received = stream.receive(&mut buffer);
        let mut inbox = shared.lock();
        let end = match received {
            Ok(0) => Some(Ok(())),
            Ok(length) => {
                inbox.data.extend_from_slice(&buffer[..length]);
                None
            }
            Err(error) => Some(Err(error)),
        };
        let over = end.is_some();
        inbox.end = end;
        shared.changed.notify_all();
        while inbox.editing && (!inbox.data.is_empty() || inbox.end.is_some()) {
            own::send_self(Signal::INT);
            inbox = match shared.changed.wait_timeout(inbox, AGAIN) {
                Ok((inbox, _)) => inbox,
                Err(poisoned) => poisoned.into_inner().0,
            };
        }
        drop(inbox);
        if over {
            return;
        }
    }
}

/// Writes on the terminal; if it is gone, there is nobody to tell.
fn show(text: &str) {
    if !text.is_empty() {
        let mut out = io::stdout().lock();
        let _ = out.write_all(text.as_bytes()).and_then(|()| out.flush());
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Inbox> {
        self.inbox.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
