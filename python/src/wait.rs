//! Waiting: until when, without the GIL, and with Python's signal handlers.

use std::cell::RefCell;
use std::time::{Duration, Instant};

use pyo3::prelude::*;
use pyo3::types::PyBool;

use crate::error::is_interrupt;

/// How long a call waits.
#[derive(Clone, Copy)]
pub(crate) enum Patience {
    /// It looks once.
    None,
    /// Until then; for ever.
    Until(Option<Instant>),
}

impl Patience {
    pub(crate) const FOR_EVER: Patience = Patience::Until(None);

    /// Of the arguments `block` and `timeout`, as the standard library has them.
    #[inline]
    pub(crate) fn of(
        block: Option<&Bound<'_, PyAny>>,
        timeout: Option<&Bound<'_, PyAny>>,
    ) -> PyResult<Patience> {
        match (block, timeout) {
            (None, None) => Ok(Patience::FOR_EVER),
            (Some(block), None) => Ok(if truth(block)? { Patience::FOR_EVER } else { Patience::None }),
            (block, Some(timeout)) => match block {
                Some(block) if !truth(block)? => Ok(Patience::None),
                _ => Patience::seconds(timeout),
            },
        }
    }

    /// So many seconds; `None` is for ever.
    pub(crate) fn seconds(timeout: &Bound<'_, PyAny>) -> PyResult<Patience> {
        if timeout.is_none() {
            return Ok(Patience::FOR_EVER);
        }
        let seconds: f64 = timeout.extract()?;
        if seconds <= 0.0 {
            return Ok(Patience::None);
        }
        // What is too long for the clock is for ever.
        let duration = Duration::try_from_secs_f64(seconds).ok();
        Ok(Patience::Until(duration.and_then(|duration| Instant::now().checked_add(duration))))
    }
}

#[inline]
fn truth(value: &Bound<'_, PyAny>) -> PyResult<bool> {
    match value.cast::<PyBool>() {
        Ok(value) => Ok(value.is_true()),
        Err(_) => value.is_truthy(),
    }
}

/// What one sleep came to.
pub(crate) enum Slept<T> {
    /// The wait is over.
    Done(T),
    /// A signal handler has something to do.
    Interrupted,
}

/// Sleeps without the GIL, as often as it takes: whenever a signal came its Python handlers run, and what they raise ends the wait.
#[cold]
pub(crate) fn sleep<T: Send>(py: Python<'_>, mut once: impl FnMut() -> Slept<T> + Send) -> PyResult<T> {
    loop {
        match py.detach(&mut once) {
            Slept::Done(result) => return Ok(result),
            Slept::Interrupted => interrupted(py)?,
        }
    }
}

thread_local! {
    /// What a handler raised that ran during this thread's wait.
    static RAISED: RefCell<Option<PyErr>> = const { RefCell::new(None) };
}

/// Runs Python's signal handlers, without the GIL so far. False if one raised, and then [`interrupted`] has it.
pub(crate) fn goes_on() -> bool {
    if RAISED.with_borrow(Option::is_some) {
        return false;
    }
    match Python::attach(|py| py.check_signals()) {
        Ok(()) => true,
        Err(error) => {
            RAISED.set(Some(error));
            false
        }
    }
}

/// True if a signal handler ran and raised: what the core asks during long waits.
pub(crate) fn attention() -> bool {
    !goes_on()
}

/// What a signal handler has raised, or raises now.
pub(crate) fn interrupted(py: Python<'_>) -> PyResult<()> {
    RAISED.take().map_or_else(|| py.check_signals(), Err)
}

impl Slept<forkyard::Result<bool>> {
    /// What came of a call that ends with `EINTR` when a signal handler ran: true, or false if the time was up.
    pub(crate) fn of(result: forkyard::Result<()>) -> Self {
        match result {
            Ok(()) => Slept::Done(Ok(true)),
            Err(error) if error.is_timeout() => Slept::Done(Ok(false)),
            Err(error) if is_interrupt(&error) => Slept::Interrupted,
            Err(error) => Slept::Done(Err(error)),
        }
    }
}
