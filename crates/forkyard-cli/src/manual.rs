//! What help and manual say beyond the options: examples, signals, environment, exit codes.
//!
//! A section is data; [`help`] sets it as text below `--help`, [`roff`] as a section of the manual page.

use std::fmt::Write as _;

use crate::exit;

/// A titled list of terms and what they mean.
pub(crate) struct Section {
    title: &'static str,
    items: &'static [(&'static str, &'static str)],
}

const EXIT: Section = Section { title: "Exit codes", items: exit::TABLE };

pub(crate) const FORKYARD: &[Section] = &[
    Section {
        title: "Examples",
        items: &[
            ("forkyard serve", "answer every line on 127.0.0.1:8081 in capitals"),
            ("printf 'hello\\n' | forkyard connect 127.0.0.1:8081", "prints HELLO"),
            ("forkyard signals TERM KILL", "what these two signals are"),
        ],
    },
    EXIT,
    Section {
        title: "Environment",
        items: &[
            ("FORKYARD_*", "an option's value where the command line has none; each command's help names them"),
            ("NO_COLOR", "if set and not empty, no colours"),
        ],
    },
];

pub(crate) const SERVE: &[Section] = &[
    Section {
        title: "Examples",
        items: &[
            ("forkyard serve", "the classic exercise: each line comes back in capitals"),
            ("forkyard serve -b 127.0.0.1:7000 -b '[::1]:7000' echo", "an echo service on IPv4 and IPv6"),
            ("forkyard serve -b unix:/run/user/1000/cat.sock -- cat", "a program on a Unix socket"),
            ("forkyard serve --mode prefork -w 4 --max-requests 10000", "four long-lived workers"),
            ("forkyard serve --status 127.0.0.1:8082", "watch it in a browser"),
            ("forkyard serve -u nobody --rlimit as=256M -t 1m -- ./handler", "a handler with few rights"),
            ("forkyard serve -1 -b 127.0.0.1:0 > port &", "on a free port, which is then in the file"),
        ],
    },
    Section {
        title: "Signals",
        items: &[
            ("TERM, INT", "stop: accept nothing more, let connections finish for --grace, then TERM, then KILL"),
            ("INT again", "end at once"),
            ("QUIT", "end at once"),
            ("HUP", "fresh processes; the old ones finish what they serve"),
            ("TTIN, TTOU", "one worker (or spare process) more, one less"),
            ("USR1", "open the --log file anew, after it was moved away"),
            ("USR2", "replace the running program by the file on disk; listeners stay open, no connection is refused"),
        ],
    },
    EXIT,
    Section {
        title: "Environment",
        items: &[
            ("FORKYARD_*", "named with each option; the command line wins over it, and it wins over --config"),
            ("LISTEN_FDS, LISTEN_PID", "inherited listening sockets, for fd://3 and up"),
            ("NOTIFY_SOCKET", "told READY=1, RELOADING=1, STOPPING=1 and MAINPID=; programs do not see it"),
            ("NO_COLOR", "if set and not empty, no colours"),
        ],
    },
];

pub(crate) const CONNECT: &[Section] = &[
    Section {
        title: "Examples",
        items: &[
            ("forkyard connect localhost:8081", "type lines, read answers; Ctrl-D ends"),
            ("printf 'hello\\n' | forkyard connect 127.0.0.1:8081", "prints HELLO"),
            ("forkyard connect unix:/run/my.sock < request > answer", "files through a Unix socket"),
        ],
    },
    EXIT,
];

pub(crate) const SIGNALS: &[Section] = &[
    Section {
        title: "Examples",
        items: &[
            ("forkyard signals", "all of them"),
            ("forkyard signals 9 TERM", "two of them"),
            ("forkyard signals --json | jq -r '.[] | select(.default == \"core\").name'", "those that dump core"),
        ],
    },
    EXIT,
];

/// The sections that belong to a command.
pub(crate) fn sections(command: &str) -> &'static [Section] {
    match command {
        "forkyard" => FORKYARD,
        "serve" => SERVE,
        "connect" => CONNECT,
        "signals" => SIGNALS,
        _ => &[EXIT],
    }
}

/// The sections as text: short terms beside their meaning, long ones above it.
pub(crate) fn help(sections: &[Section]) -> String {
    const BESIDE: usize = 22;
    let mut text = String::new();
    for Section { title, items } in sections {
        let _ = writeln!(text, "{}{title}:", if text.is_empty() { "" } else { "\n" });
        let beside = items.iter().map(|(term, _)| term.chars().count()).max().filter(|width| *width <= BESIDE);
        for (term, meaning) in *items {
            let _ = match beside {
                Some(width) => writeln!(text, "  {term:width$}  {meaning}"),
                None => writeln!(text, "  {term}\n      {meaning}"),
            };
        }
    }
    text.truncate(text.trim_end().len());
    text
}

/// The sections as troff, with the man macros.
pub(crate) fn roff(sections: &[Section]) -> String {
    let mut text = String::new();
    for Section { title, items } in sections {
        let title = if *title == "Exit codes" { "EXIT STATUS".to_owned() } else { title.to_uppercase() };
        let _ = writeln!(text, ".SH {title}");
        for (term, meaning) in *items {
            let _ = writeln!(text, ".TP\n\\fB{}\\fR\n{}", escape(term), escape(meaning));
        }
    }
    text
}

/// Text that troff takes literally.
fn escape(text: &str) -> String {
    let escaped = text.replace('\\', "\\e").replace('-', "\\-").replace('\'', "\\(aq").replace('`', "\\(ga");
    if escaped.starts_with('.') { format!("\\&{escaped}") } else { escaped }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_line_of_the_sections_is_too_wide() {
        for sections in [FORKYARD, SERVE, CONNECT, SIGNALS] {
            for line in help(sections).lines() {
                assert!(line.chars().count() <= 110, "{line}");
            }
        }
    }

    #[test]
    fn troff_requests_in_text_are_escaped() {
        assert_eq!(escape("-x '.'"), "\\-x \\(aq.\\(aq");
        assert_eq!(escape(".SH"), "\\&.SH");
    }
}
