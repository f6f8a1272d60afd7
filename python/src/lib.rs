//! What Python sees of the core: the extension module `forkyard._forkyard`. Names and documentation for users are in the
//! Python sources beside this crate; here is a thin class for each thing of the core.

use pyo3::prelude::*;

/// The native part of Forkyard.
#[pymodule]
mod _forkyard {
    use super::*;

    #[pymodule_init]
    fn init(module: &Bound<'_, PyModule>) -> PyResult<()> {
        module.add("__version__", env!("CARGO_PKG_VERSION"))
    }
}
