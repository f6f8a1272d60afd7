//! What an actor does on command: words are operations on the family's objects; those between two slashes lie between the
//! markers.

use std::os::unix::net::UnixDatagram;

use serde::{Deserialize, Serialize};

use forkyard::__private::Scrap;

use crate::channel::receive;
use crate::marker;
use crate::naive::NaiveLock;

/// So many actors are forks, which inherit the objects; the others are spawned, and get them as arguments.
pub(crate) const FORKED: usize = 2;

/// One object of each kind.
#[derive(Clone, Serialize, Deserialize)]
pub(crate) struct Objects {
    /// So that every actor holds something, and takes part.
    _scrap: Scrap,
}

impl Objects {
    pub(crate) fn new() -> Objects {
        Objects { _scrap: Scrap::new(8) }
    }
}

pub(crate) struct Actor {
    objects: &'static Objects,
    naive: Option<&'static NaiveLock>,
    made: Vec<Scrap>,
}

impl Actor {
    pub(crate) fn new(objects: Objects, naive: Option<&'static NaiveLock>) -> Actor {
        Actor { objects: Box::leak(Box::new(objects)), naive, made: Vec::with_capacity(10) }
    }

    /// Obeys until there are no more commands.
    pub(crate) fn serve(mut self, channel: &UnixDatagram) {
        while let Some(command) = receive(channel) {
            // Everything is prepared before the markers but the operation itself.
            let parts: Vec<Vec<Operation>> = command.split('/').map(operations).collect();
            let mut answers = Vec::with_capacity(20);
            match &parts[..] {
                [before, operation, after] => {
                    self.perform(before, &mut answers);
                    marker::between(|| self.perform(operation, &mut answers));
                    self.perform(after, &mut answers);
                }
                _ => self.perform(&parts[0], &mut answers),
            }
            channel.send(answers.join(" ").as_bytes()).unwrap();
        }
    }

    fn perform(&mut self, operations: &[Operation], answers: &mut Vec<&'static str>) {
        for operation in operations {
            answers.push(operation(self));
        }
    }
}

/// One word of a command; what it returns is its answer.
type Operation = fn(&mut Actor) -> &'static str;

fn operations(words: &str) -> Vec<Operation> {
    words.split_whitespace().map(operation).collect()
}

fn operation(word: &str) -> Operation {
    match word {
        "naive.acquire" => |actor| done(actor.naive.unwrap().acquire()),
        "naive.release" => |actor| done(actor.naive.unwrap().release()),
        "make.small" => |actor| done(actor.made.push(Scrap::new(8))),
        "make.half" => |actor| done(actor.made.push(Scrap::new(30_000))),
        "make.large" => |actor| done(actor.made.push(Scrap::new(200_000))),
        "drop" => |actor| done(drop(actor.made.remove(0))),
        _ => panic!("unknown operation {word}"),
    }
}

fn done(_nothing: ()) -> &'static str {
    "ok"
}
