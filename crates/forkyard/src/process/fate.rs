//! What became of a child: its exit status, and what its slot and parcels say.

use forkyard_sys::Pid;
use forkyard_sys::wait::{Ending, ExitStatus};
use serde::de::DeserializeOwned;

use super::board::{Slot, State};
use super::child::Parcel;
use super::runtime::Runtime;
use crate::codec;
use crate::error::{Ended, Error, Kind, Result};
use crate::shm;

/// What a child that has ended left behind.
pub(crate) struct Outcome {
    left: Left,
    /// Keeps the objects alive whose handles are in the result.
    carrier: Option<shm::Parcel>,
}

enum Left {
    /// Its task's encoded result.
    Value(Vec<u8>),
    /// A message.
    Parcel(Parcel),
    /// No result; how far it came.
    None(Ended),
}

impl Outcome {
    /// Reads what the child wrote; it has been reaped, so nobody writes any more. All of it is validated.
    pub(crate) fn read(runtime: &Runtime, slot: u32, pid: Pid, status: ExitStatus) -> Outcome {
        let place = runtime.board.slot(slot);
        // Also one that was sent and is of no use: it goes with this.
        let carrier = place
            .and_then(|place| place.carrier())
            .zip(shm::joined())
            .and_then(|(name, me)| shm::Parcel::receive(name, me));
        let left = place.map_or(Left::None(Ended::Garbled), |place| {
            Left::read(place, || runtime.take_parcel(slot, pid).map(Left::Parcel), status)
        });
        Outcome { left, carrier }
    }
}

impl Left {
    fn read(place: &Slot, parcel: impl Fn() -> Option<Left>, status: ExitStatus) -> Left {
        let left = match place.state() {
            Some(State::Offered | State::Called) => Some(Left::None(Ended::BeforeTask)),
            Some(State::Running) => {
                // One that was sent and not announced must not be taken for that of a later child with this number.
                drop(parcel());
                Some(Left::None(match status.ending() {
                    Ending::Exited(_) => Ended::QuickExit,
                    Ending::Signaled { .. } => Ended::Signal,
                    Ending::Unknown => Ended::Unknown,
                }))
            }
            Some(State::Exited) if status.signal().is_some() => Some(Left::None(Ended::Signal)),
            Some(State::Exited) => Some(Left::None(Ended::Exit)),
            Some(State::Returned) => place.take().map(Left::Value),
            Some(State::ReturnedParcel | State::Panicked) => parcel(),
            Some(State::Free) | None => None,
        };
        left.unwrap_or(Left::None(Ended::Garbled))
    }
}

impl Outcome {
    /// The task's result, or the error that stands for it.
    pub(crate) fn into_result<R: DeserializeOwned>(self, what: String, status: ExitStatus) -> Result<R> {
        let ended = |ended| Kind::ChildEnded { status, ended };
        // Until what is decoded holds the objects itself.
        let _carrier = self.carrier;
        let kind = match self.left {
            Left::Value(bytes) | Left::Parcel(Parcel::Value(bytes)) => {
                // An unknown status does not make a committed value less true.
                if !status.success() && status.ending() != Ending::Unknown {
                    ended(Ended::AfterTask)
                } else {
                    match postcard::from_bytes(&bytes) {
                        Ok(value) => return Ok(value),
                        Err(error) => {
                            Kind::Codec(format!("its result does not decode: {}", codec::explain(&error)))
                        }
                    }
                }
            }
            Left::Parcel(Parcel::Panic(panic)) => Kind::Panicked { panic, status: Some(status) },
            Left::Parcel(Parcel::Failed(why)) => Kind::Codec(why),
            Left::None(how) => ended(how),
        };
        Err(Error::new(what, kind))
    }
}
