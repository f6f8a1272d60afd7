//! The attributes of Forkyard: [`macro@task`] and [`macro@handler`]. Use them through the `forkyard` crate.

mod task;

use proc_macro::TokenStream;

/// Makes a function one that other processes can run: see `forkyard::Task`.
///
/// The function keeps its name and can still be called here. Its arguments and its result are
/// [serde](https://serde.rs) values; file descriptors travel as `forkyard::process::Fd`.
///
/// Not accepted, with an error that says why: methods, generics, lifetimes of arguments, `async`, `unsafe`, `extern`,
/// patterns as parameters.
#[proc_macro_attribute]
pub fn task(attribute: TokenStream, item: TokenStream) -> TokenStream {
    task::expand(attribute.into(), item.into(), task::Wrap::Nothing).into()
}

/// Makes a function one that serves a connection: a [`macro@task`] that takes one `forkyard::serve::Connection` and
/// returns nothing, or a `Result<(), E>` whose error can be displayed (`std::io::Result<()>`, for instance). An error
/// is reported and ends that connection only.
#[proc_macro_attribute]
pub fn handler(attribute: TokenStream, item: TokenStream) -> TokenStream {
    task::expand(attribute.into(), item.into(), task::Wrap::Report).into()
}
