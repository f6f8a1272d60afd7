//! Compiles the small program that serves a connection with a built-in handler (`src/serve/small/`).
//!
//! It needs nothing but the compiler and linker that build everything else. Where it cannot be built, it is empty, and servers
//! do without it.

use std::env;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

const SOURCE: &str = "src/serve/small/program.rs";

fn main() {
    for file in ["build.rs", SOURCE, "src/serve/scoreboard/words.rs"] {
        println!("cargo::rerun-if-changed={file}");
    }
    let Some(directory) = env::var_os("OUT_DIR") else { return };
    let program = PathBuf::from(directory).join("small");
    let target = env::var("TARGET").unwrap_or_default();
    let built = target.starts_with("x86_64-") && target.contains("-linux-gnu") && {
        // The first is what a linker may not know: one segment, and so one mapping, less.
        ["-Wl,--no-rosegment", ""].into_iter().any(|extra| build(&target, &program, extra))
    };
    if !built && std::fs::write(&program, []).is_err() {
        println!("cargo::error=failed to write {}", program.display());
    }
}

fn build(target: &str, program: &Path, extra: &str) -> bool {
    let mut command = Command::new(env::var_os("RUSTC").unwrap_or_else(|| "rustc".into()));
    command.args([
        "--edition=2024",
        "--crate-type=bin",
        "--crate-name=small",
        "--target",
        target,
        SOURCE,
        "-o",
    ]);
    command.arg(program);
    for flag in ["opt-level=2", "panic=abort", "relocation-model=static", "target-feature=+crt-static"] {
        command.args(["-C", flag]);
    }
    for flag in ["force-unwind-tables=no", "strip=symbols", "codegen-units=1", "debug-assertions=no"] {
        command.args(["-C", flag]);
    }
    let alone = ["-nostartfiles", "-nostdlib", "-Wl,-z,noseparate-code,-z,norelro,--build-id=none"];
    for argument in alone.into_iter().chain([extra]).filter(|argument| !argument.is_empty()) {
        command.arg(format!("-Clink-arg={argument}"));
    }
    if let Some(linker) = env::var_os("RUSTC_LINKER") {
        command.arg("-C").arg(["linker=".as_ref(), linker.as_os_str()].join("".as_ref()));
    }
    // Why it could not be built is not told: nothing is missing without it.
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    command.status().is_ok_and(|status| status.success())
}
