//! A plugin that exports a function for the host to call, and uses the cache through the SDK.

#![allow(missing_docs, unsafe_code, reason = "the generated exports are undocumented and use raw pointers")]

use std::time::Duration;

use larder::{Cache, Error};

wit_bindgen::generate!({
    inline: "
        package example:prices;

        world plugin {
            /// The price of an article in cents.
            export price: func(article: string) -> result<u64, string>;
        }
    ",
});

struct Prices;

export!(Prices);

impl Guest for Prices {
    fn price(article: String) -> Result<u64, String> {
        let cached = || Cache::default()?.try_get_or_set(format!("price:{article}"), MINUTE, || look_up(&article));
        cached().map_err(|error| error.to_string())
    }
}

const MINUTE: Duration = Duration::from_secs(60);

/// The error of the closure. It must be convertible from the cache's own errors.
enum LookupError {
    Cache(Error),
    NoSuchArticle,
}

impl From<Error> for LookupError {
    fn from(error: Error) -> Self {
        Self::Cache(error)
    }
}

impl std::fmt::Display for LookupError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Cache(error) => error.fmt(f),
            Self::NoSuchArticle => f.write_str("no such article"),
        }
    }
}

/// Simulates a slow request to another service. Its errors are returned to the caller and never cached.
fn look_up(article: &str) -> Result<u64, LookupError> {
    match article {
        "apple" => Ok(45),
        "bread" => Ok(380),
        _ => Err(LookupError::NoSuchArticle),
    }
}
