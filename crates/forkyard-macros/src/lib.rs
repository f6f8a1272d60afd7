//! The attributes and derives of Forkyard: [`macro@task`], [`macro@handler`] and [`macro@ShmSafe`]. Use them through the `forkyard` crate.

mod shm_safe;
mod task;

use proc_macro::TokenStream;

/// Makes a function one that other processes can run: see `forkyard::Task`.
///
/// The function keeps its name and can still be called here. (The name is a static's now, so a `let` where it is in sight needs
/// another one.) Its arguments and its result are [serde](https://serde.rs) values; file descriptors travel as `forkyard::process::Fd`.
///
/// Values travel in a compact format that does not say what comes next. Types that need to be told are errors, some of them only
/// where they are decoded: `serde_json::Value`, and those with serde's attributes `untagged`, `tag`, `flatten` or
/// `skip_serializing_if`.
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

/// Makes a structure one that may lie in shared memory: see the trait `forkyard::ShmSafe`.
///
/// Not accepted, with an error that says why: enums and unions, structures without `#[repr(C)]` or
/// `#[repr(transparent)]`, fields that are not `ShmSafe`.
#[proc_macro_derive(ShmSafe)]
pub fn shm_safe(item: TokenStream) -> TokenStream {
    shm_safe::expand(item.into()).into()
}
