//! The guest SDK of Larder: one shared cache for WebAssembly plugins.
//!
//! The host that runs the plugin serves the cache from memory, or from a Valkey or Redis server that many host
//! processes share. The operator chooses the backend; the plugin is the same `.wasm` file for all of them.
//!
//! ```no_run
//! use std::time::Duration;
//!
//! use larder::Cache;
//!
//! fn main() -> Result<(), larder::Error> {
//!     let cache = Cache::default()?;
//!
//!     cache.set("user:123", "John")?;
//!     let name: Option<String> = cache.get("user:123")?;
//!     println!("{name:?}");
//!
//!     let report: String = cache.get_or_set("report", Duration::from_secs(60), || expensive_report())?;
//!     println!("{report}");
//!
//!     cache.clear_pattern("user:*")?;
//!     Ok(())
//! }
//! # fn expensive_report() -> String { String::new() }
//! ```
//!
//! Build a plugin with `cargo build --target wasm32-wasip2` and run it with `larder run`. Its tests run natively with
//! `cargo test`, on the in-memory host of [`testing`].
//!
//! - [`Cache`] is an open cache. [`Cache::open`] opens one by name, [`Cache::default`] the operator's default.
//! - [`Cache::get_or_set`] and its variants compute a missing value once for all concurrent callers.
//! - [`Cache::get_or_refresh`] and its variants return a stale value at once, while one caller computes the next one.
//! - [`macro@cached`] is an attribute that caches what a function returns by its arguments.
//! - [`Duration`] is how long a value may be served. Every call also takes a [`std::time::Duration`].
//! - [`Error`] is the reason why a call failed. Its variants state who can act on it:
//!
//! ```no_run
//! use larder::{Cache, Error};
//!
//! match Cache::open("valkey") {
//!     Ok(cache) => println!("{} keys cleared", cache.clear_all().unwrap_or(0)),
//!     Err(Error::NoSuchCache) => eprintln!("no cache is named `valkey`: ask the operator to add one"),
//!     Err(Error::AccessDenied) => eprintln!("ask the operator to grant the cache to this plugin"),
//!     Err(error) => eprintln!("{error}"),
//! }
//! ```

// A panic in this crate ends the plugin that uses it.
#![warn(
    clippy::arithmetic_side_effects,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used
)]

mod bindings;
mod cache;
mod cached;
mod codec;
#[cfg(all(feature = "async", target_family = "wasm"))]
pub mod concurrent;
mod duration;
mod error;
mod refresh;
#[cfg(not(target_family = "wasm"))]
pub mod testing;

pub use cache::{Cache, Entry, Vacancy};
pub use duration::Duration;
pub use error::Error;
pub use refresh::{Freshness, Refresh};

/// Caches what a function returns, by its arguments.
///
/// The body becomes the computation of a get-or-set, or with `stale` of a get-or-refresh: of all callers with the same
/// arguments, in all host processes that share the cache, one runs the body and the others get its value.
///
/// ```
/// #[larder::cached(duration = "60s")]
/// fn primes_below(limit: u32) -> usize {
///     (2..limit).filter(|n| (2..*n).all(|divisor| n % divisor != 0)).count()
/// }
///
/// assert_eq!(primes_below(1000), 168);
/// assert_eq!(primes_below(1000), 168); // from the cache
/// ```
///
/// # Options
///
/// | option | meaning |
/// |---|---|
/// | `duration = "60s"` | How long a value is fresh. Required. Whole numbers with the units `ms`, `s`, `m`, `h` and `d`, or an expression of a [`Duration`]. |
/// | `stale = "1h"` | How long it is served after that while one caller computes the next one, or if that fails. |
/// | `cache = "name"` | The cache. Without it, the default cache. |
/// | `key = "user:{id}"` | The key: a format string over arguments, or an expression of text. |
/// | `skip(client)` | Arguments that do not belong into the key, such as a connection. |
/// | `on_error = log` | With `stale`: a function that gets the error for which a stale value was returned. |
///
/// # Keys
///
/// Without `key`, the key is the path of the function, a colon, and the arguments as a JSON array, as in
/// `shop::price:["apple",3]`. `clear_pattern("shop::price:*")` thus clears all values of the function. Arguments with the
/// same JSON share a value, as all floats without a finite value do; an argument whose JSON differs from time to time, such
/// as a `HashMap`, finds no value. If the key is longer than 1,024 bytes or has a control character, the SHA-256 of
/// the array replaces it, after `sha256:`.
///
/// The path is the one that the compiler gives the function, with the types of its generic parameters. Another version of
/// the compiler may give another one, and the values are computed again. Write a `key` if other code reads or clears the
/// values, or if plugins with other arguments or another return type share them.
///
/// # Functions
///
/// A function may be async, generic, or a method; one with `self` needs a `key`. It returns an owned value that
/// implements [`Serialize`](serde::Serialize) and [`DeserializeOwned`](serde::de::DeserializeOwned). Of a function that
/// returns a `Result`, only `Ok` is stored. If it fails and the cache has a stale value, it returns that:
///
/// ```
/// use std::time::Duration;
///
/// use larder::testing;
///
/// #[larder::cached(duration = "60s", stale = "1h", key = "rate:{currency}")]
/// fn rate(currency: &str, source: &dyn Fn() -> Option<f64>) -> Result<f64, String> {
///     let rate = source().ok_or("the source is down")?;
///     Ok(rate)
/// }
///
/// assert_eq!(rate("EUR", &|| Some(1.0)), Ok(1.0));
/// testing::advance(Duration::from_secs(60));
/// assert_eq!(rate("EUR", &|| None), Ok(1.0)); // stale
/// testing::advance(Duration::from_secs(3600));
/// assert_eq!(rate("EUR", &|| None), Err("the source is down".to_owned()));
/// ```
///
/// # Failures of the cache
///
/// They are none of the function: without the cache, with a key that is refused, on a read-only grant, or during an outage, the
/// body runs and its value is not stored. Call [`Cache::get_or_set`] to see such errors.
///
/// # Errors of the compiler
///
/// An argument in the key must implement [`Serialize`](serde::Serialize), and the compiler points at one that does not:
///
/// ```compile_fail
/// struct Connection;
///
/// #[larder::cached(duration = "60s")] // `skip(connection)` is missing.
/// fn load(id: u32, connection: Connection) -> String {
///     String::new()
/// }
/// ```
#[doc(inline)]
pub use larder_macros::cached;

#[doc(hidden)]
pub mod __private {
    pub use crate::cached::{CachedValue, Call, Encoder, Returns};
}
