//! The attribute macro of `larder`, the guest SDK of Larder. Plugins use it as `larder::cached`.

// Decision: docs/decisions/0090-a-cached-function-is-named-by-its-type-name.md

mod duration;
mod expand;
mod key;
mod options;
#[cfg(test)]
mod tests;

use proc_macro::TokenStream;

// `larder` re-exports this macro with its documentation, whose examples need that crate.
#[allow(missing_docs)]
#[proc_macro_attribute]
pub fn cached(options: TokenStream, item: TokenStream) -> TokenStream {
    expand::cached(options.into(), item.into()).unwrap_or_else(syn::Error::into_compile_error).into()
}
