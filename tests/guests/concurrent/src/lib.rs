//! A plugin of WASI 0.3: a command, an HTTP service, and asynchronous functions for `larder run --invoke`.

#![allow(missing_docs, unsafe_code, reason = "the generated exports are undocumented and use raw pointers")]

mod command;
mod files;
mod functions;
mod hoard;
mod outgoing;
mod service;
