//! The `forkyard` command: its page of prose is the library's.
#![forbid(unsafe_code)]

fn main() -> std::process::ExitCode {
    forkyard_cli::main()
}
