//! Plugins written with the SDK.
//!
//! - `examples`: every example runs and prints what its documentation shows. `http-json` is run by the tests of
//!   documents, as its README shows.
//! - `kept`: a plugin that was built for an earlier version of the interface runs.
//! - `languages`: plugins in Python and JavaScript cache what plugins in Rust cache.
//! - `limits`: the in-memory host of the SDK has the limits of the real host.
//! - `testing`: for random calls, the in-memory host of the SDK answers as the real host does.

mod examples;
mod kept;
mod languages;
mod limits;
mod testing;
