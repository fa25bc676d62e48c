//! The key `reuse` of `[plugins.*]`: how long an instance answers requests.

use std::time::Duration;

use serde::Deserialize;

use crate::config::document::{Fault, Section};
use crate::config::sandbox::count;
use crate::config::units::{Count, PositiveDuration};

/// How long an instance of a plugin answers requests. Start from [`Reuse::default`] and set the fields that differ.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Reuse {
    /// The maximum number of requests that an instance answers, 1 to 65,536. Defaults to 1,000.
    pub requests: usize,
    /// The maximum number of requests that an instance of WASI 0.3 answers at the same time, 1 to 65,536. One of WASI 0.2
    /// answers one. Defaults to 16.
    pub concurrent: usize,
    /// How long an instance waits for its next request, 1 ms to 1 h. Defaults to 30 s.
    pub idle: Duration,
    /// The age from which on an instance gets no further request, 1 ms to 24 h. Defaults to 10 min.
    pub max_age: Duration,
}

impl Default for Reuse {
    fn default() -> Self {
        let (idle, max_age) = (Duration::from_secs(30), Duration::from_secs(600));
        Self { requests: 1000, concurrent: 16, idle, max_age }
    }
}

impl Reuse {
    /// That of a plugin of WASI 0.3 without a `reuse`: what `wasmtime serve` does by default.
    #[cfg(feature = "serve")]
    pub(crate) const CONCURRENT: Self =
        Self { requests: 128, concurrent: 16, idle: Duration::from_secs(1), max_age: Duration::from_secs(600) };
}

/// The longest `idle`: an idle instance keeps its memory.
const MAX_IDLE: Duration = Duration::from_secs(3600);

/// The longest `max_age`.
const MAX_AGE: Duration = Duration::from_secs(24 * 3600);

/// How long an instance of the plugin answers requests.
#[derive(Debug, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub(super) struct RawReuse {
    /// The maximum number of requests that an instance answers. Defaults to `1000`.
    requests: Option<Count>,
    /// The maximum number of requests that an instance of WASI 0.3 answers at the same time. Defaults to `16`.
    concurrent: Option<Count>,
    /// How long an instance waits for its next request; at most an hour. Defaults to `"30s"`.
    idle: Option<PositiveDuration>,
    /// The age from which on an instance gets no further request; at most a day. Defaults to `"10m"`.
    max_age: Option<PositiveDuration>,
}

impl RawReuse {
    /// Checks the limits of each key. `section` is the plugin's table.
    pub(super) fn validate(self, section: &Section<'_>) -> Result<Reuse, Fault> {
        let Self { requests, concurrent, idle, max_age } = self;
        let default = Reuse::default();
        Ok(Reuse {
            requests: count(section, "reuse.requests", requests, default.requests)?,
            concurrent: count(section, "reuse.concurrent", concurrent, default.concurrent)?,
            idle: at_most(section, "reuse.idle", idle, MAX_IDLE)?.unwrap_or(default.idle),
            max_age: at_most(section, "reuse.max_age", max_age, MAX_AGE)?.unwrap_or(default.max_age),
        })
    }
}

fn at_most(
    section: &Section<'_>,
    key: &str,
    written: Option<PositiveDuration>,
    max: Duration,
) -> Result<Option<Duration>, Fault> {
    match written {
        Some(PositiveDuration(duration)) if duration > max => {
            let [max, duration] = [max, duration].map(humantime::format_duration);
            Err(section.fault(key, &format!("must be at most {max}, but is {duration}")))
        }
        written => Ok(written.map(|PositiveDuration(duration)| duration)),
    }
}
