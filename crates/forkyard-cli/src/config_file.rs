//! The file behind `serve --config`: `name = value` lines that become arguments before those that were typed.
//!
//! A name is that of a long option. What the environment or the command line says already is left out, so the
//! file is the weakest of the three.

use std::ffi::OsString;
use std::path::Path;

use clap::parser::ValueSource;
use clap::{ArgMatches, CommandFactory};

use crate::flags::Cli;

/// The file's settings as arguments.
pub(crate) fn arguments(path: &Path, given: &ArgMatches) -> Result<Vec<OsString>, String> {
    let text = std::fs::read_to_string(path)
        .map_err(|error| format!("cannot read the configuration file {}: {error}", path.display()))?;
    let mut all = Cli::command();
    all.build();
    let serve = all.find_subcommand_mut("serve").ok_or("there is no command serve")?;
    let mut arguments = Vec::new();
    for (number, line) in (1..).zip(text.lines()) {
        let wrong = |why: String| format!("{}:{number}: {why}", path.display());
        let Some((name, value)) = setting(line).map_err(|why| wrong(why.into()))? else { continue };
        let arg = serve
            .get_arguments()
            .find(|arg| arg.get_long() == Some(name) || (name == "handler" && arg.get_id() == "handler"))
            .filter(|arg| arg.get_id() != "config" && arg.get_id() != "help")
            .ok_or_else(|| {
                wrong(format!("there is no setting \"{name}\"; names are those of the long options of serve"))
            })?;
        let weaker =
            matches!(given.value_source(arg.get_id().as_str()), None | Some(ValueSource::DefaultValue));
        let program = name == "handler" && given.value_source("program").is_some();
        if !weaker || program {
            continue;
        }
        match (arg.get_action().takes_values(), value) {
            (true, value) if arg.is_positional() => arguments.push(value.into()),
            (true, value) => arguments.push(format!("--{name}={value}").into()),
            (false, "true" | "yes" | "1") => arguments.push(format!("--{name}").into()),
            (false, "false" | "no" | "0") => {}
            (false, other) => return Err(wrong(format!("{name} is true or false, not \"{other}\""))),
        }
    }
    Ok(arguments)
}

/// Name and value of a line; `None` for an empty line or a comment.
fn setting(line: &str) -> Result<Option<(&str, &str)>, &'static str> {
    let line = line.trim();
    if line.is_empty() || line.starts_with('#') {
        return Ok(None);
    }
    let (name, value) = line.split_once('=').ok_or("this is no setting; write name = value")?;
    let value = value.trim();
    let unquoted = value.strip_prefix('"').and_then(|value| value.strip_suffix('"')).unwrap_or(value);
    Ok(Some((name.trim(), unquoted)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_are_name_and_value() {
        assert_eq!(setting("  bind = 127.0.0.1:1 "), Ok(Some(("bind", "127.0.0.1:1"))));
        assert_eq!(setting("log=\"a = b # c\""), Ok(Some(("log", "a = b # c"))));
        assert_eq!(setting("# bind = x"), Ok(None));
        assert_eq!(setting(""), Ok(None));
        assert!(setting("bind").is_err());
    }
}
