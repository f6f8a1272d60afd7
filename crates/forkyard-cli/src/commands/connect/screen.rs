//! What the peer said, as text that is safe to show on a terminal.
//!
//! Complete lines are printed above the line that is being typed. An incomplete last line (a question, say)
//! is shown in front of the prompt until the rest of it arrives or it is answered.

use std::fmt::Write as _;

#[derive(Debug, Default)]
pub(super) struct Screen {
    /// What has arrived after the last line feed.
    tail: Vec<u8>,
}

impl Screen {
    /// Adds what arrived and gives the lines that are complete.
    pub(super) fn lines(&mut self, data: &[u8]) -> String {
        self.tail.extend_from_slice(data);
        let complete = self.tail.iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1);
        let lines: Vec<u8> = self.tail.drain(..complete).collect();
        visible(&lines)
    }

    /// The incomplete last line.
    pub(super) fn tail(&self) -> String {
        visible(&self.tail)
    }

    /// Forgets the incomplete last line: it was answered, or shown for good.
    pub(super) fn forget_tail(&mut self) {
        self.tail.clear();
    }
}

/// The text with control characters spelt out, so that a peer cannot command the terminal.
fn visible(bytes: &[u8]) -> String {
    let text = String::from_utf8_lossy(bytes);
    let mut shown = String::with_capacity(text.len());
    let mut rest = text.chars().peekable();
    while let Some(c) = rest.next() {
        match c {
            '\n' | '\t' => shown.push(c),
            '\r' if rest.peek() == Some(&'\n') => {}
            c if c.is_control() => {
                let _ = write!(shown, "\\x{:02x}", u32::from(c));
            }
            c => shown.push(c),
        }
    }
    shown
}

/// How many rows of a terminal text takes that begins at the left edge.
pub(super) fn rows(text: &str, columns: usize) -> usize {
    text.split('\n').map(|line| line.chars().count() / columns.max(1) + 1).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_come_whole_and_the_rest_waits() {
        let mut screen = Screen::default();
        assert_eq!(screen.lines(b"one\r\ntwo\nna"), "one\ntwo\n");
        assert_eq!(screen.tail(), "na");
        assert_eq!(screen.lines(b"me? "), "");
        assert_eq!(screen.tail(), "name? ");
        screen.forget_tail();
        assert_eq!(screen.lines(b"three\n"), "three\n");
    }

    #[test]
    fn a_character_that_is_split_between_packets_is_whole_again() {
        let (mut screen, text) = (Screen::default(), "Grüße\n".as_bytes());
        assert_eq!(screen.lines(&text[..3]), "");
        assert_eq!(screen.lines(&text[3..]), "Grüße\n");
    }

    #[test]
    fn a_peer_cannot_command_the_terminal() {
        assert_eq!(Screen::default().lines(b"\x1b[2J\x07 \xc2\x9b\xff\n"), "\\x1b[2J\\x07 \\x9b\u{fffd}\n");
    }

    #[test]
    fn rows_count_wrapped_lines() {
        assert_eq!((rows("> ", 80), rows(&"x".repeat(80), 80), rows("a\nb", 80)), (1, 2, 2));
    }
}
