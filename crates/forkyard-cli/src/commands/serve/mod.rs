//! `forkyard serve`.

use crate::args::Serving;
use crate::{exit, log};

pub(crate) fn run(_serving: Serving) -> u8 {
    log::error(format_args!("cannot serve yet"));
    exit::NOT_STARTED
}
