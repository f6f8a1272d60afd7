//! `forkyard completions SHELL`.

use clap::CommandFactory;
use clap_complete::{Shell, generate};

use crate::flags::Cli;

pub(crate) fn run(shell: Shell) -> u8 {
    let mut script = Vec::new();
    generate(shell, &mut Cli::command(), "forkyard", &mut script);
    super::print(&script)
}
