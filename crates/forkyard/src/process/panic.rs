//! Panics that travel: caught where they happen, told where somebody waits.

use std::any::Any;
use std::backtrace::Backtrace;
use std::cell::RefCell;
use std::panic::{AssertUnwindSafe, PanicHookInfo, catch_unwind};
use std::sync::Once;

use crate::error::Panic;

thread_local! {
    /// The last panic of this thread, with the backtrace that only the hook can see.
    static LAST: RefCell<Option<Panic>> = const { RefCell::new(None) };
}

/// Runs `call`; a panic in it is returned with message, location and backtrace. The panic hook that was there
/// runs as well, so the message appears on stderr as usual.
pub(crate) fn catch<R>(call: impl FnOnce() -> R) -> Result<R, Panic> {
    install();
    catch_unwind(AssertUnwindSafe(call)).map_err(|payload| {
        let recorded = LAST.try_with(RefCell::take);
        recorded.ok().flatten().unwrap_or_else(|| Panic {
            message: message(&*payload),
            location: None,
            backtrace: None,
        })
    })
}

/// Puts our hook before the one that is there, once.
pub(crate) fn install() {
    static INSTALLED: Once = Once::new();
    INSTALLED.call_once(|| {
        let next = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info| {
            record(info);
            next(info);
        }));
    });
}

fn record(info: &PanicHookInfo<'_>) {
    let panic = Panic {
        message: message(info.payload()),
        location: info.location().map(ToString::to_string),
        backtrace: Some(Backtrace::force_capture().to_string()),
    };
    // A panic while the thread's locals are being destroyed has nowhere to go, and nobody to tell.
    let _ = LAST.try_with(|last| *last.borrow_mut() = Some(panic.clone()));
    if cfg!(panic = "abort") {
        super::child::tell_of_abort(&panic);
    }
}

fn message(payload: &(dyn Any + Send)) -> String {
    if let Some(text) = payload.downcast_ref::<&str>() {
        (*text).to_owned()
    } else if let Some(text) = payload.downcast_ref::<String>() {
        text.clone()
    } else {
        "a panic whose payload is not text".to_owned()
    }
}
