//! The decoder of frames and the handshake, fed with bytes of all sorts: only messages, refusals and errors come out.
//!
//! About 2 s each; 60 s with `FORKYARD_LONG=1`. The same seeds in every run.

#![allow(clippy::unwrap_used)]

use std::time::{Duration, Instant};

use super::auth::{AuthKey, Handshake};
use super::frame::{Incoming, header};

/// SplitMix64 (Steele, Lea and Flood, 2014).
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    fn below(&mut self, end: usize) -> usize {
        (self.next() % end as u64) as usize
    }

    fn bytes(&mut self, len: usize) -> Vec<u8> {
        (0..len).map(|_| self.next() as u8).collect()
    }

    /// The bytes with something wrong: a bit, a part missing, a part twice, a part of something else.
    fn mutate(&mut self, bytes: &mut Vec<u8>) {
        let at = self.below(bytes.len() + 1);
        match self.below(6) {
            0 if at < bytes.len() => bytes[at] ^= 1 << self.below(8),
            1 => bytes.truncate(at),
            2 => drop(bytes.drain(..at)),
            3 => bytes.extend_from_within(at..),
            4 => {
                let len = self.below(20);
                let more = self.bytes(len);
                drop(bytes.splice(at..at, more));
            }
            _ => {
                let len = self.below(300);
                *bytes = self.bytes(len);
            }
        }
    }
}

/// Calls `round` with fresh randomness until the time is up.
fn rounds(mut round: impl FnMut(&mut Random)) {
    let long = std::env::var_os("FORKYARD_LONG").is_some();
    let end = Instant::now() + Duration::from_secs(if long { 60 } else { 2 });
    for seed in 0.. {
        round(&mut Random(seed));
        if Instant::now() > end {
            return;
        }
    }
}

/// Feeds bytes in pieces of any size: the messages, and whether it ended in an error.
fn decode(random: &mut Random, mut bytes: &[u8], most: u64) -> (Vec<Vec<u8>>, bool) {
    let (mut incoming, mut messages) = (Incoming::default(), Vec::new());
    let mut begun = 0;
    while !bytes.is_empty() {
        let room = incoming.room();
        assert!(!room.is_empty(), "an unfinished message wants bytes");
        let count = 1 + random.below(room.len().min(bytes.len()));
        room[..count].copy_from_slice(&bytes[..count]);
        bytes = &bytes[count..];
        begun += count;
        match incoming.filled(count, most) {
            Ok(true) => {
                let message = incoming.take().0;
                assert!(message.len() as u64 <= most && message.len() <= begun);
                messages.push(message);
                begun = 0;
            }
            // A promise is not believed: so much more than has arrived, at most.
            Ok(false) => assert!(incoming.memory() <= 2 * begun + (1 << 20)),
            Err(_) => return (messages, true),
        }
    }
    (messages, false)
}

#[test]
fn frames_are_decoded_wherever_they_are_cut_and_whatever_they_are() {
    rounds(|random| {
        let messages: Vec<_> = (0..random.below(5))
            .map(|_| {
                let len = random.below(200);
                random.bytes(len)
            })
            .collect();
        let mut stream = Vec::new();
        for message in &messages {
            let (bytes, len) = header(message.len() as u64);
            match random.below(4) {
                // The long form may be used for short ones too.
                0 => stream.extend([&[255; 4][..], &(message.len() as u64).to_be_bytes()].concat()),
                _ => stream.extend(&bytes[..len]),
            }
            stream.extend(message);
        }
        assert_eq!(decode(random, &stream, 200), (messages, false));
        for _ in 0..=random.below(3) {
            random.mutate(&mut stream);
        }
        let most = random.next() >> random.below(64);
        let _ = decode(random, &stream, most);
    });
}

/// Both sides talk until neither has more to say; what is on its way may be changed by `meddle`. Whether the accepting one believes the
/// other, and the other it.
fn talk(
    (accepting, first): (Handshake, Vec<u8>),
    connecting: Handshake,
    mut meddle: impl FnMut(&mut Vec<Vec<u8>>),
) -> [bool; 2] {
    let mut sides = [accepting, connecting];
    // What each is about to receive.
    let mut coming = [Vec::new(), vec![first]];
    for turn in 1..16 {
        let side = turn % 2;
        let mut frames = std::mem::take(&mut coming[side]);
        meddle(&mut frames);
        for frame in frames {
            if sides[side].is_done() {
                break;
            }
            match sides[side].received(&frame) {
                Ok(frames) => coming[1 - side].extend(frames),
                Err((_, last)) => {
                    coming[1 - side].extend(last);
                    assert!(!sides[side].is_done());
                }
            }
        }
    }
    sides.map(|side| side.is_done())
}

#[test]
fn nobody_is_believed_who_does_not_know_the_key() {
    let mut heard: Vec<Vec<u8>> = Vec::new();
    rounds(|random| {
        let key = |text: &str| AuthKey::new(text);
        let allowed = random.below(2) == 0;
        let accepting = || Handshake::accepting(key("right"), allowed).unwrap();
        // As it should be: what is said is remembered, for those who repeat it.
        let both = talk(accepting(), Handshake::connecting(key("right"), allowed), |frames| {
            heard.extend(frames.iter().cloned());
        });
        assert_eq!(both, [true, true]);
        heard.drain(..heard.len().saturating_sub(50));
        // Somebody who does not know it, and changes or repeats what he likes.
        let both = talk(accepting(), Handshake::connecting(key("wrong"), allowed), |frames| {
            for frame in frames {
                match random.below(4) {
                    0 => random.mutate(frame),
                    1 => frame.clone_from(&heard[random.below(heard.len())]),
                    _ => {}
                }
            }
        });
        assert_eq!(both, [false, false]);
        // Somebody who says nothing but what he has heard, in this conversation too.
        let (mut handshake, first) = accepting();
        let mut said = vec![first];
        for _ in 0..4 {
            let frame = match random.below(3) {
                0 => said[random.below(said.len())].clone(),
                1 => heard[random.below(heard.len())].clone(),
                _ => [&b"#CHALLENGE#"[..], &said[0]].concat(),
            };
            match handshake.received(&frame) {
                Ok(frames) => said.extend(frames),
                Err(_) => break,
            }
        }
        assert!(!handshake.is_done());
    });
}

#[test]
fn a_conversation_that_is_changed_on_its_way_ends_in_a_refusal_or_as_if_it_was_not() {
    rounds(|random| {
        let accepting = Handshake::accepting(AuthKey::new("key"), true).unwrap();
        let connecting = Handshake::connecting(AuthKey::new("key"), true);
        let changed = random.below(6);
        let mut number = 0;
        // A frame may be changed, lost or doubled; both are told or end as they would have.
        let _ = talk(accepting, connecting, |frames| {
            let mut doubled = Vec::new();
            for frame in frames.iter_mut() {
                if number == changed {
                    random.mutate(frame);
                }
                number += 1;
                if random.below(20) == 0 {
                    doubled.push(frame.clone());
                }
            }
            frames.extend(doubled);
        });
    });
}
