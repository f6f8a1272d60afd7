//! What Python sees of the core: the extension module `forkyard._forkyard`. Names and documentation for users are in the
//! Python sources beside this crate; here is a thin class for each thing of the core.

mod error;
mod family;
mod fast;
mod handle;
mod memory;
mod process;
mod queue;
mod sync;
mod wait;

/// The native part of Forkyard.
#[pyo3::pymodule]
mod _forkyard {
    #[pymodule_export]
    use crate::family::{arena, attach, end_with_killed, introduce, reap, was_killed};
    #[pymodule_export]
    use crate::memory::Memory;
    #[pymodule_export]
    use crate::process::{Child, Cradle, after_fork_in_child, after_fork_in_parent, before_fork, populate};
    #[pymodule_export]
    use crate::queue::{Queue, Ready, detach, quick_queue, quick_simple_queue};
    #[pymodule_export]
    use crate::sync::{Barrier, BoundedSemaphore, Condition, Event, Lock, RLock, Semaphore, Synchronized};
    #[pymodule_export]
    use crate::sync::{quick_condition, quick_lock, quick_value};
    use pyo3::prelude::*;

    #[pymodule_init]
    fn init(module: &Bound<'_, PyModule>) -> PyResult<()> {
        crate::sync::init(module.py())?;
        crate::queue::init(module.py())?;
        forkyard::__private::family::set_attention(crate::wait::attention);
        module.add("__version__", env!("CARGO_PKG_VERSION"))
    }
}
