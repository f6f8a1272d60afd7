//! From what was typed to what is meant.
//!
//! A value's form is checked where the flag is defined; here is what values mean together, where they come from
//! (file < environment < command line), and how a refusal is told.

use std::ffi::OsString;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::error::{ContextKind, ContextValue, ErrorKind};
use clap::parser::ValueSource;
use clap::{ArgMatches, CommandFactory, FromArgMatches};
use clap_complete::Shell;
use forkyard::serve::Handler;
use forkyard::signal::Signal;

use crate::address::{self, Bind};
use crate::flags::{self, Cli, Command, Mode};
use crate::log::Level;
use crate::{config_file, exit};

/// What is to be done.
pub(crate) struct Invocation {
    pub(crate) level: Level,
    pub(crate) task: Task,
}

pub(crate) enum Task {
    Serve(Box<Serving>),
    Connect(flags::Connect),
    Signals { which: Vec<Signal>, json: bool },
    Top(flags::Top),
    Man(Option<String>),
    Completions(Shell),
}

/// A server to run; `flags` has the values that need no further look.
pub(crate) struct Serving {
    pub(crate) bind: Vec<Bind>,
    /// Nobody asked for an address, so that inherited listeners take the default's place.
    pub(crate) bind_by_default: bool,
    pub(crate) handler: Handler,
    pub(crate) flags: flags::Serve,
}

/// Why there is nothing to do: help was asked for, or the command line is wrong.
#[derive(Debug)]
pub(crate) struct Refusal {
    error: clap::Error,
    note: Option<String>,
}

impl Refusal {
    /// Prints it and gives the exit code: 0 for help that was asked for, 2 for an error.
    pub(crate) fn report(self) -> ExitCode {
        // Nobody is left to be told when standard output or error is closed.
        let _ = self.error.print();
        if let Some(note) = self.note {
            eprintln!("\n  note: {note}");
        }
        ExitCode::from(if self.error.use_stderr() { exit::USAGE } else { exit::OK })
    }
}

/// Understands a command line.
pub(crate) fn parse(argv: impl IntoIterator<Item = OsString>) -> Result<Invocation, Refusal> {
    let argv: Vec<OsString> = argv.into_iter().collect();
    let mut matches = matches(&argv).map_err(|error| refusal(error, None))?;
    if let Some(("serve", serve)) = matches.subcommand()
        && let Some(path) = serve.get_one::<PathBuf>("config")
    {
        let from_file = config_file::arguments(path, serve)
            .map_err(|why| refusal(wrong("serve", ErrorKind::ValueValidation, &why), None))?;
        let at = argv.iter().position(|word| word == "serve").map_or(argv.len(), |at| at + 1);
        let mut both = argv.clone();
        both.splice(at..at, from_file);
        let note = format!("{} is read as well, because of --config", path.display());
        matches = self::matches(&both).map_err(|error| refusal(error, Some(note)))?;
    }
    let cli = Cli::from_arg_matches(&matches).map_err(|error| refusal(error, None))?;
    // Of two on the command line the parser has kept the last; quiet may also come from the environment.
    let level = match (cli.verbose, cli.quiet) {
        (true, _) => Level::Detail,
        (false, true) => Level::Error,
        (false, false) => Level::Info,
    };
    let task = match cli.command {
        Command::Serve(serve) => {
            if argv.last().is_some_and(|word| word == "--") {
                let why = "the program after -- is missing; name one, or leave out --";
                return Err(refusal(wrong("serve", ErrorKind::ValueValidation, why), None));
            }
            let of = |name| matches.subcommand_matches("serve").and_then(|serve| serve.value_source(name));
            let given = |name| of(name).unwrap_or(ValueSource::DefaultValue);
            serving(*serve, given("bind"), given("handler"))
                .map(|serving| Task::Serve(Box::new(serving)))
                .map_err(|(kind, why)| refusal(wrong("serve", kind, &why), None))?
        }
        Command::Connect(connect) => Task::Connect(connect),
        Command::Signals(signals) => Task::Signals {
            which: signals
                .which
                .iter()
                .map(|word| word.parse().map_err(|why: forkyard::signal::ParseSignalError| why.to_string()))
                .collect::<Result<_, String>>()
                .map_err(|why| {
                    let why = format!("{why}; forkyard signals lists them all");
                    refusal(wrong("signals", ErrorKind::ValueValidation, &why), None)
                })?,
            json: signals.json,
        },
        Command::Top(top) => Task::Top(top),
        Command::Man(man) => Task::Man(man.of),
        Command::Completions(completions) => Task::Completions(completions.shell),
    };
    Ok(Invocation { level, task })
}

fn matches(argv: &[OsString]) -> Result<ArgMatches, clap::Error> {
    Cli::command().try_get_matches_from(argv)
}

/// What the flags of `serve` mean together.
fn serving(
    flags: flags::Serve,
    bind_source: ValueSource,
    handler_source: ValueSource,
) -> Result<Serving, (ErrorKind, String)> {
    let from_environment = bind_source == ValueSource::EnvVariable;
    let conflict = |why: &str| Err((ErrorKind::ArgumentConflict, why.to_owned()));
    let words: Vec<&str> = match from_environment {
        true => flags.bind.iter().flat_map(|text| text.split_whitespace()).collect(),
        false => flags.bind.iter().map(String::as_str).collect(),
    };
    let mut bind = Vec::with_capacity(words.len());
    for word in words {
        let address = address::bind(word).map_err(|why| {
            let from = if from_environment { "FORKYARD_BIND" } else { "--bind" };
            (ErrorKind::ValueValidation, format!("invalid address '{word}' for '{from}': {why}"))
        })?;
        let any_port = matches!(&address, Bind::Tcp(at) if at.port == 0);
        if bind.contains(&address) && !any_port {
            return conflict(&format!("'{word}' is to be listened on twice; name each address once"));
        }
        bind.push(address);
    }
    if bind.is_empty() {
        return Err((
            ErrorKind::ValueValidation,
            "FORKYARD_BIND is empty; unset it, or name an address".into(),
        ));
    }
    if flags.print_port && bind.iter().all(|address| matches!(address, Bind::Unix(_))) {
        return conflict("--print-port needs a listener with a port, and all listeners are Unix sockets");
    }
    if flags.max_requests.is_some() && flags.mode == Mode::Process {
        return conflict(
            "--max-requests is for workers that serve many connections, and in process mode every process serves \
             one; add --mode prefork",
        );
    }
    if !flags.program.is_empty() && handler_source == ValueSource::CommandLine {
        return conflict("a built-in handler and a program are named; leave out one of them");
    }
    if !flags.program.is_empty() && flags.mode == Mode::Prefork {
        return conflict(
            "a prefork worker serves many connections, and a program takes the place of its process and serves one; \
             leave out --mode prefork",
        );
    }
    let handler = match (flags.program.is_empty(), flags.handler) {
        (false, _) => Handler::Program(flags.program.clone()),
        (true, flags::Handler::Upper) => Handler::Upper,
        (true, flags::Handler::Echo) => Handler::Echo,
    };
    Ok(Serving { bind, bind_by_default: bind_source == ValueSource::DefaultValue, handler, flags })
}

/// An error in the arguments of `command`, told in the parser's own style.
fn wrong(command: &str, kind: ErrorKind, why: &str) -> clap::Error {
    let mut all = Cli::command();
    all.build();
    match all.find_subcommand_mut(command) {
        Some(command) => command.error(kind, why),
        None => all.error(kind, why),
    }
}

/// Adds where a wrong value came from, if it was not typed.
fn refusal(error: clap::Error, note: Option<String>) -> Refusal {
    Refusal { note: note.or_else(|| from_environment(&error)), error }
}

fn from_environment(error: &clap::Error) -> Option<String> {
    let ContextValue::String(arg) = error.get(ContextKind::InvalidArg)? else { return None };
    let ContextValue::String(value) = error.get(ContextKind::InvalidValue)? else { return None };
    let name = arg.trim_start_matches('-').split([' ', '=']).next()?;
    let all = Cli::command();
    let commands = std::iter::once(&all).chain(all.get_subcommands());
    let variable = commands
        .flat_map(clap::Command::get_arguments)
        .find(|arg| arg.get_long() == Some(name))
        .and_then(clap::Arg::get_env)?
        .to_owned();
    (std::env::var_os(&variable)?.to_str()? == value.as_str())
        .then(|| format!("the value may come from the environment: {} is set to it", variable.display()))
}
