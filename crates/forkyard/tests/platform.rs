//! PLATFORM.md names what the sources do: every raw system call, every fallback, every environment variable.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by a panic")]

#[path = "common/sources.rs"]
mod sources;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use sources::{read, rust_files};

#[test]
fn platform_md_names_every_raw_system_call() {
    assert_named(&words_after("crates/forkyard-sys/src", "libc::SYS_"));
}

#[test]
fn platform_md_names_every_fallback() {
    let source = read(&root().join("crates/forkyard-sys/src/fallback.rs"));
    let names: BTreeSet<String> = source
        .lines()
        .filter_map(|line| line.trim().strip_prefix("(Feature::"))
        .filter_map(|line| line.split('"').nth(1))
        .map(str::to_owned)
        .collect();
    assert_named(&names);
}

#[test]
fn platform_md_names_every_variable_of_our_own_that_the_library_reads() {
    let mut names = words_after("crates/forkyard-sys/src", "\"FORKYARD_");
    names.extend(words_after("crates/forkyard/src", "\"FORKYARD_"));
    names.remove(""); // where only the beginning is compared
    assert_named(&names.into_iter().map(|name| format!("FORKYARD_{name}")).collect());
}

#[track_caller]
fn assert_named(names: &BTreeSet<String>) {
    assert!(!names.is_empty(), "the search found nothing: has the source moved?");
    let page = read(&root().join("PLATFORM.md"));
    // In code marks, or as the first word of them: `prctl(PR_SET_NAME)`.
    let named = |name: &str| {
        [format!("`{name}`"), format!("`{name}("), format!("`{name} ")].iter().any(|n| page.contains(n))
    };
    let missing: Vec<_> = names.iter().filter(|name| !named(name)).collect();
    assert!(missing.is_empty(), "PLATFORM.md does not name {missing:?}");
}

/// The identifiers that follow `prefix` in the sources under a directory.
fn words_after(directory: &str, prefix: &str) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    for file in rust_files(&root().join(directory)) {
        let text = read(&file);
        for part in text.split(prefix).skip(1) {
            let end = part.find(|c: char| !(c.is_alphanumeric() || c == '_')).unwrap_or(part.len());
            found.insert(part[..end].to_owned());
        }
    }
    found
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}
