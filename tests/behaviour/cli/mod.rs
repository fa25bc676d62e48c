//! The program `larder`.
//!
//! - `compiled`: compiled plugins are kept on disk and used by the next start.
//! - `components`: each file that is not a plugin of this host has its own message.
//! - `concurrent`: commands and asynchronous functions of WASI 0.3.
//! - `concurrent_dirs`: what such a command may do below a directory that it is given.
//! - `dev`: `larder dev` builds a plugin, serves or runs it, and does so again after each change.
//! - `dirs`: what a plugin may write and open below a directory that it is given.
//! - `inspect`: what a plugin needs and offers.
//! - `instances`: several plugin instances in one process; a vacancy is released when its sandbox ends.
//! - `invoke`: `larder run --invoke` calls one exported function.
//! - `json`: the output of `--json` has the documented keys, and the exit status and messages do not change.
//! - `loading`: each file loads within bounded time and memory, or is refused with one line.
//! - `man`: `larder man` and `larder completions` describe the command line.
//! - `mistakes`: typical mistakes of a first day; each message names the next step.
//! - `new`: `larder new` creates a project that builds, and overwrites no file.
//! - `program`: where the configuration is found, `larder check` and `larder cache`.
//! - `ready`: `larder ready`, the health check of a container.
//! - `signals`: SIGTERM, Ctrl-C and SIGHUP: leases are given back, and no command ignores them.
//! - `terminal`: colours, progress, `--quiet` and `--verbose`, and the width of help.
//! - `top`: the table of `larder top`, its messages, and the terminal after it.

mod compiled;
mod components;
mod concurrent;
mod concurrent_dirs;
mod dev;
mod dirs;
mod inspect;
mod instances;
mod invoke;
mod json;
pub(crate) mod loading;
mod man;
mod mistakes;
mod new;
mod program;
mod ready;
mod signals;
mod terminal;
mod top;
