//! The TOML text: its sections, the substitution of `${NAME}`, and the position of each mistake.

use std::ops::Range;

use serde::de::DeserializeOwned;
use toml::Spanned;
use toml::de::{DeTable, DeValue, ValueDeserializer};

use crate::config::error::ConfigError;
use crate::nearest::did_you_mean;

/// Looks up an environment variable: [`std::env::var`], or a test's own table.
pub type Environment<'a> = &'a dyn Fn(&str) -> Option<String>;

/// A mistake in the text, with its position.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Fault {
    span: Range<usize>,
    message: String,
}

impl Fault {
    pub(super) fn at(span: Range<usize>, message: String) -> Self {
        Self { span, message }
    }

    /// Converts the position into a line and a column.
    pub(super) fn locate(self, text: &str, origin: &str) -> ConfigError {
        let before = text.get(..self.span.start).unwrap_or(text);
        let line = before.matches('\n').count().saturating_add(1);
        let column = before.chars().rev().take_while(|&character| character != '\n').count().saturating_add(1);
        ConfigError::Invalid { origin: origin.to_owned(), line, column, message: self.message }
    }
}

/// A parsed document. Keys are removed as they are read.
#[derive(Debug)]
pub(super) struct Document<'i> {
    root: DeTable<'i>,
}

/// One table of the document.
#[derive(Debug, Clone)]
pub(super) struct Section<'i> {
    /// The last part of its name: `valkey` of `[caches.valkey]`.
    pub(super) name: String,
    /// Its full name, for messages: `caches.valkey`.
    pub(super) path: String,
    pub(super) span: Range<usize>,
    value: DeValue<'i>,
}

impl<'i> Document<'i> {
    /// Parses the text and substitutes `${NAME}` in all strings.
    pub(super) fn parse(text: &'i str, environment: Environment<'_>) -> Result<Self, Fault> {
        let root = DeTable::parse(text)
            .map_err(|error| Fault::at(error.span().unwrap_or_default(), error.message().to_owned()))?;
        let mut root = root.into_inner();
        for (_, value) in root.iter_mut() {
            substitute_all(value, environment)?;
        }
        Ok(Self { root })
    }

    /// Removes a string from the root.
    pub(super) fn take_string(&mut self, key: &str) -> Result<Option<(String, Range<usize>)>, Fault> {
        let Some(value) = self.root.remove(key) else { return Ok(None) };
        let span = value.span();
        match value.into_inner() {
            DeValue::String(text) => Ok(Some((text.into_owned(), span))),
            _ => Err(Fault::at(span, format!("`{key}`: must be a string"))),
        }
    }

    /// Removes a table from the root.
    pub(super) fn take_section(&mut self, key: &str) -> Result<Option<Section<'i>>, Fault> {
        self.root.remove(key).map(|value| Section::new(key.to_owned(), key.to_owned(), value)).transpose()
    }

    /// Removes a table of tables from the root: all `[key.*]`.
    pub(super) fn take_sections(&mut self, key: &str) -> Result<Vec<Section<'i>>, Fault> {
        let Some(section) = self.take_section(key)? else { return Ok(Vec::new()) };
        let DeValue::Table(tables) = section.value else { return Ok(Vec::new()) };
        tables
            .into_iter()
            .map(|(name, value)| {
                let name = name.into_inner().into_owned();
                let path = format!("{key}.{name}");
                Section::new(name, path, value)
            })
            .collect()
    }

    /// Refuses unknown keys in the root.
    pub(super) fn check_keys(&self, known: &[&str]) -> Result<(), Fault> {
        match self.root.keys().find(|key| !known.contains(&key.get_ref().as_ref())) {
            None => Ok(()),
            Some(key) => {
                let (name, list) = (key.get_ref().as_ref(), known.join("`, `"));
                let meant = did_you_mean(name, known.iter().copied());
                let message = format!("unknown key `{name}`, expected one of `{list}`{meant}");
                Err(Fault::at(key.span(), message))
            }
        }
    }
}

impl<'i> Section<'i> {
    fn new(name: String, path: String, value: Spanned<DeValue<'i>>) -> Result<Self, Fault> {
        let span = value.span();
        match value.into_inner() {
            value @ DeValue::Table(_) => Ok(Self { name, path, span, value }),
            _ => Err(Fault::at(span, format!("`{path}`: must be a table"))),
        }
    }

    /// Removes a required string.
    pub(super) fn take_string(&mut self, key: &str) -> Result<(String, Range<usize>), Fault> {
        let path = &self.path;
        let DeValue::Table(table) = &mut self.value else {
            return Err(Fault::at(self.span.clone(), format!("`{path}`: must be a table")));
        };
        match table.remove(key).map(|value| (value.span(), value.into_inner())) {
            Some((span, DeValue::String(text))) => Ok((text.into_owned(), span)),
            Some((span, _)) => Err(Fault::at(span, format!("`{path}.{key}`: must be a string"))),
            None => Err(Fault::at(self.span.clone(), format!("`{path}.{key}` is missing"))),
        }
    }

    /// Deserializes the table.
    pub(super) fn read<T: DeserializeOwned>(&self) -> Result<T, Fault> {
        let value = Spanned::new(self.span.clone(), self.value.clone());
        serde_path_to_error::deserialize(ValueDeserializer::from(value)).map_err(|error| {
            let path = match error.path().to_string().as_str() {
                "." | "" => self.path.clone(),
                key => format!("{}.{key}", self.path),
            };
            let inner = error.into_inner();
            let message = in_words_of_toml(inner.message());
            Fault::at(inner.span().unwrap_or(self.span.clone()), format!("`{path}`: {message}"))
        })
    }

    /// The error for a key that violates a rule, at the position of the key, or of the section if the key is absent. A
    /// key of an inner table is written `table.key`.
    pub(super) fn fault(&self, key: &str, rule: &str) -> Fault {
        let mut written = self.span.clone();
        let mut value = &self.value;
        for part in key.split('.') {
            let DeValue::Table(table) = value else { break };
            let Some(found) = table.get(part) else { break };
            (written, value) = (found.span(), found.get_ref());
        }
        Fault::at(written, format!("`{}.{key}`: {rule}", self.path))
    }
}

/// A message of the deserializer in the words of TOML. A value of the wrong type is left out: it may be a secret from the
/// environment.
fn in_words_of_toml(message: &str) -> String {
    if let Some((_, found)) = message.split_once("invalid type: ")
        && let Some((found, expected)) = found.rsplit_once(", expected ")
    {
        return of_another_type(found, expected);
    }
    if let Some(unknown) = message.strip_prefix("unknown field ") {
        return format!("unknown key {unknown}{}", meant(unknown));
    }
    match message.strip_prefix("unknown variant ") {
        Some(unknown) => format!("{message}{}", meant(unknown)),
        None => message.to_owned(),
    }
}

/// What is wrong with a value of the type `found`, a type of the deserializer followed by the value.
fn of_another_type(found: &str, expected: &str) -> String {
    let kind = found.split(['"', '`']).next().unwrap_or_default().trim_end();
    let kind = match kind {
        "sequence" => "list",
        "map" => "table",
        "floating point" => "fraction",
        kind => kind,
    };
    match expected {
        "i64" if kind == "string" => "must be a number without quotes".to_owned(),
        "i64" => format!("must be a whole number, but is a {kind}"),
        "a boolean" if kind == "string" => "must be `true` or `false` without quotes".to_owned(),
        "a boolean" => format!("must be `true` or `false`, but is a {kind}"),
        "a string" | "path string" => format!("must be a string in quotes, but is a {kind}"),
        "a sequence" => format!("must be a list such as [\"a\", \"b\"], but is a {kind}"),
        "a map" => format!("must be a table such as {{ KEY = \"value\" }}, but is a {kind}"),
        "string or table" => format!("must be a string in quotes, but is a {kind}"),
        expected if expected.starts_with("struct ") => format!("must be a table, but is a {kind}"),
        expected => format!("must be {expected}, but is a {kind}"),
    }
    .replace("a integer", "an integer")
}

/// The end of the message about an unknown name: the known one that was meant. `unknown` is the rest of the deserializer's
/// message, in which all names are in back quotes and the first one is the unknown one.
fn meant(unknown: &str) -> String {
    let mut names = unknown.split('`').skip(1).step_by(2);
    names.next().map(|name| did_you_mean(name, names)).unwrap_or_default()
}

/// Substitutes `${NAME}` in the strings of a value. `$${` is an escaped `${`.
fn substitute_all(value: &mut Spanned<DeValue<'_>>, environment: Environment<'_>) -> Result<(), Fault> {
    let span = value.span();
    match value.get_mut() {
        DeValue::String(text) => {
            if text.contains("${") {
                *text = substitute(text, environment).map_err(|message| Fault::at(span, message))?.into();
            }
            Ok(())
        }
        DeValue::Array(array) => array.iter_mut().try_for_each(|item| substitute_all(item, environment)),
        DeValue::Table(table) => table.iter_mut().try_for_each(|(_, item)| substitute_all(item, environment)),
        _ => Ok(()),
    }
}

fn substitute(text: &str, environment: Environment<'_>) -> Result<String, String> {
    let mut filled = String::with_capacity(text.len());
    let mut rest = text;
    while let Some((before, after)) = rest.split_once("${") {
        if let Some(before) = before.strip_suffix('$') {
            filled.push_str(before);
            filled.push_str("${");
            rest = after;
            continue;
        }
        filled.push_str(before);
        let Some((name, after)) = after.split_once('}') else {
            return Err("`${` is not closed by a `}`; write `$${` for a literal `${`".to_owned());
        };
        match environment(name) {
            Some(value) => filled.push_str(&value),
            None => return Err(format!("the environment variable `{name}` is not set")),
        }
        rest = after;
    }
    filled.push_str(rest);
    Ok(filled)
}

/// The message about a name that is none of `names`, such as `` there is no cache `a`, only `b` ``.
pub(super) fn no_such<'a>(what: &str, name: &str, names: impl Iterator<Item = &'a String> + Clone) -> String {
    let meant = did_you_mean(name, names.clone().map(String::as_str));
    format!("there is no {what} `{name}`, only {}{meant}", quoted_list(names))
}

/// Formats names for a message: `` `a`, `b` ``.
pub(super) fn quoted_list<'a>(names: impl Iterator<Item = &'a String>) -> String {
    names.map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ")
}
