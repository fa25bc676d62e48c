//! The `[caches.NAME.near]` table: the near tier of a cache on a server.

use serde::Deserialize;

use crate::cache::{NearOptions, Policy};
use crate::config::document::{Fault, Section};
use crate::config::units::{PositiveDuration, Size};

/// The memory of this process in front of the server. Absent: every read goes to the server.
#[derive(Debug, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub(super) struct RawNear {
    /// The most memory for values near: keys, values and overhead. Defaults to `"64MiB"`.
    max_bytes: Option<Size>,
    /// A value near was on the server at some time within this duration, 100 ms to 60 s. Defaults to `"1s"`.
    max_staleness: Option<PositiveDuration>,
    /// The longest value that is kept near; longer ones are read from the server each time. Defaults to `"64KiB"`, or
    /// to `max_value_bytes` of the cache if that is less.
    max_value_bytes: Option<Size>,
    /// The longest time for which a value is kept near; absent: until it expires or changes.
    max_expire: Option<PositiveDuration>,
}

impl RawNear {
    pub(super) fn validate(self, policy: &Policy, section: &Section<'_>) -> Result<NearOptions, Fault> {
        let invalid = |rule: &str| Err(section.fault("near", rule));
        let mut options = NearOptions::default();
        options.max_bytes = self.max_bytes.map_or(options.max_bytes, |size| size.0);
        options.max_staleness = self.max_staleness.map_or(options.max_staleness, |duration| duration.0);
        options.max_expire = self.max_expire.map(|duration| duration.0);
        options.max_value_bytes = match self.max_value_bytes {
            Some(Size(bytes)) => usize::try_from(bytes).unwrap_or(usize::MAX),
            None => options.max_value_bytes.min(policy.max_value_bytes),
        };
        let (most, least) = (policy.max_value_bytes, NearOptions::least_bytes(options.max_value_bytes));
        if options.max_value_bytes > most {
            return invalid(&format!("`max_value_bytes` must not be over that of the cache, which is {most}"));
        }
        if !(NearOptions::LEAST_STALENESS..=NearOptions::MOST_STALENESS).contains(&options.max_staleness) {
            return invalid("`max_staleness` must be from 100ms to 60s");
        }
        if options.max_bytes < least {
            return invalid(&format!(
                "`max_bytes` must be at least {least} to hold a value of max_value_bytes = {} with the longest key and \
                 the overhead of an entry, but is {}",
                options.max_value_bytes, options.max_bytes
            ));
        }
        Ok(options)
    }
}
