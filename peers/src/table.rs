//! The result: rows that set one contender against another, as text and as JSON.
//!
//! The ratio is taken round by round, then its median: a drift of the machine cancels out. So it may differ
//! a little from the quotient of the two medians.

use std::fmt::Write as _;

use serde_json::{Value, json};

use crate::rounds::{Series, Summary};

/// What a ratio has to meet.
#[derive(Debug, Clone, Copy)]
pub enum Budget {
    /// Times: ours over the peer's is no more than this.
    AtMost(f64),
    /// Rates: ours over the peer's is no less than this.
    AtLeast(f64),
}

impl Budget {
    fn met(self, ratio: f64) -> bool {
        match self {
            Budget::AtMost(limit) => ratio <= limit,
            Budget::AtLeast(limit) => ratio >= limit,
        }
    }

    fn text(self) -> String {
        match self {
            Budget::AtMost(limit) => format!("≤ {limit:.2}"),
            Budget::AtLeast(limit) => format!("≥ {limit:.2}"),
        }
    }
}

/// A part of the table: one unit, many rows.
pub struct Group {
    title: String,
    unit: &'static str,
    series: Vec<Series>,
    rows: Vec<(String, String, Option<Budget>)>,
}

impl Group {
    /// A group over measured series.
    pub fn new(title: &str, unit: &'static str, series: Vec<Series>) -> Group {
        Group { title: title.into(), unit, series, rows: Vec::new() }
    }

    /// Adds a row: the series called `ours` against the one called `peer`.
    pub fn row(mut self, ours: &str, peer: &str, budget: Option<Budget>) -> Group {
        self.rows.push((ours.into(), peer.into(), budget));
        self
    }

    fn figures(&self, name: &str) -> &[f64] {
        let series = self.series.iter().find(|s| s.name == name);
        series.and_then(|s| s.rounds.as_ref().ok()).map_or(&[], Vec::as_slice)
    }

    fn ratio(&self, ours: &str, peer: &str) -> Option<f64> {
        let pairs = self.figures(ours).iter().zip(self.figures(peer));
        Summary::of(&pairs.map(|(ours, peer)| ours / peer).collect::<Vec<_>>()).map(|s| s.median)
    }

    /// The group as aligned text.
    pub fn text(&self) -> String {
        let mut out = format!("\n{} [{}]\n", self.title, self.unit);
        let _ = writeln!(
            out,
            "  {:<29} {:<30} {:>26} {:>26} {:>8}  {:<7}",
            "ours", "against", "ours", "against", "ratio", "budget"
        );
        for (ours, peer, budget) in &self.rows {
            let ratio = self.ratio(ours, peer);
            let _ = writeln!(
                out,
                "  {ours:<29} {peer:<30} {:>26} {:>26} {:>8}  {:<7} {}",
                cell(self.figures(ours)),
                cell(self.figures(peer)),
                ratio.map_or("-".into(), |r| format!("{r:.3}")),
                budget.map_or(String::new(), Budget::text),
                match (budget, ratio) {
                    (Some(budget), Some(ratio)) if budget.met(ratio) => "met",
                    (Some(_), Some(_)) => "MISSED",
                    _ => "",
                }
            );
        }
        for Series { name, rounds } in &self.series {
            if let Err(reason) = rounds {
                let _ = writeln!(out, "  skipped: {name}: {reason}");
            }
        }
        out
    }

    /// The group as JSON: all series with all rounds, and the rows.
    pub fn json(&self) -> Value {
        let series = self.series.iter().map(|s| match &s.rounds {
            Ok(rounds) => {
                let sum = Summary::of(rounds);
                json!({"name": s.name, "median": sum.map(|s| s.median), "min": sum.map(|s| s.min),
                       "max": sum.map(|s| s.max), "rounds": rounds})
            }
            Err(reason) => json!({"name": s.name, "skipped": reason}),
        });
        let rows = self.rows.iter().map(|(ours, peer, budget)| {
            let ratio = self.ratio(ours, peer);
            json!({"ours": ours, "against": peer, "ratio": ratio, "budget": budget.map(Budget::text),
                   "met": budget.zip(ratio).map(|(b, r)| b.met(r))})
        });
        json!({"title": self.title, "unit": self.unit, "series": series.collect::<Vec<_>>(),
               "rows": rows.collect::<Vec<_>>()})
    }
}

fn cell(figures: &[f64]) -> String {
    let Some(s) = Summary::of(figures) else { return "-".into() };
    let digits = if s.median < 100.0 { 1 } else { 0 };
    format!("{:.digits$} ({:.digits$}–{:.digits$})", s.median, s.min, s.max)
}

/// Cores, kernel and what else the figures depend on.
pub fn machine() -> Value {
    let kernel = rustix::system::uname();
    let cores = std::thread::available_parallelism().map_or(0, usize::from);
    let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
    let cpuinfo = read("/proc/cpuinfo");
    let model = cpuinfo.lines().find(|l| l.starts_with("model name")).and_then(|l| l.split_once(": "));
    json!({
        "cores": cores,
        "cpu": model.map_or("unknown", |m| m.1),
        "kernel": format!("{} {}", kernel.sysname().to_string_lossy(), kernel.release().to_string_lossy()),
        "architecture": kernel.machine().to_string_lossy(),
        "load": read("/proc/loadavg").split(' ').next().unwrap_or_default(),
        "thp": read("/sys/kernel/mm/transparent_hugepage/enabled").trim(),
    })
}

/// Prints the groups measured one after the other, as they come; JSON at the end.
pub struct Report {
    json: bool,
    machine: Value,
    groups: Vec<Value>,
}

impl Report {
    /// Starts a report; as text, the machine line comes first.
    pub fn new(json: bool, rounds: usize) -> Report {
        let m = machine();
        if !json {
            let field = |name: &str| m[name].to_string().trim_matches('"').to_owned();
            println!(
                "machine: {} cores ({}), {} {}, load {}, transparent huge pages {}; \
                 median (least–greatest) of {rounds} alternating rounds",
                field("cores"),
                field("cpu"),
                field("kernel"),
                field("architecture"),
                field("load"),
                field("thp"),
            );
        }
        Report { json, machine: m, groups: Vec::new() }
    }

    /// Adds a measured group.
    pub fn add(&mut self, group: &Group) {
        if self.json {
            self.groups.push(group.json());
        } else {
            print!("{}", group.text());
        }
    }

    /// Ends the report.
    pub fn finish(self) {
        if self.json {
            println!("{:#}", json!({"machine": self.machine, "groups": self.groups}));
        }
    }
}
