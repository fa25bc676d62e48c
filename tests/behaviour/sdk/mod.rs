//! Plugins written with the SDK.
//!
//! - `examples`: every example runs and prints what its documentation shows. `http-json` is run by the tests of
//!   documents, as its README shows.
//! - `languages`: plugins in Python and JavaScript cache what plugins in Rust cache.
//! - `testing`: for random calls, the in-memory host of the SDK answers as the real host does.

mod examples;
mod languages;
mod testing;
