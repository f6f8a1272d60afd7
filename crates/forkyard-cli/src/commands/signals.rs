//! `forkyard signals`: the table of signals, or the rows that were asked for.

use std::fmt::Write as _;

use forkyard::signal::Signal;
use serde_json::json;

pub(crate) fn run(which: &[Signal], as_json: bool) -> u8 {
    let rows = if which.is_empty() { Signal::ALL } else { which };
    let text = if as_json { json(rows) } else { table(rows) };
    super::print(text.as_bytes())
}

fn table(rows: &[Signal]) -> String {
    let mut text = format!("{:>2}  {:<11}  {:<9}  MEANING\n", "NR", "NAME", "DEFAULT");
    for signal in rows {
        let (number, action) = (signal.number(), signal.default_action());
        let _ = writeln!(text, "{number:>2}  {signal:<11}  {action:<9}  {}", signal.meaning());
    }
    text
}

fn json(rows: &[Signal]) -> String {
    let rows: Vec<_> = rows
        .iter()
        .map(|signal| {
            json!({
                "number": signal.number(),
                "name": signal.name(),
                "default": signal.default_action().to_string(),
                "meaning": signal.meaning(),
            })
        })
        .collect();
    format!("{:#}\n", serde_json::Value::Array(rows))
}
