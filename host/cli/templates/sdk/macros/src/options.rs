//! The options of the attribute.

use proc_macro2::{Ident, TokenStream};
use quote::{ToTokens, quote};
use syn::ext::IdentExt;
use syn::parse::{Parse, ParseStream};
use syn::punctuated::Punctuated;
use syn::{Error, Expr, ExprLit, Lit, LitStr, Token, parenthesized};

use crate::duration;

const OPTIONS: &str = "`cache`, `duration`, `stale`, `key`, `skip` and `on_error`";

/// The options as they are written, each at most once.
#[derive(Default)]
pub(crate) struct Options {
    pub(crate) cache: Option<Expr>,
    pub(crate) duration: Option<TokenStream>,
    pub(crate) stale: Option<TokenStream>,
    pub(crate) key: Option<Expr>,
    pub(crate) skip: Option<(Ident, Vec<Ident>)>,
    pub(crate) on_error: Option<(Ident, Expr)>,
}

impl Parse for Options {
    fn parse(input: ParseStream<'_>) -> syn::Result<Self> {
        let mut options = Self::default();
        while !input.is_empty() {
            let name: Ident =
                input.parse().map_err(|error| Error::new(error.span(), format!("expected one of {OPTIONS}")))?;
            let written = name.to_string();
            match written.as_str() {
                "skip" => {
                    let names;
                    parenthesized!(names in input);
                    let names = Punctuated::<Ident, Token![,]>::parse_terminated_with(&names, Ident::parse_any)?;
                    set(&mut options.skip, &name, (name.clone(), names.into_iter().collect()))?;
                }
                "cache" => set(&mut options.cache, &name, value(input)?)?,
                "duration" => set(&mut options.duration, &name, length(&name, &value(input)?)?)?,
                "stale" => set(&mut options.stale, &name, length(&name, &value(input)?)?)?,
                "key" => set(&mut options.key, &name, value(input)?)?,
                "on_error" => set(&mut options.on_error, &name, (name.clone(), value(input)?))?,
                _ => return Err(Error::new(name.span(), format!("`{written}` is not an option: {OPTIONS} are"))),
            }
            if !input.is_empty() {
                input.parse::<Token![,]>()?;
            }
        }
        Ok(options)
    }
}

/// The text of an expression that is a string literal.
pub(crate) fn text(expression: &Expr) -> Option<&LitStr> {
    match expression {
        Expr::Lit(ExprLit { lit: Lit::Str(text), .. }) => Some(text),
        _ => None,
    }
}

fn value(input: ParseStream<'_>) -> syn::Result<Expr> {
    input.parse::<Token![=]>()?;
    input.parse()
}

fn set<T>(option: &mut Option<T>, name: &Ident, value: T) -> syn::Result<()> {
    match option.replace(value) {
        None => Ok(()),
        Some(_) => Err(Error::new(name.span(), format!("`{name}` is given twice"))),
    }
}

/// A duration as an expression of the SDK's type.
fn length(name: &Ident, value: &Expr) -> syn::Result<TokenStream> {
    if let Some(text) = text(value) {
        let Some(parsed) = duration::parse(&text.value()) else {
            let rule = format!(
                "`{name}`: {:?} is not a duration: write it as \"500ms\", \"60s\", \"5m\", \"2h\" or \"1d\"",
                text.value()
            );
            return Err(Error::new(text.span(), rule));
        };
        let milliseconds = u64::try_from(parsed.as_millis()).unwrap_or(u64::MAX);
        return Ok(quote!(::larder::Duration::Milliseconds(#milliseconds)));
    }
    if let Expr::Lit(ExprLit { lit, .. }) = value {
        let number = lit.to_token_stream();
        return Err(Error::new(lit.span(), format!("`{name}`: {number} has no unit: write it as \"60s\"")));
    }
    Ok(quote!(::core::convert::Into::<::larder::Duration>::into(#value)))
}
