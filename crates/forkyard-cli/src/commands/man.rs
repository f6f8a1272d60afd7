//! `forkyard man [COMMAND]`: the manual as troff, options from the table, the rest from `manual`.

use std::io;

use clap::CommandFactory;
use clap_mangen::Man;

use crate::flags::Cli;
use crate::{exit, log, manual};

pub(crate) fn run(of: Option<&str>) -> u8 {
    match page(of) {
        Ok(page) => super::print(&page),
        Err(error) => {
            log::error(format_args!("cannot set the manual page: {error}"));
            exit::TOOL_FAILED
        }
    }
}

fn page(of: Option<&str>) -> io::Result<Vec<u8>> {
    let mut all = Cli::command();
    all.build();
    let command = match of {
        Some(name) => all.find_subcommand(name).cloned().ok_or(io::ErrorKind::NotFound)?,
        None => all.clone(),
    };
    // Name and usage of a subcommand say "forkyard serve", its page is forkyard-serve(1).
    let has_subcommands = command.has_subcommands();
    let title = of.map_or("forkyard".to_owned(), |name| format!("forkyard-{name}"));
    let usage = command.clone().render_usage().to_string();
    let page = Man::new(command).title(title.to_uppercase()).manual("Forkyard").section("1");
    let mut troff = Vec::new();
    page.render_title(&mut troff)?;
    page.render_name_section(&mut troff)?;
    troff.extend(synopsis(&usage).into_bytes());
    page.render_description_section(&mut troff)?;
    page.render_options_section(&mut troff)?;
    if has_subcommands {
        page.render_subcommands_section(&mut troff)?;
    }
    troff.extend(manual::roff(of.unwrap_or("forkyard")).into_bytes());
    Ok(troff)
}

/// The usage lines, which say more than a list of all options.
fn synopsis(usage: &str) -> String {
    let mut section = ".SH SYNOPSIS\n.nf\n".to_owned();
    for line in usage.trim_start_matches("Usage: ").lines() {
        section.push_str(&manual::escape(line.trim_start()));
        section.push('\n');
    }
    section + ".fi\n"
}
