//! Keys, namespaces and selections: made here only, so that a backend never sees one that breaks a rule.

use std::borrow::Borrow;
use std::fmt;
use std::sync::Arc;

use arrayvec::ArrayString;

use crate::glob::{self, Pattern};
use crate::{CacheError, check_text};

/// What divides a namespace from the key behind it: the ASCII unit separator, which no plugin can write.
const SEPARATOR: char = '\u{1f}';

/// A validated key, with the namespace of the plugin it belongs to in front. The cache's prefix is not part of it.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Key(Box<str>);

/// A [`Key`] that is only looked at: valid as one, and borrowed from whoever asks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct KeyRef<'a>(&'a str);

impl<'a> KeyRef<'a> {
    /// The key as text, namespace included.
    pub fn as_str(self) -> &'a str {
        self.0
    }

    /// The namespace that it is in.
    pub(super) fn namespace(self) -> Option<&'a str> {
        self.0.split_once(SEPARATOR).map(|(namespace, _)| namespace)
    }

    /// The key to keep.
    pub fn to_key(self) -> Key {
        Key(self.0.into())
    }
}

/// A map of keys can be asked with a [`KeyRef`]'s text, as both hash alike.
impl Borrow<str> for Key {
    fn borrow(&self) -> &str {
        &self.0
    }
}

impl Key {
    /// The longest key a plugin may use, in bytes.
    pub const MAX_LENGTH: usize = 1024;

    /// Checks a plugin's key and puts it into its namespace.
    ///
    /// # Errors
    ///
    /// [`CacheError::InvalidArgument`] for a key that is empty, over [`Key::MAX_LENGTH`] bytes or holds a control
    /// character.
    pub fn new(namespace: Option<&Namespace>, key: &str) -> Result<Self, CacheError> {
        Self::within(Self::MAX_LENGTH, namespace, key)
    }

    /// As [`Key::new`], for a plugin whose keys are at most `max` bytes long.
    ///
    /// # Errors
    ///
    /// As [`Key::new`].
    pub(super) fn within(max: usize, namespace: Option<&Namespace>, key: &str) -> Result<Self, CacheError> {
        Self::look_up(max, namespace, key, |key| key.to_key())
    }

    /// As [`Key::within`], for a look-up, which allocates nothing.
    ///
    /// # Errors
    ///
    /// As [`Key::new`].
    pub(super) fn look_up<T>(
        max: usize,
        namespace: Option<&Namespace>,
        key: &str,
        look: impl FnOnce(KeyRef<'_>) -> T,
    ) -> Result<T, CacheError> {
        check_text("key", key, max.min(Self::MAX_LENGTH))?;
        let Some(Namespace(namespace)) = namespace else { return Ok(look(KeyRef(key))) };
        let mut whole = ArrayString::<{ Namespace::MAX_LENGTH + SEPARATOR.len_utf8() + Self::MAX_LENGTH }>::new();
        let fits = whole.try_push_str(namespace).is_ok()
            && whole.try_push(SEPARATOR).is_ok()
            && whole.try_push_str(key).is_ok();
        // Each part is checked, so it does; half a key would be another one.
        if fits { Ok(look(KeyRef(&whole))) } else { Err(CacheError::InvalidArgument("key: is too long".to_owned())) }
    }

    /// The key, only to look at.
    pub fn as_ref(&self) -> KeyRef<'_> {
        KeyRef(&self.0)
    }

    /// The key as text, namespace included.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0, f)
    }
}

/// A key space of its own, given to a plugin by the operator. Cheap to clone, as every call of a plugin does.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Namespace(Arc<str>);

impl Borrow<str> for Namespace {
    fn borrow(&self) -> &str {
        &self.0
    }
}

impl Namespace {
    /// The longest namespace, in bytes.
    pub const MAX_LENGTH: usize = 64;

    /// Checks a namespace.
    ///
    /// # Errors
    ///
    /// [`CacheError::InvalidArgument`] for one that is empty, over [`Namespace::MAX_LENGTH`] bytes or holds a control
    /// character.
    pub fn new(namespace: &str) -> Result<Self, CacheError> {
        check_text("namespace", namespace, Self::MAX_LENGTH)?;
        Ok(Self(namespace.into()))
    }
}

/// The keys that a `clear-pattern` or `clear-all` means: those of one key space that match a glob.
#[derive(Debug, Clone)]
pub struct Selection {
    namespace: Option<Namespace>,
    pattern: Pattern,
}

impl Selection {
    /// How many keys are matched before others have their turn. A pattern made to be slow takes about a millisecond for
    /// the longest key.
    pub(super) const MATCHED_AT_ONCE: usize = 32;

    /// Those of the items whose keys are selected. Others have their turn in between.
    pub(super) async fn pick<T>(&self, items: Vec<T>, key: impl Fn(&T) -> &Key) -> Vec<T> {
        let mut picked = Vec::new();
        for (looked_at, item) in items.into_iter().enumerate() {
            if looked_at % Self::MATCHED_AT_ONCE == Self::MATCHED_AT_ONCE - 1 {
                tokio::task::yield_now().await;
            }
            if self.matches(key(&item)) {
                picked.push(item);
            }
        }
        picked
    }

    /// The keys of a key space that match a plugin's pattern as a whole.
    ///
    /// # Errors
    ///
    /// [`CacheError::InvalidArgument`], as [`Pattern::new`].
    pub fn matching(namespace: Option<Namespace>, pattern: &str) -> Result<Self, CacheError> {
        Ok(Self { namespace, pattern: Pattern::new(pattern)? })
    }

    /// All keys of a key space.
    pub fn all(namespace: Option<Namespace>) -> Self {
        Self { namespace, pattern: Pattern::any() }
    }

    /// Whether all keys of the key space are selected, in whatever words.
    pub(super) fn is_all(&self) -> bool {
        self.pattern.as_str() == "*"
    }

    /// The namespace whose keys are meant.
    pub(super) fn namespace(&self) -> Option<&str> {
        self.namespace.as_ref().map(Borrow::borrow)
    }

    /// Whether this selection means the key.
    pub fn matches(&self, key: &Key) -> bool {
        let own = match &self.namespace {
            None if key.0.contains(SEPARATOR) => None,
            None => Some(key.as_str()),
            Some(namespace) => key.0.strip_prefix(&*namespace.0).and_then(|rest| rest.strip_prefix(SEPARATOR)),
        };
        own.is_some_and(|own| self.pattern.matches(own.as_bytes()))
    }

    /// The glob for a server's keys that stand under `prefix`. It may find keys of other key spaces;
    /// [`Selection::owns`] tells.
    pub fn server_glob(&self, prefix: &str) -> String {
        let mut glob = glob::escape(prefix);
        if let Some(namespace) = &self.namespace {
            glob.push_str(&glob::escape(&namespace.0));
            glob.push(SEPARATOR);
        }
        glob.push_str(self.pattern.as_str());
        glob
    }

    /// Whether a key the server found by [`Selection::server_glob`], given without the prefix, belongs to this key
    /// space.
    ///
    /// With a namespace the glob says so already. Without one it also finds what namespaces hold.
    pub fn owns(&self, key: &[u8]) -> bool {
        self.namespace.is_some() || !key.contains(&(SEPARATOR as u8))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn namespace(name: &str) -> Option<Namespace> {
        Some(Namespace::new(name).unwrap())
    }

    #[test]
    fn a_key_is_1_to_1024_bytes() {
        assert!(Key::new(None, "k").is_ok());
        assert!(Key::new(None, &"k".repeat(1024)).is_ok());
        assert_eq!(Key::new(None, "").unwrap_err().to_string(), "key: must not be empty");
        assert_eq!(
            Key::new(None, &"k".repeat(1025)).unwrap_err().to_string(),
            "key: must not be longer than 1024 bytes, but has 1025"
        );
    }

    #[test]
    fn a_key_holds_no_control_characters() {
        for bad in ["\0", "a\u{1f}b", "\n", "\u{7f}"] {
            assert_eq!(Key::new(None, bad).unwrap_err().to_string(), "key: must not hold control characters");
        }
        assert!(Key::new(None, "käse und öl \u{1f9c0}").is_ok());
    }

    #[test]
    fn a_selection_without_a_namespace_leaves_namespaces_alone() {
        let all = Selection::all(None);
        assert!(all.matches(&Key::new(None, "user:1").unwrap()));
        assert!(!all.matches(&Key::new(namespace("shop").as_ref(), "user:1").unwrap()));
        assert!(all.owns(b"user:1"));
        assert!(!all.owns(b"shop\x1fuser:1"));
    }

    #[test]
    fn a_selection_with_a_namespace_stays_inside() {
        let selection = Selection::matching(namespace("shop"), "user:*").unwrap();
        assert!(selection.matches(&Key::new(namespace("shop").as_ref(), "user:1").unwrap()));
        assert!(!selection.matches(&Key::new(namespace("shop").as_ref(), "post:1").unwrap()));
        assert!(!selection.matches(&Key::new(namespace("shop2").as_ref(), "user:1").unwrap()));
        assert!(!selection.matches(&Key::new(None, "user:1").unwrap()));
    }

    #[test]
    fn prefix_and_namespace_are_escaped_in_the_server_glob() {
        let selection = Selection::matching(namespace("a*b"), "user:?").unwrap();
        assert_eq!(selection.server_glob("[x]:"), "\\[x\\]:a\\*b\u{1f}user:?");
    }
}
