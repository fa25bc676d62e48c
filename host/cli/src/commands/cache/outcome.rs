//! The results of `larder cache`, as text and as JSON.

use std::fmt::Write as _;
use std::time::Duration as StdDuration;

use bytes::Bytes;
use bytesize::ByteSize;
use larder_host::cache::KeyState;
use serde_json::{Value, json};

use crate::json::SCHEMA;

/// The result of an operation that succeeded.
#[derive(Debug)]
pub(super) enum Outcome {
    Found(Bytes),
    Missing,
    State(KeyState),
    Stored,
    Cleared,
    NothingCleared,
    ClearedMany(u64),
}

impl Outcome {
    pub(super) fn is_miss(&self) -> bool {
        matches!(self, Self::Missing | Self::NothingCleared | Self::State(KeyState::Empty))
    }

    /// The output of `--json`. `docs/command-line.md` lists the keys.
    pub(super) fn object(&self, cache: &str) -> Value {
        match self {
            Self::Found(value) => match std::str::from_utf8(value) {
                Ok(text) => {
                    json!({ "schema": SCHEMA, "cache": cache, "found": true, "value": text, "value_hex": null })
                }
                Err(_) => {
                    json!({ "schema": SCHEMA, "cache": cache, "found": true, "value": null, "value_hex": hex(value) })
                }
            },
            Self::Missing => {
                json!({ "schema": SCHEMA, "cache": cache, "found": false, "value": null, "value_hex": null })
            }
            Self::State(state) => {
                let (state, bytes, life) = match *state {
                    KeyState::Value { bytes, life } => ("value", Some(bytes), life),
                    KeyState::Lease { life } => ("lease", None, life),
                    KeyState::Empty => ("empty", None, None),
                };
                json!({ "schema": SCHEMA, "cache": cache, "state": state, "bytes": bytes, "life_ms": life })
            }
            Self::Stored => json!({ "schema": SCHEMA, "cache": cache, "stored": true }),
            Self::Cleared => json!({ "schema": SCHEMA, "cache": cache, "cleared": 1 }),
            Self::NothingCleared => json!({ "schema": SCHEMA, "cache": cache, "cleared": 0 }),
            Self::ClearedMany(count) => json!({ "schema": SCHEMA, "cache": cache, "cleared": count }),
        }
    }
}

/// Two digits for each byte.
fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::with_capacity(bytes.len().saturating_mul(2)), |mut hex, byte| {
        let _infallible = write!(hex, "{byte:02x}");
        hex
    })
}

/// One line about what a key holds.
pub(super) fn in_words(state: KeyState) -> String {
    let in_time = |life: u64| {
        let life = StdDuration::from_millis(life);
        // Of a long time, parts of a second say nothing.
        let life = if life.as_secs() < 10 { life } else { StdDuration::from_secs(life.as_secs()) };
        humantime::format_duration(life).to_string()
    };
    match state {
        KeyState::Value { bytes, life: Some(life) } => {
            format!("value of {}, expires in {}", size(bytes), in_time(life))
        }
        KeyState::Value { bytes, life: None } => format!("value of {}, does not expire", size(bytes)),
        KeyState::Lease { life } => {
            let lapses = life.map(|life| format!(", lapses in {} unless it is renewed", in_time(life)));
            format!("lease of a caller that computes the value{}", lapses.unwrap_or_default())
        }
        KeyState::Empty => "nothing".to_owned(),
    }
}

fn size(bytes: usize) -> ByteSize {
    ByteSize(u64::try_from(bytes).unwrap_or(u64::MAX))
}
