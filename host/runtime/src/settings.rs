//! The settings of a plugin.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use serde::Deserialize;

/// Settings of a plugin by key, which it reads through `wasi:config`. Cheap to clone. `Debug` does not show the values, which
/// may be secret.
#[derive(Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(from = "BTreeMap<String, String>")]
pub struct Settings(Arc<BTreeMap<String, String>>);

impl Settings {
    /// The value of a key; `None` if there is no such key.
    pub fn get(&self, key: &str) -> Option<&str> {
        self.0.get(key).map(String::as_str)
    }

    /// Keys and values, sorted by key.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.iter().map(|(key, value)| (key.as_str(), value.as_str()))
    }
}

impl From<BTreeMap<String, String>> for Settings {
    fn from(settings: BTreeMap<String, String>) -> Self {
        Self(Arc::new(settings))
    }
}

impl fmt::Debug for Settings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.0.keys()).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn debug_shows_no_value() {
        let settings = Settings::from(BTreeMap::from([("token".to_owned(), "s3cret".to_owned())]));
        assert_eq!(format!("{settings:?}"), r#"{"token"}"#);
        assert_eq!((settings.get("token"), settings.get("s3cret")), (Some("s3cret"), None));
        assert_eq!(settings.iter().collect::<Vec<_>>(), [("token", "s3cret")]);
    }
}
