//! From a function to a registered task.

use proc_macro2::TokenStream;
use quote::{format_ident, quote};
use syn::{Attribute, FnArg, ItemFn, ReturnType, Signature, Type, parse_quote};

/// What the task does with the function's result.
#[derive(Clone, Copy)]
pub(crate) enum Wrap {
    /// Gives it back to whoever started it.
    Nothing,
    /// Reports an error and returns nothing.
    Report,
}

pub(crate) fn expand(attribute: TokenStream, item: TokenStream, wrap: Wrap) -> TokenStream {
    match try_expand(attribute, item, wrap) {
        Ok(tokens) => tokens,
        Err(error) => error.to_compile_error(),
    }
}

fn try_expand(attribute: TokenStream, item: TokenStream, wrap: Wrap) -> syn::Result<TokenStream> {
    if !attribute.is_empty() {
        return Err(syn::Error::new_spanned(attribute, "this attribute takes no arguments"));
    }
    let mut function: ItemFn = syn::parse2(item)?;
    check(&function.sig)?;
    let types = argument_types(&function.sig)?;
    let output: Type = match &function.sig.output {
        ReturnType::Default => parse_quote!(()),
        ReturnType::Type(_, output) => (**output).clone(),
    };

    let visibility = std::mem::replace(&mut function.vis, syn::Visibility::Inherited);
    let (docs, code): (Vec<Attribute>, Vec<Attribute>) = function.attrs.drain(..).partition(is_for_the_name);
    function.attrs = code;
    // In its own body the function's name means the task, so that it can start itself.
    let inner = format_ident!("__forkyard_task");
    let name = std::mem::replace(&mut function.sig.ident, inner.clone());

    let (result, called) = match wrap {
        Wrap::Nothing => (quote!(#output), quote!(#inner)),
        Wrap::Report => {
            let arguments: Vec<_> =
                (0..types.len()).map(|i| format_ident!("__forkyard_argument_{i}")).collect();
            let call = quote! {
                fn __forkyard_reported(#(#arguments: #types),*) {
                    ::forkyard::__private::report(#inner(#(#arguments),*))
                }
            };
            return Ok(emit(
                &docs,
                &visibility,
                &name,
                &types,
                &quote!(()),
                &quote!(#function #call),
                &quote!(__forkyard_reported),
            ));
        }
    };
    Ok(emit(&docs, &visibility, &name, &types, &result, &quote!(#function), &called))
}

/// The static that takes the function's name, with everything else inside its initialiser. The function's body sees
/// these names, and a parameter may not have the name of any task, so they are ones that nobody chooses.
fn emit(
    docs: &[Attribute],
    visibility: &syn::Visibility,
    name: &syn::Ident,
    types: &[Type],
    result: &TokenStream,
    functions: &TokenStream,
    called: &TokenStream,
) -> TokenStream {
    quote! {
        #(#docs)*
        #[allow(non_upper_case_globals)]
        #visibility static #name: ::forkyard::Task<fn(#(#types),*) -> #result> = {
            #functions
            fn __forkyard_invoke(__forkyard_bytes: &[u8]) -> ::forkyard::Result<::forkyard::__private::Answer> {
                ::forkyard::__private::invoke(#called as fn(#(#types),*) -> #result, __forkyard_bytes)
            }
            #[used]
            #[unsafe(link_section = "forkyard_tasks")]
            static __FORKYARD_ENTRY: ::forkyard::__private::Entry = ::forkyard::__private::Entry::new(
                ::std::concat!(::std::module_path!(), "::", ::std::stringify!(#name), ":", ::std::line!()),
                __forkyard_invoke,
            );
            ::forkyard::Task::new(#called, &__FORKYARD_ENTRY)
        };
    }
}

/// Attributes that belong to the public name; the others (`inline`, `allow`, …) stay with the code.
fn is_for_the_name(attribute: &Attribute) -> bool {
    ["doc", "deprecated", "cfg", "must_use"].iter().any(|name| attribute.path().is_ident(name))
}

fn check(signature: &Signature) -> syn::Result<()> {
    let refuse = |tokens: &dyn quote::ToTokens, why: &str| {
        Err(syn::Error::new_spanned(
            tokens.to_token_stream(),
            format!("a task runs in another process: {why}"),
        ))
    };
    if !signature.generics.params.is_empty() {
        return refuse(&signature.generics, "it cannot be generic, because it is found by its name");
    }
    if let Some(token) = &signature.asyncness {
        return refuse(token, "it cannot be async; block on a runtime inside it");
    }
    if let Some(token) = &signature.unsafety {
        return refuse(token, "it cannot be unsafe, because its caller cannot make the promise");
    }
    if let Some(token) = &signature.abi {
        return refuse(token, "it cannot have an ABI of its own");
    }
    if let Some(token) = &signature.variadic {
        return refuse(token, "it cannot be variadic");
    }
    if signature.inputs.len() > 8 {
        return refuse(&signature.inputs, "it takes at most 8 arguments; put them into a struct");
    }
    Ok(())
}

fn argument_types(signature: &Signature) -> syn::Result<Vec<Type>> {
    let mut types = Vec::new();
    for input in &signature.inputs {
        match input {
            FnArg::Receiver(receiver) => {
                return Err(syn::Error::new_spanned(receiver, "a task is a free function, not a method"));
            }
            FnArg::Typed(argument) => {
                if let Type::Reference(reference) = &*argument.ty {
                    return Err(syn::Error::new_spanned(
                        reference,
                        "a task's arguments travel to another process: take an owned value instead of a reference",
                    ));
                }
                types.push((*argument.ty).clone());
            }
        }
    }
    Ok(types)
}
