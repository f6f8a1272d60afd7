//! The command line of Forkyard: `serve`, `connect`, `signals`, `top`, and what documents them.
//!
//! [`main`] reads top to bottom as the command runs: `flags` is the table of commands and options; `args` turns
//! what was typed into what is meant, or into a message that says what is wrong, where, and what to write
//! instead; then one module of `commands` does it and answers with one of the codes in [`exit`].
//!
//! Standard output is for data, standard error for the log. The command line wins over the environment
//! (`FORKYARD_*`), the environment over a file.
#![forbid(unsafe_code)]

pub mod exit;

mod address;
mod args;
mod commands;
mod config_file;
mod flags;
mod log;
mod manual;
mod notify;
mod own;
mod rlimit;
mod value;

use std::process::ExitCode;

/// Runs the command with the arguments of this process.
#[must_use]
pub fn main() -> ExitCode {
    let invocation = match args::parse(std::env::args_os()) {
        Ok(invocation) => invocation,
        Err(refusal) => return refusal.report(),
    };
    log::set_level(invocation.level);
    let code = match invocation.task {
        args::Task::Serve(serving) => commands::serve::run(*serving),
        args::Task::Connect(to) => commands::connect::run(&to),
        args::Task::Signals { which, json } => commands::signals::run(&which, json),
        args::Task::Top(top) => commands::top::run(&top),
        args::Task::Man(of) => commands::man::run(of.as_deref()),
        args::Task::Completions(shell) => commands::completions::run(shell),
    };
    ExitCode::from(code)
}
