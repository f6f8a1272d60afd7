//! `#[derive(ShmSafe)]`: the implementation, and a check of every field.

use proc_macro2::TokenStream;
use quote::{quote, quote_spanned};
use syn::spanned::Spanned;
use syn::{Data, DeriveInput, Error, parse_quote};

pub(crate) fn expand(input: TokenStream) -> TokenStream {
    match syn::parse2::<DeriveInput>(input).and_then(derive) {
        Ok(tokens) => tokens,
        Err(error) => error.to_compile_error(),
    }
}

fn derive(mut input: DeriveInput) -> syn::Result<TokenStream> {
    let Data::Struct(data) = &input.data else {
        let why = "only a structure can be `ShmSafe`: some bit patterns are no value of an enum, and another process may write any";
        return Err(Error::new_spanned(&input.ident, why));
    };
    if !has_fixed_layout(&input)? {
        let why = "a `ShmSafe` structure needs `#[repr(C)]` or `#[repr(transparent)]`: its layout must be the same in every build";
        return Err(Error::new_spanned(&input.ident, why));
    }
    let checks: Vec<_> = data
        .fields
        .iter()
        .map(|field| {
            let ty = &field.ty;
            quote_spanned! {ty.span()=> forkyard::__private::assert_shm_safe::<#ty>(); }
        })
        .collect();
    for parameter in input.generics.type_params_mut() {
        parameter.bounds.push(parse_quote!(forkyard::ShmSafe));
    }
    let name = &input.ident;
    let (generics, arguments, bounds) = input.generics.split_for_impl();
    Ok(quote! {
        // SAFETY: a fixed layout, and every field is `ShmSafe`, which the function below has the compiler check.
        #[automatically_derived]
        #[allow(unsafe_code, reason = "the derive has checked what the trait asks for")]
        unsafe impl #generics forkyard::ShmSafe for #name #arguments #bounds {}

        const _: () = {
            #[allow(dead_code, reason = "that it compiles is the check")]
            fn every_field_is_shm_safe #generics () #bounds {
                #(#checks)*
            }
        };
    })
}

fn has_fixed_layout(input: &DeriveInput) -> syn::Result<bool> {
    let mut fixed = false;
    for attribute in input.attrs.iter().filter(|attribute| attribute.path().is_ident("repr")) {
        attribute.parse_nested_meta(|meta| {
            fixed |= meta.path.is_ident("C") || meta.path.is_ident("transparent");
            if meta.input.peek(syn::token::Paren) {
                let _: proc_macro2::Group = meta.input.parse()?;
            }
            Ok(())
        })?;
    }
    Ok(fixed)
}
