//! A family has room for so many processes that share objects; one more is told so.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by a panic")]

mod common;

use std::io::Read;

use common::alone;
use forkyard::process::{self, Fd};
use forkyard::sync::Mutex;

/// As `forkyard top` has it: the most that take part at a time, this one among them.
const MOST: usize = 1023;

#[forkyard::task]
fn counts_and_stays(counter: Mutex<u64>, until: Fd) {
    *counter.lock().unwrap() += 1;
    std::fs::File::from(until).read_to_end(&mut Vec::new()).unwrap();
}

#[forkyard::task]
fn one_too_many() {
    let counter = Mutex::new(0).unwrap();
    let (until, stay) = std::io::pipe().unwrap();
    let until = Fd::from(until);
    let start = || process::spawn(counts_and_stays, (counter.clone(), until.try_clone().unwrap())).unwrap();
    let children: Vec<_> = (0..MOST + 20).map(|_| start()).collect();
    let mut waiting: Vec<_> = children.into_iter().collect();
    // Those for whom there is no place end at once, whoever they are.
    let mut refused = Vec::new();
    while *counter.lock().unwrap() < (waiting.len()) as u64 {
        waiting.retain(|child| match child.try_join() {
            Ok(None) => true,
            ended => {
                refused.push(ended.unwrap_err());
                false
            }
        });
    }
    assert!(refused.len() >= 20, "{}", refused.len());
    for error in refused {
        assert!(error.to_string().contains("1023"), "{error}");
    }
    drop(stay);
    for child in waiting {
        child.join().unwrap();
    }
    let (until, stay) = std::io::pipe().unwrap();
    drop(stay);
    process::spawn(counts_and_stays, (counter, until.into())).unwrap().join().unwrap();
}

#[test]
fn who_finds_no_place_in_the_family_is_told_why() {
    alone(one_too_many);
}
