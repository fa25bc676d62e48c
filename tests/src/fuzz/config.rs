//! The text of a configuration.

use std::path::Path;

use larder_host::Config;
use larder_host::config::ConfigError;

/// The value of `${SECRET}`. No text has it by chance.
const SECRET: &str = "correct-horse-battery";

fn environment(name: &str) -> Option<String> {
    match name {
        "SECRET" => Some(SECRET.to_owned()),
        "NAME" => Some("name".to_owned()),
        _ => None,
    }
}

/// A configuration is accepted or refused, each time with the same result. The position of an error is within the text.
/// No output shows a password.
pub fn config(data: &[u8]) {
    let Ok(text) = str::from_utf8(data) else { return };
    // The files that a text names do not exist, except those with an absolute path.
    let read = || Config::parse(text, "larder.toml", Path::new("/nonexistent"), &environment);
    let outcome = read();
    assert_eq!(outcome, read(), "read twice");
    match &outcome {
        Ok(config) => assert!(config.caches.contains_key(&config.default), "no cache `{}`", config.default),
        Err(ConfigError::Invalid { line, column, message, .. }) => {
            assert!(!message.is_empty());
            let line = text.split('\n').nth(line - 1).expect("the line is there");
            assert!(column - 1 <= line.chars().count(), "column {column} of `{line}`");
        }
        Err(other) => panic!("{other}"),
    }
    if is_secret_used_as_one(text) {
        let shown = match &outcome {
            Ok(config) => format!("{config:?} {config:#?}"),
            Err(error) => format!("{error} {error:?}"),
        };
        assert!(!shown.contains(SECRET), "{shown}");
    }
}

/// True if every use of `${SECRET}` is the password of a cache, the password in its URL, a variable of a plugin, or in
/// place of its table of variables.
fn is_secret_used_as_one(text: &str) -> bool {
    let Ok(document) = text.parse::<toml::Table>() else { return false };
    let tables = |name: &str| {
        let tables = document.get(name).and_then(toml::Value::as_table).into_iter().flat_map(toml::Table::values);
        tables.filter_map(toml::Value::as_table).collect::<Vec<_>>()
    };
    let in_caches = tables("caches").into_iter().map(|cache| {
        let string = |key: &str| cache.get(key).and_then(toml::Value::as_str).unwrap_or_default();
        let is_password = string("password") == "${SECRET}";
        let is_in_url = string("url").strip_prefix("redis://:${SECRET}@").is_some_and(|rest| !rest.contains('$'));
        usize::from(is_password) + usize::from(is_in_url)
    });
    let is_secret = |value: &toml::Value| value.as_str() == Some("${SECRET}");
    let in_plugins = tables("plugins").into_iter().filter_map(|plugin| plugin.get("env")).map(|env| match env {
        toml::Value::Table(variables) => variables.values().filter(|value| is_secret(value)).count(),
        other => usize::from(is_secret(other)),
    });
    in_caches.chain(in_plugins).sum::<usize>() == text.matches("SECRET").count()
}
