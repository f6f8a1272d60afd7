//! What help and manual say beyond the options: examples, signals, environment, exit codes.
//!
//! A section is data; [`help`] sets it as text below `--help`, [`roff`] as a section of the manual page.

use std::fmt::Write as _;

use crate::exit;

type Items = &'static [(&'static str, &'static str)];

/// Titles and items of a command's own sections; exit codes come from their table.
fn own(command: &str) -> &'static [(&'static str, Items)] {
    match command {
        "forkyard" => FORKYARD,
        "serve" => SERVE,
        "connect" => CONNECT,
        "signals" => SIGNALS,
        "top" => TOP,
        _ => &[],
    }
}

const FORKYARD: &[(&str, Items)] = &[
    (
        "Examples",
        &[
            ("forkyard serve", "answer every line on 127.0.0.1:8081 in capitals"),
            ("printf 'hello\\n' | forkyard connect 127.0.0.1:8081", "prints HELLO"),
            ("forkyard signals TERM KILL", "what these two signals are"),
        ],
    ),
    ("Environment", ENVIRONMENT),
];

const ENVIRONMENT: Items = &[
    ("FORKYARD_NAME", "value of the option --name (FORKYARD_MAX_CONNS for --max-conns) if it is not given"),
    ("NO_COLOR", "if set and not empty, no colours"),
];

const TOP: &[(&str, Items)] = &[
    (
        "Examples",
        &[
            ("forkyard top 4711", "the family of process 4711, anew every second"),
            ("forkyard top --once --json 4711", "the same once, for a program"),
            ("forkyard top --once $(pgrep -o myprogram)", "who holds what, and who waits for it"),
        ],
    ),
    (
        "Columns",
        &[
            ("S", "state as in proc(5): R running, S sleeping, D in the kernel, T stopped, Z ended"),
            ("D", "d: ends with its parent; -: does not; ?: uses no shared object and does not say"),
            ("PSS", "its share of memory, shared pages divided by who shares them"),
        ],
    ),
];

const SERVE: &[(&str, Items)] = &[
    (
        "Examples",
        &[
            ("forkyard serve", "the classic exercise: each line comes back in capitals"),
            ("forkyard serve -b 127.0.0.1:7000 -b '[::1]:7000' echo", "an echo service on IPv4 and IPv6"),
            ("forkyard serve -b unix:/run/user/1000/cat.sock -- cat", "a program on a Unix socket"),
            ("forkyard serve --mode prefork -w 4 --max-requests 10000", "four long-lived workers"),
            ("forkyard serve --status 127.0.0.1:8082", "watch it in a browser"),
            (
                "forkyard serve -u nobody --rlimit as=256M --timeout 1m -- ./handler",
                "a handler with few rights",
            ),
            ("forkyard serve -1 -b 127.0.0.1:0 > port &", "on a free port, which is then in the file"),
        ],
    ),
    (
        "Signals",
        &[
            (
                "TERM, INT",
                "stop: accept nothing more, give connections --grace to finish, then TERM, then KILL",
            ),
            ("INT again", "end at once"),
            ("QUIT", "end at once"),
            ("HUP", "fresh processes; the old ones finish what they serve"),
            ("TTIN, TTOU", "one worker (or spare process) more, one less"),
            ("USR1", "open the --log file anew, after it was moved away"),
            ("USR2", "replace the running program by the file on disk; listeners stay open"),
        ],
    ),
    (
        "Environment",
        &[
            ("FORKYARD_NAME", "value of the option --name (FORKYARD_MAX_CONNS for --max-conns)"),
            ("LISTEN_FDS", "with LISTEN_PID: the number of inherited sockets, for fd://3 and up"),
            ("NOTIFY_SOCKET", "told READY=1, RELOADING=1, STOPPING=1, MAINPID=; programs do not get it"),
            ("NO_COLOR", "if set and not empty, no colours"),
        ],
    ),
];

const CONNECT: &[(&str, Items)] = &[
    (
        "Examples",
        &[
            ("forkyard connect localhost:8081", "type lines, read answers; Ctrl-D ends"),
            ("printf 'hello\\n' | forkyard connect 127.0.0.1:8081", "prints HELLO"),
            ("forkyard connect unix:/run/my.sock < request > answer", "files through a Unix socket"),
        ],
    ),
    (
        "Keys",
        &[
            ("Ctrl-D", "nothing more to send: wait for the rest of the answers"),
            ("Ctrl-C", "drop the line; on an empty line, end"),
            ("Up, Down, Ctrl-R", "earlier lines, later ones, search"),
            ("Left, Right, Ctrl-A, Ctrl-E", "move in the line (and all else that emacs has)"),
        ],
    ),
    ("Environment", ENVIRONMENT),
];

const SIGNALS: &[(&str, Items)] = &[(
    "Examples",
    &[
        ("forkyard signals", "all of them"),
        ("forkyard signals 9 TERM", "two of them"),
        ("forkyard signals --json | jq -r '.[] | select(.default == \"core\").name'", "those that dump core"),
    ],
)];

/// A titled list of terms and what they mean.
struct Section {
    title: &'static str,
    items: Vec<(&'static str, &'static str)>,
}

fn sections(command: &str) -> Vec<Section> {
    let codes = exit::TABLE.iter().filter(|(_, _, of)| of.is_empty() || of.contains(&command));
    let exit =
        Section { title: "Exit codes", items: codes.map(|(code, meaning, _)| (*code, *meaning)).collect() };
    own(command)
        .iter()
        .map(|(title, items)| Section { title, items: items.to_vec() })
        .chain(std::iter::once(exit))
        .collect()
}

/// The sections of a command as text: short terms beside their meaning, long ones above it.
pub(crate) fn help(command: &str) -> String {
    const BESIDE: usize = 28;
    let mut text = String::new();
    for Section { title, items } in sections(command) {
        let _ = writeln!(text, "{}{title}:", if text.is_empty() { "" } else { "\n" });
        let beside =
            items.iter().map(|(term, _)| term.chars().count()).max().filter(|width| *width <= BESIDE);
        for (term, meaning) in items {
            let _ = match beside {
                Some(width) => writeln!(text, "  {term:width$}  {meaning}"),
                None => writeln!(text, "  {term}\n      {meaning}"),
            };
        }
    }
    text.truncate(text.trim_end().len());
    text
}

/// The sections of a command as troff, with the man macros.
pub(crate) fn roff(command: &str) -> String {
    let mut text = String::new();
    for Section { title, items } in sections(command) {
        let title = if title == "Exit codes" { "EXIT STATUS".to_owned() } else { title.to_uppercase() };
        let _ = writeln!(text, ".SH {title}");
        for (term, meaning) in items {
            let _ = writeln!(text, ".TP\n\\fB{}\\fR\n{}", escape(term), escape(meaning));
        }
    }
    text
}

/// Text that troff takes literally.
pub(crate) fn escape(text: &str) -> String {
    let escaped = text.replace('\\', "\\e").replace('-', "\\-").replace('\'', "\\(aq").replace('`', "\\(ga");
    if escaped.starts_with('.') { format!("\\&{escaped}") } else { escaped }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_line_of_the_sections_is_too_wide() {
        for command in ["forkyard", "serve", "connect", "signals", "top", "man"] {
            for line in help(command).lines() {
                assert!(line.chars().count() <= 100, "{line}");
            }
        }
    }

    #[test]
    fn troff_requests_in_text_are_escaped() {
        assert_eq!(escape("-x '.'"), "\\-x \\(aq.\\(aq");
        assert_eq!(escape(".SH"), "\\&.SH");
    }
}
