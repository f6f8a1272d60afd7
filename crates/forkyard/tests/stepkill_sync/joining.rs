//! Victims on their way into the family: a stranger that makes its first object, a newcomer to whom handles arrive, a fork by
//! foreign code.
//!
//! # Safety
//! fork in a process of one thread; the copy calls the kernel only.
#![allow(unsafe_code, reason = "each unsafe block has its own reason")]

use std::fmt;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixDatagram;

use forkyard::process::Fd;
use forkyard::sync::{Lock, Mutex};
use serde::de::{Deserialize, Deserializer, Error, SeqAccess, Visitor};
use serde::ser::{Serialize, SerializeTuple, Serializer};

use crate::channel::receive;
use crate::marker;

/// Holds nothing, so it is nobody yet.
#[forkyard::task]
pub(crate) fn stranger(channel: Fd) {
    receive(&UnixDatagram::from(OwnedFd::from(channel)));
    marker::between(|| drop(Mutex::new([0_u64; 2]).unwrap()));
}

/// Is killed while its arguments arrive.
#[forkyard::task]
pub(crate) fn newcomer(_arrival: Arrival) {}

/// The channel of commands, and then the objects, between the markers.
pub(crate) struct Arrival(pub(crate) Fd, pub(crate) Arriving);

/// Two of them.
pub(crate) type Arriving = (Lock, Mutex<[u64; 2]>);

impl Serialize for Arrival {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut tuple = serializer.serialize_tuple(2)?;
        tuple.serialize_element(&self.0)?;
        tuple.serialize_element(&self.1)?;
        tuple.end()
    }
}

impl<'de> Deserialize<'de> for Arrival {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Arrival, D::Error> {
        struct Parts;
        impl<'de> Visitor<'de> for Parts {
            type Value = Arrival;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a channel and objects")
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut parts: A) -> Result<Arrival, A::Error> {
                let missing = || A::Error::custom("half of it");
                let channel: UnixDatagram =
                    OwnedFd::from(parts.next_element::<Fd>()?.ok_or_else(missing)?).into();
                receive(&channel);
                let objects = marker::between(|| parts.next_element())?.ok_or_else(missing)?;
                Ok(Arrival(Fd::from(OwnedFd::from(channel)), objects))
            }
        }
        deserializer.deserialize_tuple(2, Parts)
    }
}

/// Forks, as code does that knows nothing of the library.
pub(crate) fn fork() -> i32 {
    // SAFETY: see the heading.
    let pid = unsafe { libc::fork() };
    if pid == 0 {
        marker::end();
        // SAFETY: numbers only.
        unsafe { libc::_exit(0) }
    }
    pid
}

/// Waits for the fork's end.
pub(crate) fn reap(pid: i32) {
    // SAFETY: numbers, and null.
    unsafe { libc::waitpid(pid, std::ptr::null_mut(), 0) };
}
