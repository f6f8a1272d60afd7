//! The table: every command and option, once.
//!
//! Parser, help, manual and completions are made from it. The first paragraph of a comment is the short help
//! (`-h`), all of it the long one (`--help`, the manual). What is checked here is the form of single values;
//! what values mean together is checked in `args`.

use std::ffi::OsString;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use clap::builder::FalseyValueParser;
use clap::{ArgAction, Args, Parser, Subcommand, ValueEnum, ValueHint};
use clap_complete::Shell;

use crate::address::{self, Peer};
use crate::rlimit::{Rlimit, rlimit};
use crate::value;

/// Serves TCP and Unix sockets with processes that survive kill -9
///
/// Every connection is served by a process of its own; a process that dies takes its one connection with it
/// and nothing else. The command also has the client to try a server with, and the table of signals.
#[derive(Debug, Parser)]
#[command(name = "forkyard", version, arg_required_else_help = true, subcommand_required = true)]
#[command(disable_help_subcommand = false, infer_subcommands = false, max_term_width = 100)]
#[command(
    after_help = "forkyard help COMMAND, or COMMAND --help, tells all; forkyard man COMMAND prints the manual."
)]
#[command(after_long_help = crate::manual::help("forkyard"))]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub(crate) command: Command,

    /// Print errors only
    #[arg(short, long, global = true, action = ArgAction::SetTrue, overrides_with_all = ["verbose", "quiet"], display_order = 900)]
    #[arg(env = "FORKYARD_QUIET", hide_env = true, value_parser = FalseyValueParser::new())]
    pub(crate) quiet: bool,

    /// Print more, for instance which signals arrive
    #[arg(short, long, global = true, action = ArgAction::SetTrue, overrides_with = "verbose", display_order = 901)]
    pub(crate) verbose: bool,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    Serve(Box<Serve>),
    Connect(Connect),
    Signals(Signals),
    Top(Top),
    /// Print the manual page of a command as troff
    ///
    /// Read it with `forkyard man serve | man -l -`, or install it as forkyard-serve.1.
    Man(Man),
    /// Print the completions for a shell
    ///
    /// Write them to where the shell looks for them, for instance
    /// `forkyard completions bash > ~/.local/share/bash-completion/completions/forkyard`.
    Completions(Completions),
}

/// How connections meet processes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Mode {
    /// A process of its own for every connection; spare ones are kept warm
    Process,
    /// Long-lived workers, each serving many connections
    Prefork,
}

/// The handlers that are built in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Handler {
    /// Each line comes back in capitals.
    Upper,
    /// Everything comes back as it is.
    Echo,
}

/// Serve connections, each in a process of its own
///
/// Listens, and gives every connection to a process: to a built-in handler, or to a program that finds the
/// connection as its standard input and output. Spare processes are kept warm, so that a connection does not
/// wait for a start. Limits put connections off, they do not refuse them. Nothing that happens in one
/// connection's process, death by signal included, is noticed by another connection.
#[derive(Debug, Args)]
#[command(after_long_help = crate::manual::help("serve"))]
#[command(
    override_usage = "forkyard serve [OPTIONS] [upper|echo]\n       forkyard serve [OPTIONS] -- PROGRAM [ARG]..."
)]
#[command(after_help = "--help has examples, the signals it understands and the exit codes.")]
pub(crate) struct Serve {
    /// Built-in handler: upper (each line comes back in capitals) or echo
    #[arg(value_name = "HANDLER", default_value = "upper", value_parser = HandlerParser)]
    #[arg(env = "FORKYARD_HANDLER", hide_env = true, hide_possible_values = true)]
    pub(crate) handler: Handler,

    /// Program and arguments to run for each connection, with the connection as standard input and output
    ///
    /// It is executed directly, without a shell, and finds in its environment who is there: PROTO=TCP with
    /// TCPLOCALIP, TCPLOCALPORT, TCPREMOTEIP, TCPREMOTEPORT and TCPCONNNUM, or PROTO=UNIX with UNIXLOCALPATH,
    /// UNIXREMOTEPID, UNIXREMOTEEUID, UNIXREMOTEEGID and UNIXCONNNUM. Standard error is the server's. It has no
    /// other file open.
    #[arg(last = true, value_name = "PROGRAM", num_args = 1.., value_hint = ValueHint::CommandWithArguments)]
    pub(crate) program: Vec<OsString>,

    /// Listen here: HOST:PORT, [IPV6]:PORT, unix:PATH, or fd://N for an inherited socket; may repeat
    ///
    /// Port 0 lets the kernel choose a port. A name is looked up once, at the start, and stands for its first
    /// IPv4 address. In the environment, several addresses are separated by spaces. Without an address, sockets
    /// inherited by LISTEN_FDS take the place of the default.
    #[arg(short, long, value_name = "ADDRESS", default_value = "127.0.0.1:8081")]
    #[arg(env = "FORKYARD_BIND", hide_env = true, help_heading = "Listening")]
    pub(crate) bind: Vec<String>,

    /// Length of the queue of connections not yet accepted
    ///
    /// The kernel caps it at net.core.somaxconn. Connections that a limit puts off wait here.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=65535))]
    #[arg(env = "FORKYARD_BACKLOG", hide_env = true, help_heading = "Listening")]
    pub(crate) backlog: Option<u32>,

    /// Show processes, counts and latencies on a page at this loopback address; off unless given
    #[arg(long, value_name = "HOST:PORT", value_parser = address::status)]
    #[arg(env = "FORKYARD_STATUS", hide_env = true, help_heading = "Listening")]
    pub(crate) status: Option<SocketAddr>,

    /// Print the port of the first TCP listener on standard output once connections are accepted
    #[arg(short = '1', long, action = ArgAction::SetTrue, help_heading = "Listening")]
    pub(crate) print_port: bool,

    /// How connections meet processes
    #[arg(long, value_enum, default_value_t = Mode::Process)]
    #[arg(env = "FORKYARD_MODE", hide_env = true, help_heading = "Processes")]
    pub(crate) mode: Mode,

    /// Workers in prefork mode, spare processes in process mode
    ///
    /// By default one worker, or a few spares, for every CPU that may be used. SIGTTIN and SIGTTOU change the
    /// number by one while the server runs.
    #[arg(short, long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=65536))]
    #[arg(env = "FORKYARD_WORKERS", hide_env = true, help_heading = "Processes")]
    pub(crate) workers: Option<u32>,

    /// Replace a prefork worker after this many connections
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    #[arg(env = "FORKYARD_MAX_REQUESTS", hide_env = true, help_heading = "Processes")]
    pub(crate) max_requests: Option<u64>,

    /// Add a random number up to N to --max-requests, so that not all workers are replaced at once
    #[arg(long, value_name = "N", requires = "max_requests")]
    #[arg(env = "FORKYARD_MAX_REQUESTS_JITTER", hide_env = true, help_heading = "Processes")]
    pub(crate) max_requests_jitter: Option<u64>,

    /// Serve at most N connections at once; others wait, none is refused
    #[arg(short = 'c', long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=65536))]
    #[arg(env = "FORKYARD_MAX_CONNS", hide_env = true, help_heading = "Limits")]
    pub(crate) max_conns: Option<u32>,

    /// Serve at most N connections of one address at once; others wait
    #[arg(short = 'C', long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=65536))]
    #[arg(env = "FORKYARD_MAX_PER_IP", hide_env = true, help_heading = "Limits")]
    pub(crate) max_per_ip: Option<u32>,

    /// End a connection on which nothing has moved for so long: 500ms, 10s, 5m
    #[arg(long, value_name = "DURATION", value_parser = value::nonzero_duration)]
    #[arg(env = "FORKYARD_IDLE_TIMEOUT", hide_env = true, help_heading = "Limits")]
    pub(crate) idle_timeout: Option<Duration>,

    /// End a connection that lasts longer than this
    #[arg(long, value_name = "DURATION", value_parser = value::nonzero_duration)]
    #[arg(env = "FORKYARD_TIMEOUT", hide_env = true, help_heading = "Limits")]
    pub(crate) timeout: Option<Duration>,

    /// How long a graceful stop lets connections finish before they are ended
    #[arg(long, value_name = "DURATION", default_value = "10s", value_parser = value::duration)]
    #[arg(env = "FORKYARD_GRACE", hide_env = true, help_heading = "Limits")]
    pub(crate) grace: Duration,

    /// Run the processes as this user, a name or a number, with the groups of that user
    #[arg(short, long, value_name = "USER", value_hint = ValueHint::Username)]
    #[arg(env = "FORKYARD_USER", hide_env = true, help_heading = "Rights")]
    pub(crate) user: Option<String>,

    /// Run the processes with this group, a name or a number, and no other groups
    #[arg(short, long, value_name = "GROUP")]
    #[arg(env = "FORKYARD_GROUP", hide_env = true, help_heading = "Rights")]
    pub(crate) group: Option<String>,

    /// Limit a resource of each process: nofile=256, as=512M:1G, core=unlimited; may repeat
    #[arg(long, value_name = "NAME=SOFT[:HARD]", value_parser = rlimit, help_heading = "Rights")]
    pub(crate) rlimit: Vec<Rlimit>,

    /// Let no process gain rights by executing a set-user-id program
    #[arg(long, action = ArgAction::SetTrue, value_parser = FalseyValueParser::new())]
    #[arg(env = "FORKYARD_NO_NEW_PRIVS", hide_env = true, help_heading = "Rights")]
    pub(crate) no_new_privs: bool,

    /// Write the log to this file instead of standard error; SIGUSR1 opens it anew
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    #[arg(env = "FORKYARD_LOG", hide_env = true)]
    pub(crate) log: Option<PathBuf>,

    /// Read options from this file: one `name = value` a line, # begins a comment
    ///
    /// Names are those of the long options without the dashes. The environment wins over the file, and the
    /// command line over both.
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    #[arg(env = "FORKYARD_CONFIG", hide_env = true)]
    pub(crate) config: Option<PathBuf>,
}

/// Talk to a server: interactively, or in a pipe
///
/// On a terminal there is a prompt with line editing and history; answers are printed as they come, also while
/// you type. Ctrl-D ends what you send, and what the server still has to say is printed. Ctrl-C drops the line,
/// and ends the client on an empty one. In a pipe, standard input goes to the server and what it answers to
/// standard output, byte by byte; at the end of the input the sending half is closed, and the client ends when
/// the server has closed the other half.
#[derive(Debug, Args)]
#[command(after_long_help = crate::manual::help("connect"))]
#[command(after_help = "--help has examples and the exit codes.")]
pub(crate) struct Connect {
    /// Where to: HOST:PORT, [IPV6]:PORT or unix:PATH
    #[arg(value_name = "ADDRESS", value_parser = address::peer)]
    pub(crate) to: Peer,

    /// Give up when the connection is not made by then
    #[arg(short = 't', long, value_name = "DURATION", value_parser = value::nonzero_duration)]
    #[arg(env = "FORKYARD_CONNECT_TIMEOUT", hide_env = true)]
    pub(crate) connect_timeout: Option<Duration>,

    /// What invites you to type, on a terminal
    #[arg(long, value_name = "TEXT", default_value = "> ")]
    #[arg(env = "FORKYARD_PROMPT", hide_env = true)]
    pub(crate) prompt: String,

    /// Keep the lines you typed in this file for the next time
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    #[arg(env = "FORKYARD_HISTORY", hide_env = true)]
    pub(crate) history: Option<PathBuf>,
}

/// List signals: number, name, what happens by default, what it means
#[derive(Debug, Args)]
#[command(after_long_help = crate::manual::help("signals"))]
pub(crate) struct Signals {
    /// Only these: TERM, SIGTERM, 15, RTMIN+1; all without an argument
    #[arg(value_name = "NAME|NUMBER")]
    pub(crate) which: Vec<String>,

    /// Print a JSON array
    #[arg(long)]
    pub(crate) json: bool,
}

/// Show a running family: its processes, what they hold and wait for, its shared memory
///
/// Reads the family's shared memory and /proc, and changes nothing: the family may hang or be stopped. No other right is needed
/// than to be its user.
#[derive(Debug, Args)]
#[command(after_long_help = crate::manual::help("top"))]
pub(crate) struct Top {
    /// Any process of the family
    #[arg(value_name = "PID", value_parser = clap::value_parser!(i32).range(1..))]
    pub(crate) pid: i32,

    /// Print once and end, instead of every --interval until Ctrl-C
    #[arg(long)]
    pub(crate) once: bool,

    /// Print JSON: one object each time
    #[arg(long)]
    pub(crate) json: bool,

    /// How long to wait between two looks
    #[arg(short, long, value_name = "DURATION", default_value = "1s", value_parser = value::nonzero_duration)]
    pub(crate) interval: Duration,
}

#[derive(Debug, Args)]
#[command(after_long_help = crate::manual::help("man"))]
pub(crate) struct Man {
    /// Command to describe; without one, forkyard itself
    #[arg(value_name = "COMMAND", value_parser = ["serve", "connect", "signals", "top", "man", "completions"])]
    pub(crate) of: Option<String>,
}

#[derive(Debug, Args)]
#[command(after_long_help = crate::manual::help("completions"))]
pub(crate) struct Completions {
    /// Shell to complete for
    #[arg(value_name = "SHELL")]
    pub(crate) shell: Shell,
}

/// Reads a handler's name; says what to do when it looks like a program.
#[derive(Clone)]
struct HandlerParser;

impl clap::builder::TypedValueParser for HandlerParser {
    type Value = Handler;

    fn parse_ref(
        &self,
        cmd: &clap::Command,
        _arg: Option<&clap::Arg>,
        value: &std::ffi::OsStr,
    ) -> Result<Handler, clap::Error> {
        match value.to_str() {
            Some("upper") => Ok(Handler::Upper),
            Some("echo") => Ok(Handler::Echo),
            _ => {
                let name = value.to_string_lossy();
                let why = format!(
                    "\"{name}\" is no built-in handler (upper and echo are); to run a program for each connection, \
                     put -- before it: forkyard serve -- {name}"
                );
                Err(cmd.clone().error(clap::error::ErrorKind::InvalidValue, why))
            }
        }
    }

    fn possible_values(&self) -> Option<Box<dyn Iterator<Item = clap::builder::PossibleValue>>> {
        Some(Box::new(["upper", "echo"].into_iter().map(clap::builder::PossibleValue::new)))
    }
}
