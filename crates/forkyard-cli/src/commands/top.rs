//! `forkyard top`: a family as it is now, as a table or as JSON.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io::{IsTerminal as _, stdout};
use std::time::Instant;

use forkyard::family::{self, Family, Process};

use crate::flags::Top;
use crate::{exit, log};

pub(crate) fn run(top: &Top) -> u8 {
    let Some(pid) = forkyard::process::Pid::from_raw(top.pid) else { return exit::USAGE };
    // On a terminal each look takes the place of the one before.
    let clear = !top.once && !top.json && stdout().is_terminal();
    let mut before = None;
    loop {
        let family = match family::observe(pid) {
            Ok(family) => family,
            Err(error) => {
                log::error(format_args!("cannot {error}"));
                return exit::NOT_STARTED;
            }
        };
        let mut text = if clear { "\x1b[H\x1b[2J".to_owned() } else { String::new() };
        match top.json {
            true => {
                let _ = writeln!(text, "{}", serde_json::json!(family));
            }
            false => text.push_str(&table(&family, &Rates::since(before.as_ref(), &family))),
        }
        match super::print_more(text.as_bytes()) {
            Ok(()) if !top.once => {}
            printed => return printed.err().unwrap_or(exit::OK),
        }
        before = Some((Instant::now(), family));
        // No event says that a family has changed; how often to look is the user's to say.
        std::thread::sleep(top.interval);
    }
}

/// How many messages a second go into each queue and out of it.
struct Rates(BTreeMap<u64, (f64, f64)>);

impl Rates {
    fn since(before: Option<&(Instant, Family)>, family: &Family) -> Rates {
        let Some((at, before)) = before else { return Rates(BTreeMap::new()) };
        let seconds = at.elapsed().as_secs_f64();
        let rates = family.objects.iter().filter_map(|object| {
            let old = before.objects.iter().find(|old| {
                (old.object, &old.kind, &old.made_at) == (object.object, &object.kind, &object.made_at)
            })?;
            let rate = |what| {
                let more = object.facts.get(what)?.checked_sub(*old.facts.get(what)?)?;
                Some(more as f64 / seconds)
            };
            Some((object.object, (rate("put")?, rate("got")?)))
        });
        Rates(rates.collect())
    }
}

fn table(family: &Family, rates: &Rates) -> String {
    let arena = &family.arena;
    let mut text = format!(
        "shared memory {} of {}, {} objects, {} of {} participants\n\n",
        bytes(arena.used),
        bytes(arena.size),
        arena.objects,
        arena.participants,
        arena.most_participants
    );
    let _ = writeln!(
        text,
        "{:>8} {:>8} S {:>8} {:>8} {:>8} D  {:<20} HOLDS AND WAITS",
        "PID", "PARENT", "AGE", "CPU", "PSS", "NAME"
    );
    for process in &family.processes {
        text.push_str(&row(process));
    }
    if !family.objects.is_empty() {
        let _ = writeln!(
            text,
            "\n{:<18} {:>8} {:>7} {:>7}  {:<40} FACTS",
            "OBJECT", "BYTES", "HOLDERS", "WAITING", "MADE AT"
        );
        for object in &family.objects {
            let mut facts: Vec<_> =
                object.facts.iter().map(|(name, value)| format!("{name} {value}")).collect();
            if let Some((put, got)) = rates.0.get(&object.object) {
                facts.push(format!("{put:.0} put/s, {got:.0} got/s"));
            }
            let _ = writeln!(
                text,
                "{:<18} {:>8} {:>7} {:>7}  {:<40} {}",
                printable(&object.kind),
                bytes(object.bytes),
                object.holders.len(),
                object.waiting,
                printable(&object.made_at),
                facts.join(", ")
            );
        }
    }
    text
}

fn row(process: &Process) -> String {
    let mut text = format!(
        "{:>8} {:>8} {} {:>8} {:>8} {:>8} {}  {:<20}",
        process.pid,
        process.parent,
        process.state,
        seconds(process.age_seconds),
        seconds(process.cpu_seconds),
        process.pss.map_or_else(|| "-".to_owned(), bytes),
        match process.daemon {
            Some(true) => 'd',
            Some(false) => '-',
            None => '?',
        },
        printable(&process.name)
    );
    for held in &process.holds {
        let _ = write!(text, " {} {} ({})", held.how, printable(&held.kind), printable(&held.made_at));
        if let Some(held) = held.seconds {
            let _ = write!(text, " for {} or more", seconds(held));
        }
    }
    for wait in &process.waits {
        let what = wait.to.map_or_else(|| "for".to_owned(), |verb| format!("to {verb} at"));
        let (kind, made_at) = (printable(&wait.kind), printable(&wait.made_at));
        let _ = write!(text, " waits {} {what} {kind} ({made_at})", seconds(wait.seconds));
    }
    text.truncate(text.trim_end().len());
    text.push('\n');
    text
}

/// A text of the family's, which may be another user's: nothing in it moves this terminal's cursor.
fn printable(text: &str) -> String {
    text.chars().fold(String::new(), |mut shown, char| {
        match char.is_control() {
            true => shown.extend(char.escape_default()),
            false => shown.push(char),
        }
        shown
    })
}

fn seconds(seconds: f64) -> String {
    match seconds {
        s if s < 10.0 => format!("{s:.2}s"),
        s if s < 600.0 => format!("{s:.0}s"),
        s if s < 36_000.0 => format!("{:.0}m", s / 60.0),
        s => format!("{:.0}h", s / 3600.0),
    }
}

fn bytes(bytes: u64) -> String {
    let units = [("G", 30), ("M", 20), ("K", 10)];
    match units.into_iter().find(|(_, shift)| bytes >= 1 << shift) {
        Some((unit, shift)) => format!("{:.1}{unit}", bytes as f64 / (1u64 << shift) as f64),
        None => bytes.to_string(),
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn what_moves_a_cursor_is_shown_as_what_it_is() {
        assert_eq!(super::printable("a\x1b[2J\n\u{9b}b é\\"), "a\\u{1b}[2J\\n\\u{9b}b é\\");
    }
}
