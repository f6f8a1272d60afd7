//! Claims about the command line: what is refused, how it is told, and where values come from.

mod common;

use std::io::Write as _;

use clap_complete::Shell;
use common::{forkyard, run};
use forkyard_cli::exit;

const NONE: [&str; 0] = [];

#[test]
fn without_arguments_the_help_comes_and_it_is_an_error() {
    run(NONE).code(exit::USAGE).says("Usage: forkyard");
}

#[test]
fn help_is_data_and_no_error() {
    for args in
        [&["--help"][..], &["help", "serve"], &["serve", "-h"], &["connect", "--help"], &["--version"]]
    {
        let ended = run(args).code(exit::OK);
        assert!(ended.stderr.is_empty() && ended.stdout.len() > 10, "{ended:?}");
    }
    let help = run(["help", "serve"]).stdout;
    for words in
        ["Examples:", "Signals:", "Exit codes:", "Environment:", "--print-port", "NOTIFY_SOCKET", "USR2"]
    {
        assert!(help.contains(words), "{words}");
    }
}

#[test]
fn what_is_mistyped_is_named_with_what_to_write() {
    for (args, words) in [
        (&["serv"][..], "'serve'"),
        (&["serve", "--stauts", "x"], "'--status'"),
        (&["serve", "cat"], "forkyard serve -- cat"),
        (&["serve", "-b", "8081"], "127.0.0.1:8081"),
        (&["serve", "-b", "::1:8081"], "[::1]"),
        (&["serve", "-b", "127.0.0.1:1", "-b", "127.0.0.1:1"], "twice"),
        (&["serve", "-1", "-b", "unix:/tmp/x"], "--print-port needs"),
        (&["serve", "--status", "0.0.0.0:8082"], "reached from outside"),
        (&["serve", "--grace", "ten"], "10s"),
        (&["serve", "--idle-timeout", "0s"], "leave the option out"),
        (&["serve", "--max-requests", "5"], "--mode prefork"),
        (&["serve", "--mode", "prefork", "--max-requests-jitter", "5"], "--max-requests"),
        (&["serve", "--mode", "prefork", "--", "cat"], "leave out --mode prefork"),
        (&["serve", "--mode", "threads"], "process, prefork"),
        (&["serve", "-c", "0"], "1..=65536"),
        (&["serve", "--rlimit", "files=3"], "nofile"),
        (&["serve", "echo", "--", "cat"], "leave out one"),
        (&["serve", "--"], "the program after -- is missing"),
        (&["serve", "--config", "/nonexistent/file"], "/nonexistent/file"),
        (&["connect"], "<ADDRESS>"),
        (&["connect", "localhost"], "port is missing"),
        (&["connect", "localhost:0"], "port 0"),
        (&["signals", "TREM"], "forkyard signals lists"),
        (&["completions", "csh"], "bash"),
        (&["man", "everything"], "serve"),
    ] {
        let ended = run(args).code(exit::USAGE).says(words);
        assert!(ended.stdout.is_empty(), "{ended:?}");
    }
}

#[test]
fn a_wrong_value_from_the_environment_is_told_with_its_variable() {
    let mut command = forkyard();
    command.args(["serve"]).env("FORKYARD_GRACE", "ten");
    common::end(command.spawn().unwrap()).code(exit::USAGE).says("FORKYARD_GRACE");
    let mut command = forkyard();
    command.args(["serve"]).env("FORKYARD_BIND", "127.0.0.1:0 nowhere");
    common::end(command.spawn().unwrap()).code(exit::USAGE).says("'nowhere' for 'FORKYARD_BIND'");
}

#[test]
fn a_wrong_setting_is_told_with_its_file_and_line() {
    let path = std::env::temp_dir().join(format!("forkyard-flags-{}", std::process::id()));
    let mut file = std::fs::File::create(&path).unwrap();
    file.write_all(b"# a comment\n\ngrace = 10s\nworkres = 3\n").unwrap();
    let ended = run(["serve", "--config", path.to_str().unwrap()]);
    ended.code(exit::USAGE).says(&format!("{}:4: there is no setting \"workres\"", path.display()));
    std::fs::write(&path, "grace = ten\n").unwrap();
    run(["serve", "--config", path.to_str().unwrap()]).code(exit::USAGE).says(path.to_str().unwrap());
    std::fs::remove_file(path).unwrap();
}

#[test]
fn no_color_means_no_escape_sequences() {
    let mut command = forkyard();
    command.args(["serve", "--nonsense"]).env("NO_COLOR", "1");
    assert!(!common::end(command.spawn().unwrap()).stderr.contains('\x1b'));
}

#[test]
fn every_command_has_a_manual_page_that_man_accepts() {
    for of in [
        &["man"][..],
        &["man", "serve"],
        &["man", "connect"],
        &["man", "signals"],
        &["man", "top"],
        &["man", "completions"],
    ] {
        let page = run(of).code(exit::OK).stdout;
        for section in [".TH FORKYARD", ".SH NAME", ".SH SYNOPSIS", ".SH DESCRIPTION", ".SH EXIT STATUS"] {
            assert!(page.contains(section), "{section} in {of:?}: {page}");
        }
        let Ok(mut groff) = std::process::Command::new("groff")
            .args(["-man", "-ww", "-z"])
            .stdin(std::process::Stdio::piped())
            .stderr(std::process::Stdio::piped())
            .spawn()
        else {
            eprintln!("skipped: groff is not installed");
            continue;
        };
        groff.stdin.take().unwrap().write_all(page.as_bytes()).unwrap();
        let ended = common::end(groff);
        assert!(ended.status.success() && ended.stderr.is_empty(), "{of:?}: {ended:?}");
    }
}

#[test]
fn completions_are_scripts_that_know_the_options() {
    for shell in [Shell::Bash, Shell::Zsh, Shell::Fish] {
        let script = run(["completions", &shell.to_string()]).code(exit::OK).stdout;
        assert!(script.contains("print-port") && script.contains("connect"), "{shell}");
        let parsed = std::process::Command::new(shell.to_string()).args(["-n", "-c", &script]).output();
        match parsed {
            Ok(parsed) => assert!(parsed.status.success(), "{shell}: {parsed:?}"),
            Err(_) => eprintln!("skipped: {shell} is not installed"),
        }
    }
}

#[test]
fn a_reader_that_leaves_early_is_no_error() {
    let mut child = forkyard().args(["man", "serve"]).spawn().unwrap();
    drop(child.stdout.take());
    let ended = common::end(child).code(exit::OK);
    assert!(ended.stderr.is_empty(), "{ended:?}");
}
