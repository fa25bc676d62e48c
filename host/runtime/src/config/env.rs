//! The environment variables of a plugin.

use std::collections::BTreeMap;
use std::fmt;

use serde::Deserialize;

/// Environment variables of a plugin, by name. `Debug` does not show the values, which may be secret.
#[derive(Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(try_from = "BTreeMap<String, String>")]
pub struct Variables(BTreeMap<String, String>);

/// The error for an invalid environment variable, with its name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "`{}`: the name of an environment variable must not be empty or contain `=` or NUL, and its value must not contain \
     NUL",
    .0.escape_default()
)]
pub struct InvalidEnv(String);

impl Variables {
    /// Names and values, sorted by name.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.iter().map(|(name, value)| (name.as_str(), value.as_str()))
    }
}

impl TryFrom<BTreeMap<String, String>> for Variables {
    type Error = InvalidEnv;

    fn try_from(variables: BTreeMap<String, String>) -> Result<Self, InvalidEnv> {
        let is_invalid =
            |(name, value): &(&String, &String)| name.is_empty() || name.contains(['=', '\0']) || value.contains('\0');
        match variables.iter().find(is_invalid) {
            Some((name, _)) => Err(InvalidEnv(name.clone())),
            None => Ok(Self(variables)),
        }
    }
}

impl fmt::Debug for Variables {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.0.keys()).finish()
    }
}
