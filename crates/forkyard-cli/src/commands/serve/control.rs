//! What signals mean to a running server.
//!
//! | signal | means |
//! |---|---|
//! | TERM | graceful stop |
//! | INT | graceful stop; when a stop is under way, the end at once |
//! | QUIT | the end at once |
//! | HUP | reload |
//! | TTIN, TTOU | one worker more, one less |
//! | USR1 | the log file is opened anew |
//! | USR2 | upgrade in place |
//!
//! They are handled even if the starter had them ignored: somebody who sends one means it.

use std::sync::Arc;
use std::sync::atomic::{AtomicI32, Ordering};

use forkyard::serve::Control;
use forkyard::signal::{self, Signal};

use super::tell;
use crate::log;
use crate::notify::Notify;

const HANDLED: [Signal; 8] = [
    Signal::TERM,
    Signal::INT,
    Signal::QUIT,
    Signal::HUP,
    Signal::TTIN,
    Signal::TTOU,
    Signal::USR1,
    Signal::USR2,
];

/// The signal that began the end, or hurried it.
#[derive(Clone, Default)]
pub(super) struct Ending(Arc<AtomicI32>);

impl Ending {
    pub(super) fn signal(&self) -> Option<Signal> {
        Signal::new(self.0.load(Ordering::Relaxed))
    }

    /// Notes the signal; true if it is the first.
    fn begin(&self, signal: Signal) -> bool {
        self.0.swap(signal.number(), Ordering::Relaxed) == 0
    }
}

/// Acts on signals from now on.
pub(super) fn listen(control: &Control, notify: &Arc<Notify>) -> forkyard::Result<Ending> {
    let ending = Ending::default();
    for signal in HANDLED {
        let (control, notify, ending) = (control.clone(), Arc::clone(notify), ending.clone());
        signal::handle(signal, move |_| act(signal, &control, &notify, &ending))?.keep();
    }
    // An upgrade's new image begins with them held back.
    let_through();
    Ok(ending)
}

fn act(signal: Signal, control: &Control, notify: &Notify, ending: &Ending) {
    log::detail(format_args!("got {signal}"));
    match signal {
        Signal::TERM | Signal::INT => {
            if ending.begin(signal) {
                tell(notify, Notify::stopping);
                control.stop();
            } else if signal == Signal::INT {
                control.stop_now();
            }
        }
        Signal::QUIT => {
            if ending.begin(signal) {
                tell(notify, Notify::stopping);
            }
            control.stop_now();
        }
        Signal::HUP => {
            tell(notify, Notify::reloading);
            control.reload();
        }
        Signal::TTIN => control.add_worker(),
        Signal::TTOU => control.remove_worker(),
        Signal::USR1 => match log::reopen() {
            Ok(true) => log::info(format_args!("the log file is open anew")),
            Ok(false) => log::info(format_args!("there is no log file to open anew; --log names one")),
            Err(error) => log::error(format_args!("cannot open the log file anew: {error}")),
        },
        Signal::USR2 => control.upgrade(),
        _ => {}
    }
}

/// Keeps signals pending, through an upgrade's exec: the new image acts on them once it can.
pub(super) fn hold_back() {
    HANDLED.into_iter().for_each(|signal| signal::block(signal).keep());
}

/// The opposite of [`hold_back`].
pub(super) fn let_through() {
    HANDLED.into_iter().for_each(|signal| signal::unblock(signal).keep());
}
