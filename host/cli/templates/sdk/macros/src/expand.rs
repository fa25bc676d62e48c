//! The function that replaces the one with the attribute: it asks the cache, and calls the body as a closure.

use std::collections::BTreeSet;

use proc_macro2::{Ident, Span, TokenStream};
use quote::{ToTokens, quote, quote_spanned};
use syn::spanned::Spanned;
use syn::{Error, Expr, FnArg, ItemFn, Pat, ReturnType, Signature, Type};

use crate::key;
use crate::options::{self, Options};

/// The argument of a function, which is a name after [`take_arguments`].
struct Argument {
    name: Ident,
    ty: Type,
}

/// Expands the attribute.
pub(crate) fn cached(options: TokenStream, item: TokenStream) -> syn::Result<TokenStream> {
    let mut function: ItemFn =
        syn::parse2(item).map_err(|error| Error::new(error.span(), "`#[cached]` belongs on a function with a body"))?;
    let options: Options = syn::parse2(options)?;
    let Some(duration) = &options.duration else {
        let rule = "`duration` is missing: write how long a value is fresh, as in `duration = \"60s\"`";
        return Err(Error::new(Span::call_site(), rule));
    };
    if let Some(token) = &function.sig.constness {
        return Err(Error::new(token.span(), "a `const fn` cannot be cached: it runs when the plugin is compiled"));
    }
    let output = output(&function.sig)?.clone();
    let (arguments, bindings) = take_arguments(&mut function.sig);
    let key = key_of(&options, &function.sig, &arguments)?;
    let on_error = match (&options.on_error, &options.stale) {
        (Some((name, _)), None) => {
            let rule = "`on_error` needs `stale`: without it the caller gets the error";
            return Err(Error::new(name.span(), rule));
        }
        (Some((_, function)), Some(_)) => function.to_token_stream(),
        (None, _) => quote!(|_| {}),
    };
    let cache = option(options.cache.as_ref());
    let stale = option(options.stale.as_ref());
    let ItemFn { attrs, vis, sig, block } = function;
    let call = Ident::new("call", Span::mixed_site());
    let (runs, closure, wait) = match &sig.asyncness {
        None => ("run", quote!(move || -> #output), None),
        Some(_) => ("run_async", quote!(async move || -> #output), Some(quote!(.await))),
    };
    // The compiler points at the type if it cannot be stored.
    let runs = Ident::new(runs, output.span());
    // The statements of the body stay those of one block, so that its lints and its types are those of the function.
    let statements = &block.stmts;
    Ok(quote! {
        #(#attrs)*
        #vis #sig {
            #[allow(unused_imports)]
            use ::larder::__private::{CachedValue as _};
            let #call = ::larder::__private::Call {
                cache: #cache,
                key: #key,
                duration: #duration,
                stale: #stale,
            };
            ::larder::__private::Returns::<#output>::new().#runs(#call, #on_error, #closure {
                #(#bindings)*
                #(#statements)*
            }) #wait
        }
    })
}

fn option(value: Option<&impl ToTokens>) -> TokenStream {
    match value {
        Some(value) => quote!(::core::option::Option::Some(#value)),
        None => quote!(::core::option::Option::None),
    }
}

/// The type of the value.
fn output(signature: &Signature) -> syn::Result<&Type> {
    let name = &signature.ident;
    match &signature.output {
        ReturnType::Default => Err(Error::new(name.span(), format!("`{name}` returns nothing that could be cached"))),
        ReturnType::Type(_, ty) => match &**ty {
            Type::Reference(_) => {
                let rule = format!("`{name}` returns a reference, but a value from the cache is owned");
                Err(Error::new(ty.span(), rule))
            }
            Type::ImplTrait(_) => {
                let rule =
                    format!("`{name}` returns an `impl Trait`, but a value from the cache has a type with a name");
                Err(Error::new(ty.span(), rule))
            }
            ty => Ok(ty),
        },
    }
}

/// Gives each argument a name: the body begins with the bindings of the patterns.
fn take_arguments(signature: &mut Signature) -> (Vec<Argument>, Vec<TokenStream>) {
    let (mut arguments, mut bindings) = (Vec::new(), Vec::new());
    for (place, input) in signature.inputs.iter_mut().enumerate() {
        let FnArg::Typed(input) = input else { continue };
        let name = match &*input.pat {
            Pat::Ident(pattern) if pattern.by_ref.is_none() && pattern.subpat.is_none() => pattern.ident.clone(),
            pattern => Ident::new(&format!("argument_{place}"), Span::mixed_site().located_at(pattern.span())),
        };
        let is_name =
            matches!(&*input.pat, Pat::Ident(pattern) if pattern.ident == name && pattern.mutability.is_none());
        if !is_name {
            let pattern = &input.pat;
            bindings.push(quote!(let #pattern = #name;));
            *input.pat = syn::parse_quote!(#name);
        }
        arguments.push(Argument { name, ty: (*input.ty).clone() });
    }
    (arguments, bindings)
}

/// The expression of the key.
fn key_of(options: &Options, signature: &Signature, arguments: &[Argument]) -> syn::Result<TokenStream> {
    let function = &signature.ident;
    let unknown = |span: Span, name: &dyn std::fmt::Display, option: &str| {
        Error::new(span, format!("`{name}` in `{option}` is not an argument of `{function}`"))
    };
    let is_argument = |name: &str| arguments.iter().any(|argument| argument.name == name);
    if let (Some((skip, _)), Some(_)) = (&options.skip, &options.key) {
        return Err(Error::new(skip.span(), "`skip` has no effect beside `key`: that names the arguments itself"));
    }
    if let Some(expression) = &options.key {
        let Some(format) = options::text(expression) else { return Ok(written(expression)) };
        let names = key::names(&format.value()).map_err(|rule| Error::new(format.span(), format!("`key`: {rule}")))?;
        if let Some(name) = names.iter().find(|name| !is_argument(name)) {
            return Err(unknown(format.span(), name, "key"));
        }
        let is_literal = !format.value().contains(['{', '}']);
        return Ok(written(&if is_literal { expression.clone() } else { syn::parse_quote!(::std::format!(#format)) }));
    }
    if let Some(receiver) = signature.receiver() {
        let rule = format!(
            "`{function}` has `self`, so its values need a `key`, as in `key = format!(\"user:{{}}\", self.id)`"
        );
        return Err(Error::new(receiver.self_token.span(), rule));
    }
    let skipped = options.skip.as_ref().map_or(&[][..], |(_, names)| names);
    if let Some(name) = skipped.iter().find(|name| !is_argument(&name.to_string())) {
        return Err(unknown(name.span(), name, "skip"));
    }
    let skipped: BTreeSet<String> = skipped.iter().map(Ident::to_string).collect();
    let mut parts = Vec::new();
    for Argument { name, ty } in arguments.iter().filter(|argument| !skipped.contains(&argument.name.to_string())) {
        if matches!(ty, Type::Reference(reference) if reference.mutability.is_some()) {
            let rule = format!(
                "`{name}` is a `&mut` reference, which a value from the cache leaves as it is: add `skip({name})` or a `key`"
            );
            return Err(Error::new(ty.span(), rule));
        }
        // The span is that of the type, so that the compiler points at it if it has no encoding.
        parts.push(quote_spanned!(ty.span()=> .argument(&#name)));
    }
    Ok(quote!(::larder::__private::Encoder::new(::core::any::type_name_of_val(&|| {})) #(#parts)* .key()))
}

fn written(key: &Expr) -> TokenStream {
    quote!(::core::option::Option::Some(::std::string::String::from(#key)))
}
