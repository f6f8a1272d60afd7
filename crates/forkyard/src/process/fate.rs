//! What became of a child: its exit status, and what its slot and parcels say.

use forkyard_sys::Pid;
use forkyard_sys::wait::{Ending, ExitStatus};
use serde::de::DeserializeOwned;

use super::board::State;
use super::child::Parcel;
use super::runtime::Runtime;
use crate::error::{Ended, Error, Kind, Result};

/// What a child that has ended left behind.
pub(crate) enum Outcome {
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
        let Some(place) = runtime.board.slot(slot) else { return Outcome::None(Ended::Garbled) };
        let parcel = || runtime.take_parcel(slot, pid).map(Outcome::Parcel);
        let outcome = match place.state() {
            Some(State::Offered | State::Called) => Some(Outcome::None(Ended::BeforeTask)),
            Some(State::Running) => {
                // One that was sent and not announced must not be taken for that of a later child with this number.
                drop(parcel());
                Some(Outcome::None(match status.ending() {
                    Ending::Exited(_) => Ended::QuickExit,
                    Ending::Signaled { .. } => Ended::Signal,
                    Ending::Unknown => Ended::Unknown,
                }))
            }
            Some(State::Exited) if status.signal().is_some() => Some(Outcome::None(Ended::Signal)),
            Some(State::Exited) => Some(Outcome::None(Ended::Exit)),
            Some(State::Returned) => place.take().map(Outcome::Value),
            Some(State::ReturnedParcel | State::Panicked) => parcel(),
            Some(State::Free) | None => None,
        };
        outcome.unwrap_or(Outcome::None(Ended::Garbled))
    }

    /// The task's result, or the error that stands for it.
    pub(crate) fn into_result<R: DeserializeOwned>(self, what: String, status: ExitStatus) -> Result<R> {
        let ended = |ended| Kind::ChildEnded { status, ended };
        let kind = match self {
            Outcome::Value(bytes) | Outcome::Parcel(Parcel::Value(bytes)) => {
                // An unknown status does not make a committed value less true.
                if !status.success() && status.ending() != Ending::Unknown {
                    ended(Ended::AfterTask)
                } else {
                    match postcard::from_bytes(&bytes) {
                        Ok(value) => return Ok(value),
                        Err(error) => Kind::Codec(format!("its result does not decode: {error}")),
                    }
                }
            }
            Outcome::Parcel(Parcel::Panic(panic)) => Kind::Panicked { panic, status: Some(status) },
            Outcome::Parcel(Parcel::Failed(why)) => Kind::Codec(why),
            Outcome::None(how) => ended(how),
        };
        Err(Error::new(what, kind))
    }
}
