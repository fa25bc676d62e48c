//! The JSON Schema of the configuration, for editors. It is derived from the structs that mirror the TOML and from
//! their doc comments. It has the rules for single keys; `larder check` also checks rules that involve several keys or
//! the machine.

// Decision: docs/decisions/0053-the-json-schema-is-derived-from-the-configuration-structs.md

use std::borrow::Cow;
use std::collections::BTreeMap;

use schemars::generate::SchemaSettings;
use schemars::transform::RecursiveTransform;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde_json::{Map, Value};

use crate::cache::Duration;
use crate::config::caches::{RawRam, RawServer};
use crate::config::env::Variables;
use crate::config::hosts::OutgoingHost;
use crate::config::plugins::{RawGrant, UnlistedPlugins};
use crate::config::sandbox::{MAX_COUNT, RawSandbox};
use crate::config::serve::RawServe;
use crate::config::server_address::{NodeAddress, Url};
use crate::config::units::{
    Count, Db, DurationOrZero, ExpireDuration, MAX_SIZE, MIN_QUEUE, Password, Port, PositiveDuration, QueueSize, Size,
};
use crate::settings::Settings;

/// The JSON Schema of `larder.toml`, draft 7, as `larder schema` prints it. Needs the feature `schema`.
pub fn json_schema() -> String {
    let settings = SchemaSettings::draft07().with(|settings| settings.inline_subschemas = true);
    let generator = settings.with_transform(RecursiveTransform(without_null)).into_generator();
    let schema = generator.into_root_schema_for::<Root>();
    format!("{:#}\n", schema.as_value())
}

/// The configuration of Larder's host.
// Its keys are those that `Config::from_document` takes.
#[derive(JsonSchema)]
#[schemars(title = "larder.toml", deny_unknown_fields)]
#[expect(dead_code, reason = "only the schema of this struct is used")]
struct Root {
    /// The cache that a plugin opens without a name; required if there is more than one.
    default: Option<String>,
    /// What plugins without a table in `[plugins]` may do: everything with the caches, or nothing. Defaults to `"allow"`.
    unlisted_plugins: Option<UnlistedPlugins>,
    /// The caches, by name.
    caches: Option<BTreeMap<String, CacheTable>>,
    /// The permissions of single plugins, by their file name without extension or `--name`.
    plugins: Option<BTreeMap<String, RawGrant>>,
    /// The limits of each plugin instance.
    sandbox: Option<RawSandbox>,
    /// The HTTP server of `larder serve`.
    serve: Option<RawServe>,
}

/// A `[caches.NAME]` table. Its `type` selects the keys that are allowed.
struct CacheTable;

impl JsonSchema for CacheTable {
    fn schema_name() -> Cow<'static, str> {
        "CacheTable".into()
    }

    /// Lists the keys of all types together, from which editors complete, and then refuses those that the type does not
    /// have. With `oneOf` an editor could only report that no alternative matches, without the position of the mistake.
    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let [ram, server] = [generator.subschema_for::<RawRam>(), generator.subschema_for::<RawServer>()];
        let properties =
            |schema: &Schema| schema.get("properties").and_then(Value::as_object).cloned().unwrap_or_default();
        let [ram, server] = [properties(&ram), properties(&server)];
        let no_others = |known: &Map<String, Value>| {
            let known = known.keys().map(String::as_str).chain(["type"]);
            let known: Map<String, Value> = known.map(|key| (key.to_owned(), true.into())).collect();
            json_schema!({ "properties": known, "additionalProperties": false })
        };
        let (of_ram, of_server) = (no_others(&ram), no_others(&server));
        let kind = json_schema!({
            "description": "The backend of the cache.",
            "enum": ["ram", "valkey", "redis"],
        });
        let mut all = ram;
        all.extend(server);
        all.insert("type".to_owned(), kind.to_value());
        json_schema!({
            "type": "object",
            "properties": all,
            "required": ["type"],
            "if": { "properties": { "type": { "const": "ram" } } },
            "then": of_ram,
            "else": of_server,
        })
    }
}

/// Removes null from a schema, because TOML has no null.
fn without_null(schema: &mut Schema) {
    let Some(object) = schema.as_object_mut() else { return };
    if let Some(name) = object.get_mut("type") {
        let other = name.as_array().and_then(|types| types.iter().find(|name| *name != "null")).cloned();
        *name = other.unwrap_or_else(|| name.take());
    }
    if let Some(Value::Array(values)) = object.get_mut("enum") {
        values.retain(|value| !value.is_null());
    }
    if object.get("default").is_some_and(Value::is_null) {
        object.remove("default");
    }
    let Some(Value::Array(mut variants)) = object.remove("anyOf") else { return };
    variants.retain(|variant| variant.get("type").is_none_or(|name| name != "null"));
    match (variants.pop(), variants.is_empty()) {
        (Some(Value::Object(only)), true) => only.into_iter().for_each(|(key, value)| {
            object.entry(key).or_insert(value);
        }),
        (last, _) => {
            variants.extend(last);
            object.insert("anyOf".to_owned(), Value::Array(variants));
        }
    }
}

/// A string that matches the pattern, or contains `${NAME}`.
fn text(pattern: &str) -> Schema {
    json_schema!({ "type": "string", "pattern": format!(r"^({pattern})$|\$\{{") })
}

/// A number of bytes of at least `least`, or what `bytesize` reads.
fn size(least: u64) -> Schema {
    json_schema!({ "anyOf": [
        { "type": "integer", "minimum": least, "maximum": MAX_SIZE },
        text(r"[0-9]*\.?[0-9]*\s*([kKmMgGtTpPeE]?[bB]|[kKmMgGtTpPeE][iI]?[bB]?)?"),
    ] })
}

/// A number of seconds of at least `least`, or what `humantime` reads, except `M`, which the configuration refuses.
fn duration(least: f64, words: &str) -> Schema {
    const UNIT: &str = "nanos|nsec|ns|usec|us|µs|millis|msec|ms|seconds?|secs?|s|minutes?|mins?|m|hours?|hrs?|h|days?|d|\
                        weeks?|wks?|w|months?|years?|yrs?|y";
    let seconds = Duration::LONGEST.as_secs();
    json_schema!({ "anyOf": [
        { "type": "number", "minimum": least, "maximum": seconds },
        text(&format!(r"{words}\s*([0-9]+(\.[0-9]+)?\s*({UNIT})\s*)+")),
    ] })
}

/// Implements `JsonSchema` for types with a schema of their own.
macro_rules! schemas {
    ($($type:ty: $schema:expr;)+) => {
        $(
            impl JsonSchema for $type {
                fn schema_name() -> Cow<'static, str> {
                    stringify!($type).into()
                }

                fn json_schema(_: &mut SchemaGenerator) -> Schema {
                    $schema
                }
            }
        )+
    };
}

schemas! {
    Size: size(1);
    QueueSize: size(MIN_QUEUE);
    DurationOrZero: duration(0.0, "0|");
    PositiveDuration: duration(0.001, "");
    ExpireDuration: duration(0.001, "unlimited|");
    Count: json_schema!({ "type": "integer", "minimum": 1, "maximum": MAX_COUNT });
    Port: json_schema!({ "type": "integer", "minimum": 1, "maximum": u16::MAX });
    Db: json_schema!({ "type": "integer", "minimum": 0, "maximum": u16::MAX });
    Password: json_schema!({ "type": "string" });
    Url: text("(redis|rediss|valkey|valkeys):.*");
    NodeAddress: text(r"[^\s/@]+:[0-9]+");
    OutgoingHost: text(r"[^\s/@]+");
    Variables: json_schema!({ "type": "object", "additionalProperties": { "type": "string" } });
    Settings: json_schema!({ "type": "object", "additionalProperties": { "type": "string" } });
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    /// The keys that `cache_table!` gives to every type of cache.
    const POLICY_KEYS: [&str; 5] = ["default_expire", "max_expire", "max_lease", "max_value_bytes", "wait"];

    /// The schema of the table has one description for each key.
    #[test]
    fn keys_of_several_cache_types_have_the_same_schema() {
        let mut generator =
            SchemaSettings::draft07().with(|settings| settings.inline_subschemas = true).into_generator();
        let [ram, server] = [generator.subschema_for::<RawRam>(), generator.subschema_for::<RawServer>()];
        let server = server.get("properties").unwrap();
        let shared =
            ram.get("properties").unwrap().as_object().unwrap().iter().filter(|(key, _)| server.get(key).is_some());
        let mut keys = BTreeSet::new();
        for (key, property) in shared {
            assert_eq!(Some(property), server.get(key), "{key}");
            keys.insert(key.as_str());
        }
        assert_eq!(keys, POLICY_KEYS.into());
    }
}
