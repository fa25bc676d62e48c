//! Mistakes of plugins and their grants that are logged as warnings, once for each plugin and kind.

use std::collections::HashSet;
use std::sync::{Mutex, PoisonError};

use crate::cache::{CacheError, OpenError};

/// The most that are remembered. Further ones are logged at the level `debug`.
const MAX_REMEMBERED: usize = 4096;

/// Which mistakes of which plugins were logged. The instances of a plugin share it, as each request may have a new one.
#[derive(Debug, Default)]
pub struct Mistakes(Mutex<HashSet<(String, Mistake)>>);

/// The kinds of mistakes. The plugin alone learns of them, by an error without a name or a reason.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Mistake {
    NoSuchCache,
    NotGranted,
    ReadOnly,
    ValueTooLarge,
    /// An argument that breaks a rule, or a limit that is reached, in an interface whose error does not say which.
    InvalidArgument,
    LimitReached,
}

impl Mistake {
    /// The mistake behind an error, if the plugin or its grant has to be corrected.
    pub(super) fn of(error: &CacheError) -> Option<Self> {
        match error {
            CacheError::ReadOnly => Some(Self::ReadOnly),
            CacheError::ValueTooLarge { .. } => Some(Self::ValueTooLarge),
            _ => None,
        }
    }
}

impl From<OpenError> for Mistake {
    fn from(error: OpenError) -> Self {
        match error {
            OpenError::NoSuchCache => Self::NoSuchCache,
            OpenError::NotGranted => Self::NotGranted,
        }
    }
}

impl Mistakes {
    /// True if the plugin has not made this mistake before.
    pub(super) fn is_first(&self, plugin: &str, mistake: Mistake) -> bool {
        let mut remembered = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        remembered.len() < MAX_REMEMBERED && remembered.insert((plugin.to_owned(), mistake))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_plugin_makes_each_mistake_for_the_first_time_once() {
        let mistakes = Mistakes::default();
        assert!(mistakes.is_first("a", Mistake::ReadOnly));
        assert!(!mistakes.is_first("a", Mistake::ReadOnly));
        assert!(mistakes.is_first("a", Mistake::NotGranted));
        assert!(mistakes.is_first("b", Mistake::ReadOnly));
    }
}
