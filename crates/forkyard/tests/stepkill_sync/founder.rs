//! The family's first process: it makes the objects, starts the actors, and forks the victims, on command.

use std::os::fd::OwnedFd;
use std::os::unix::net::UnixDatagram;

use forkyard::__private::family_census;
use forkyard::process::{Builder, Fd, Process};

use crate::actor::{self, Actor, Objects};
use crate::channel::inherited;
use crate::joining;
use crate::naive::Naive;

/// This role's argument; the numbers of the channels follow, the victim's first.
pub(crate) const ROLE: &str = "founder";

#[forkyard::task]
fn spawned_actor(objects: Objects, channel: Fd) {
    Actor::new(objects, None).serve(&UnixDatagram::from(OwnedFd::from(channel)));
}

/// Commands are lines, and so are answers.
pub(crate) fn main() {
    let mut channels = std::env::args().skip(2).map(|number| inherited(number.parse().unwrap()));
    let for_victims = channels.next().unwrap();
    let naive = Naive::new();
    let objects = Objects::new();
    let mut actors: Vec<Process<()>> = Vec::new();
    for (index, channel) in channels.enumerate() {
        let builder = Builder::new().name(format!("actor-{index}")).daemon(true);
        let actor = if index < actor::FORKED {
            let objects = objects.clone();
            builder.fork(move || Actor::new(objects, Some(naive)).serve(&channel))
        } else {
            builder.spawn(spawned_actor, (objects.clone(), Fd::from(OwnedFd::from(channel))))
        };
        actors.push(actor.unwrap());
    }
    let mut victim: Option<Process<()>> = None;
    for line in std::io::stdin().lines() {
        let answer = match line.unwrap().as_str() {
            "actors" => {
                let pids: Vec<String> = actors.iter().map(|actor| actor.pid().to_string()).collect();
                pids.join(" ")
            }
            "victim" => {
                let (objects, channel) = (objects.clone(), for_victims.try_clone().unwrap());
                let builder = Builder::new().name("victim").daemon(true);
                let started = builder.fork(move || Actor::new(objects, Some(naive)).serve(&channel)).unwrap();
                let pid = started.pid();
                victim = Some(started);
                pid.to_string()
            }
            "stranger" => {
                let channel = Fd::from(OwnedFd::from(for_victims.try_clone().unwrap()));
                let started = Builder::new().daemon(true).spawn(joining::stranger, (channel,)).unwrap();
                let pid = started.pid();
                victim = Some(started);
                pid.to_string()
            }
            "newcomer" => {
                let channel = Fd::from(OwnedFd::from(for_victims.try_clone().unwrap()));
                let arrival = (joining::Arrival(channel, (objects.lock.clone(), objects.mutex.clone())),);
                let started = Builder::new().daemon(true).spawn(joining::newcomer, arrival).unwrap();
                let pid = started.pid();
                victim = Some(started);
                pid.to_string()
            }
            "kill" => {
                victim.as_ref().unwrap().kill().unwrap();
                "killed".to_owned()
            }
            "join" => {
                let _ = victim.take().unwrap().join();
                "joined".to_owned()
            }
            // Whoever reaps cleans up after all who have died.
            "reap" => {
                Builder::new().fork(|| ()).unwrap().join().unwrap();
                "reaped".to_owned()
            }
            "census" => {
                let now = family_census();
                let numbers = [now.participants, now.unfinished, now.objects, now.holders, now.chunks];
                let memory = usize::try_from(now.memory).unwrap();
                let words: Vec<String> = numbers.iter().chain([&memory]).map(ToString::to_string).collect();
                words.join(" ")
            }
            command => format!("unknown command {command:?}"),
        };
        println!("{answer}");
    }
}
