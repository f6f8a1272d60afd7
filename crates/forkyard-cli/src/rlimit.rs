//! `NAME=SOFT[:HARD]`: a resource limit as it is written on the command line.

use std::fmt;

use crate::value;

/// The resources of setrlimit(2), by the names of `ulimit` and `prlimit`.
const NAMES: &[&str] = &[
    "as",
    "core",
    "cpu",
    "data",
    "fsize",
    "locks",
    "memlock",
    "msgqueue",
    "nice",
    "nofile",
    "nproc",
    "rss",
    "rtprio",
    "rttime",
    "sigpending",
    "stack",
];

/// One limit; `None` is unlimited.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Rlimit {
    pub(crate) name: &'static str,
    pub(crate) soft: Option<u64>,
    pub(crate) hard: Option<u64>,
}

pub(crate) fn rlimit(text: &str) -> Result<Rlimit, String> {
    let (name, values) =
        text.split_once('=').ok_or("write NAME=SOFT or NAME=SOFT:HARD, such as nofile=256 or as=512M:1G")?;
    let lower = name.to_ascii_lowercase();
    let wanted = lower.strip_prefix("rlimit_").unwrap_or(&lower);
    let Some(name) = NAMES.iter().find(|known| **known == wanted) else {
        return Err(format!("\"{name}\" is no resource; there are {}", NAMES.join(" ")));
    };
    let (soft, hard) = values.split_once(':').unwrap_or((values, values));
    let (soft, hard) = (limit(soft)?, limit(hard)?);
    if soft.unwrap_or(u64::MAX) > hard.unwrap_or(u64::MAX) {
        return Err("the soft limit is above the hard one; write the smaller one first".into());
    }
    Ok(Rlimit { name, soft, hard })
}

fn limit(text: &str) -> Result<Option<u64>, String> {
    match text {
        "unlimited" | "infinity" => Ok(None),
        number => value::size(number).map(Some),
    }
}

/// Plain numbers, as the library reads them.
impl fmt::Display for Rlimit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let word = |limit: Option<u64>| limit.map_or("unlimited".to_owned(), |n| n.to_string());
        write!(f, "{}={}:{}", self.name, word(self.soft), word(self.hard))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_read_with_units_and_print_plain() {
        for (text, plain) in [
            ("nofile=256", "nofile=256:256"),
            ("as=512M:1G", "as=536870912:1073741824"),
            ("core=0:unlimited", "core=0:unlimited"),
            ("RLIMIT_CPU=10", "cpu=10:10"),
        ] {
            assert_eq!(rlimit(text).unwrap().to_string(), plain);
        }
    }

    #[test]
    fn wrong_limits_are_explained() {
        for (text, hint) in [
            ("nofile", "NAME=SOFT"),
            ("files=3", "nofile"),
            ("nofile=", "number"),
            ("nofile=2:1", "smaller one first"),
            ("as=unlimited:1G", "smaller one first"),
        ] {
            let why = rlimit(text).unwrap_err();
            assert!(why.contains(hint), "{text}: {why}");
        }
    }
}
