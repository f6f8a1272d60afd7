//! Imports point one way: a layer uses itself and what lies below it.
//!
//! Every `crate::…`, `self::…` and `super::…` path of the core is resolved to the layer it names, in code and in
//! `use` groups; comments and strings do not count. A module without a place in [`LAYERS`] is an error, so a
//! new one has to be given its place here.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by a panic")]

#[path = "common/sources.rs"]
mod sources;

use std::collections::HashMap;
use std::path::Path;

use sources::{read, rust_files};

/// From the bottom up. Modules of the first group belong to no layer: they are below all of them.
const LAYERS: [&[&str]; 11] = [
    &["codec", "error", "fd", "global", "time", "primitive", "sync_std"],
    &["shm"],
    &["sync"],
    &["channel"],
    &["family"],
    &["process"],
    &["schedule"],
    &["supervise"],
    &["pool"],
    &["serve"],
    &["engine"],
];

#[test]
fn no_module_of_the_core_uses_a_layer_above_its_own() {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let root = read(&source.join("lib.rs"));
    let exports = root_exports(&root);
    let files = rust_files(&source);
    assert!(files.len() > 3, "only {} source files found under {}", files.len(), source.display());

    let mut wrong = Vec::new();
    for file in files {
        let relative = file.strip_prefix(&source).unwrap();
        let module = module_path(relative);
        // lib.rs is the tour: it names everything and nothing names it. Tests of a layer may use those above it.
        if !module.is_empty() && !module.ends_with(&["tests".to_owned()]) {
            wrong.extend(check(&module, &read(&file), &exports));
        }
    }
    assert!(wrong.is_empty(), "imports against the layers:\n{}", wrong.join("\n"));
}

#[test]
fn only_sys_depends_on_the_crates_that_talk_to_the_kernel() {
    for (package, banned) in [
        ("forkyard", &["libc", "rustix", "nix"][..]),
        ("forkyard-cli", &["libc", "rustix", "nix"][..]),
        ("forkyard-sys", &["forkyard"][..]),
        ("forkyard-macros", &["libc", "rustix", "nix", "forkyard", "forkyard-sys"][..]),
    ] {
        let manifest = Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(package).join("Cargo.toml");
        for dependency in dependencies(&read(&manifest)) {
            assert!(!banned.contains(&dependency.as_str()), "{package} may not depend on {dependency}");
        }
    }
}

#[test]
fn the_checker_finds_an_upward_import_however_it_is_written() {
    let none = HashMap::new();
    for snippet in [
        "use crate::serve::Server;",
        "use crate :: serve;",
        "use crate::{error::Error, serve::{Server as S}};",
        "pub(crate) use crate::{process as p, pool};",
        "fn f() { crate::serve::run() }",
        "fn f(x: &crate::engine::Engine) {}",
        "use super::super::serve::Server;",
        "use super::{super::serve, builder};",
        "mod inner { use super::super::super::serve::Server; }",
        "/* use crate::error; */ use crate::serve::Server; // crate::error",
    ] {
        let module = ["process".into(), "handle".into()];
        assert_eq!(check(&module, snippet, &none).len(), 1, "not found once in: {snippet}");
    }
}

#[test]
fn the_checker_accepts_downward_imports_comments_and_strings() {
    let exports = root_exports(
        "pub use error::{Error, Result};\npub use process::signal;\npub use forkyard_macros::task;",
    );
    for snippet in [
        "use crate::error::{Error, Kind};",
        "use crate::{Error, Result, time::Deadline};",
        "use super::builder::{Builder, Start};",
        "mod tests { use super::*; use super::super::child; }",
        "use crate::signal::Signal;",
        "#[crate::task]\nfn f() {}",
        "/// See [`crate::serve`].\nfn f() {}",
        "/* crate::serve /* nested */ crate::serve */",
        r##"const A: &str = "crate::serve"; const B: &str = r#"crate::serve "quoted""#; const C: char = '"';"##,
        "fn f<'a>(x: &'a str) -> &'a str { x }",
        "use forkyard_sys::wait::reap;",
    ] {
        let module = ["process".into(), "handle".into()];
        assert_eq!(check(&module, snippet, &exports), Vec::<String>::new(), "in: {snippet}");
    }
}

#[test]
fn the_checker_resolves_what_the_root_exports_and_refuses_unplaced_modules() {
    let exports = root_exports("pub use serve::Server;\npub use process::{signal, thread as threads};");
    assert_eq!(exports.get("threads").map(String::as_str), Some("process"));
    let process = ["process".to_owned()];
    assert_eq!(check(&process, "use crate::Server;", &exports).len(), 1);
    assert_eq!(check(&process, "use crate::misc::helper;", &exports).len(), 1);
    assert_eq!(check(&["misc".to_owned()], "fn f() {}", &exports).len(), 1);
}

/// What `text`, the source of `module`, uses that lies above it: one line each.
fn check(module: &[String], text: &str, exports: &HashMap<String, String>) -> Vec<String> {
    let name = module.join("::");
    let Some(own) = layer(&module[0]) else {
        return vec![format!("{name}: no layer is known for this module; add it to LAYERS")];
    };
    let mut wrong = Vec::new();
    for path in paths(module, &tokens(text)) {
        let Some(first) = path.first().filter(|first| first.as_str() != "*") else { continue };
        let used = exports.get(first).unwrap_or(first);
        match layer(used) {
            Some(layer) if layer <= own => {}
            // A name that the root has from another package: those are below all layers.
            None if used.starts_with("forkyard_") => {}
            Some(_) => wrong.push(format!("{name}: uses crate::{}", path.join("::"))),
            None => wrong.push(format!("{name}: uses crate::{}, whose layer is not known", path.join("::"))),
        }
    }
    wrong
}

fn layer(module: &str) -> Option<usize> {
    LAYERS.iter().position(|names| names.contains(&module))
}

/// Every path of the source that starts at `crate`, `self` or `super`, from the crate's root.
fn paths(module: &[String], tokens: &[String]) -> Vec<Vec<String>> {
    let mut found = Vec::new();
    let mut here = module.to_vec();
    // For each open brace: whether it opened an inline module.
    let mut braces = Vec::new();
    let mut at = 0;
    while at < tokens.len() {
        match tokens[at].as_str() {
            "mod" if tokens.get(at + 2).is_some_and(|next| next == "{") => {
                here.push(tokens[at + 1].clone());
                braces.push(true);
                at += 2;
            }
            "{" => braces.push(false),
            "}" if braces.pop() == Some(true) => {
                here.pop();
            }
            "crate" | "self" | "super" if tokens.get(at + 1).is_some_and(|next| next == "::") => {
                at = tree(&here, None, tokens, at, &mut found);
                continue;
            }
            _ => {}
        }
        at += 1;
    }
    found
}

/// Reads the path or `use` tree at `at`, below `prefix` if it is part of a group; returns where it ends.
fn tree(
    here: &[String],
    prefix: Option<&[String]>,
    tokens: &[String],
    mut at: usize,
    found: &mut Vec<Vec<String>>,
) -> usize {
    let mut path = prefix.map(<[String]>::to_vec);
    while let Some(token) = tokens.get(at) {
        let mut next = path.unwrap_or_else(|| if token == "crate" { Vec::new() } else { here.to_vec() });
        match token.as_str() {
            "crate" | "self" => {}
            "super" => drop(next.pop()),
            "{" => return group(here, &next, tokens, at + 1, found),
            word => next.push(word.to_owned()),
        }
        path = Some(next);
        at += 1;
        if tokens.get(at).is_none_or(|token| token != "::") {
            break;
        }
        at += 1;
    }
    found.extend(path);
    at
}

/// The rest of a `use` group below `prefix`; returns where it ends.
fn group(
    here: &[String],
    prefix: &[String],
    tokens: &[String],
    mut at: usize,
    found: &mut Vec<Vec<String>>,
) -> usize {
    while tokens.get(at).is_some_and(|token| token != "}") {
        at = tree(here, Some(prefix), tokens, at, found);
        if tokens.get(at).is_some_and(|token| token == "as") {
            at += 2;
        }
        if tokens.get(at).is_some_and(|token| token == ",") {
            at += 1;
        }
    }
    at + 1
}

/// Identifiers, `::` and single characters, without comments, strings, character literals and lifetimes.
fn tokens(text: &str) -> Vec<String> {
    let text: Vec<char> = text.chars().collect();
    let mut found = Vec::new();
    let mut at = 0;
    while at < text.len() {
        let rest = &text[at..];
        let length = match rest {
            ['/', '/', ..] => rest.iter().position(|&c| c == '\n').unwrap_or(rest.len()),
            ['/', '*', ..] => comment(rest),
            ['r', '"' | '#', ..] => raw_string(rest).unwrap_or_else(|| word(rest, &mut found)),
            ['"', ..] => string(rest),
            ['\'', '\\', ..] => 2 + rest[3..].iter().position(|&c| c == '\'').map_or(1, |end| end + 2),
            ['\'', _, '\'', ..] => 3,
            [':', ':', ..] => {
                found.push("::".to_owned());
                2
            }
            [c, ..] if c.is_alphanumeric() || *c == '_' => word(rest, &mut found),
            [c, ..] => {
                if !c.is_whitespace() {
                    found.push(c.to_string());
                }
                1
            }
            [] => break,
        };
        at += length;
    }
    found
}

fn word(rest: &[char], found: &mut Vec<String>) -> usize {
    let length = rest.iter().position(|&c| !(c.is_alphanumeric() || c == '_')).unwrap_or(rest.len());
    found.push(rest[..length].iter().collect());
    length
}

fn comment(rest: &[char]) -> usize {
    let (mut depth, mut at) = (0, 0);
    while at < rest.len() {
        match rest[at..] {
            ['/', '*', ..] => (depth, at) = (depth + 1, at + 2),
            ['*', '/', ..] => (depth, at) = (depth - 1, at + 2),
            _ => at += 1,
        }
        if depth == 0 {
            break;
        }
    }
    at
}

fn string(rest: &[char]) -> usize {
    let mut at = 1;
    while at < rest.len() && rest[at] != '"' {
        at += if rest[at] == '\\' { 2 } else { 1 };
    }
    at + 1
}

/// The length of a raw string, if this is one (and not an identifier that starts with r, or `r#name`).
fn raw_string(rest: &[char]) -> Option<usize> {
    let hashes = rest[1..].iter().take_while(|&&c| c == '#').count();
    if rest.get(1 + hashes) != Some(&'"') {
        return None;
    }
    let end: Vec<char> = std::iter::once('"').chain(std::iter::repeat_n('#', hashes)).collect();
    let start = 2 + hashes;
    let body = rest[start..].windows(end.len()).position(|window| window == end)?;
    Some(start + body + end.len())
}

/// What lib.rs re-exports: public name → the module it comes from.
fn root_exports(text: &str) -> HashMap<String, String> {
    let mut exports = HashMap::new();
    let tokens = tokens(text);
    for (at, _) in tokens.iter().enumerate().filter(|(_, token)| *token == "use") {
        let rest = &tokens[at + 1..];
        let end = rest.iter().position(|token| token == ";").unwrap_or(rest.len());
        let statement = &rest[..end];
        let skip =
            statement.iter().take_while(|token| ["crate", "self", "::"].contains(&token.as_str())).count();
        let Some(module) = statement.get(skip) else { continue };
        // The last word of each element is the public name: `a::b`, `a::b as c`, `a::{b, c as d}`.
        for element in statement[skip..].split(|token| [",", "{", "}"].contains(&token.as_str())) {
            if let Some(name) = element.last().filter(|name| *name != "::" && *name != "*") {
                exports.insert(name.clone(), module.clone());
            }
        }
    }
    exports
}

/// The names under `[dependencies]` of a manifest.
fn dependencies(manifest: &str) -> Vec<String> {
    let section = manifest.lines().skip_while(|line| line.trim() != "[dependencies]").skip(1);
    section
        .take_while(|line| !line.starts_with('['))
        .filter_map(|line| line.split(['.', '=', ' ']).next())
        .filter(|name| !name.is_empty() && !name.starts_with('#'))
        .map(str::to_owned)
        .collect()
}

/// `process/handle.rs` → process, handle; `process/mod.rs` → process; `lib.rs` → nothing.
fn module_path(relative: &Path) -> Vec<String> {
    let mut module: Vec<String> =
        relative.with_extension("").iter().map(|part| part.to_string_lossy().into_owned()).collect();
    if module.last().is_some_and(|last| last == "mod") || module == ["lib"] {
        module.pop();
    }
    module
}
