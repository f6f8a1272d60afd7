//! What the line editor is taught: to tell the line it edits, and what Ctrl-C means.

use std::cell::RefCell;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use rustyline::completion::Completer;
use rustyline::highlight::{CmdKind, Highlighter};
use rustyline::hint::Hinter;
use rustyline::validate::Validator;
use rustyline::{Cmd, ConditionalEventHandler, Context, Event, EventContext, Helper, Movement, RepeatCount};

/// Sees every change of the line, and so knows it when the edit is interrupted.
#[derive(Default)]
pub(super) struct Watch(RefCell<(String, usize)>);

impl Watch {
    /// The line before and after the cursor.
    pub(super) fn line(&self) -> (String, String) {
        let (line, cursor) = &*self.0.borrow();
        line.split_at_checked(*cursor)
            .map_or_else(Default::default, |(left, right)| (left.into(), right.into()))
    }

    fn note(&self, line: &str, cursor: usize) {
        *self.0.borrow_mut() = (line.to_owned(), cursor);
    }
}

impl Hinter for Watch {
    type Hint = String;

    fn hint(&self, line: &str, cursor: usize, _: &Context<'_>) -> Option<String> {
        self.note(line, cursor);
        None
    }
}

impl Highlighter for Watch {
    fn highlight_char(&self, line: &str, cursor: usize, _: CmdKind) -> bool {
        self.note(line, cursor);
        false
    }
}

impl Completer for Watch {
    type Candidate = String;
}

impl Validator for Watch {}
impl Helper for Watch {}

/// Ctrl-C: drops what was typed; with nothing typed, asks to quit.
pub(super) struct Interrupt(pub(super) Arc<AtomicBool>);

impl ConditionalEventHandler for Interrupt {
    fn handle(&self, _: &Event, _: RepeatCount, _: bool, context: &EventContext<'_>) -> Option<Cmd> {
        if context.line().is_empty() {
            self.0.store(true, Ordering::Relaxed);
            return Some(Cmd::Interrupt);
        }
        Some(Cmd::Kill(Movement::WholeBuffer))
    }
}

/// A Ctrl-D that was pressed before the editor had the terminal, which turns it into a NUL.
pub(super) struct EarlyEnd;

impl ConditionalEventHandler for EarlyEnd {
    fn handle(&self, _: &Event, _: RepeatCount, _: bool, context: &EventContext<'_>) -> Option<Cmd> {
        Some(if context.line().is_empty() { Cmd::EndOfFile } else { Cmd::Noop })
    }
}
