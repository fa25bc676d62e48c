//! Keys, namespaces and selections. Only these constructors make them, so a backend never gets an invalid one.

use std::borrow::Borrow;
use std::fmt;
use std::sync::Arc;

use arrayvec::ArrayString;

use crate::error::CacheError;
use crate::glob::{self, Pattern};
use crate::text::check_text;

/// Separates a namespace from the key after it: the ASCII unit separator, a control character that no key contains.
const SEPARATOR: char = '\u{1f}';

/// A validated key, prefixed with the namespace of its plugin. The prefix of a server cache is not part of it.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Key(Box<str>);

/// A borrowed [`Key`], for look-ups that allocate nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct KeyRef<'a>(&'a str);

impl<'a> KeyRef<'a> {
    /// A key that a server named, without the prefix of the cache. It may be no key of a plugin; it is only looked up.
    pub(crate) fn from_server(key: &'a str) -> Self {
        Self(key)
    }

    /// The text of the key, including its namespace.
    pub fn as_str(self) -> &'a str {
        self.0
    }

    /// The namespace of the key.
    pub(crate) fn namespace(self) -> Option<&'a str> {
        self.0.split_once(SEPARATOR).map(|(namespace, _)| namespace)
    }

    /// An owned copy of the key.
    pub fn to_key(self) -> Key {
        Key(self.0.into())
    }
}

/// A map of keys can be searched by the text of a [`KeyRef`], because both have the same hash.
impl Borrow<str> for Key {
    fn borrow(&self) -> &str {
        &self.0
    }
}

impl Key {
    /// The maximum length of a plugin's key in bytes, without the namespace.
    pub const MAX_LENGTH: usize = 1024;

    /// Checks a plugin's key and prefixes it with the namespace.
    ///
    /// # Errors
    ///
    /// [`CacheError::InvalidArgument`] for a key that is empty, is longer than [`Key::MAX_LENGTH`] bytes, or contains a
    /// control character.
    pub fn new(namespace: Option<&Namespace>, key: &str) -> Result<Self, CacheError> {
        Self::with_limit(Self::MAX_LENGTH, namespace, key)
    }

    /// As [`Key::new`], with a maximum length of `max` bytes.
    pub(crate) fn with_limit(max: usize, namespace: Option<&Namespace>, key: &str) -> Result<Self, CacheError> {
        Self::look_up(max, namespace, key, |key| key.to_key())
    }

    /// As [`Key::with_limit`], but builds the key on the stack and calls `look` with it.
    pub(crate) fn look_up<T>(
        max: usize,
        namespace: Option<&Namespace>,
        key: &str,
        look: impl FnOnce(KeyRef<'_>) -> T,
    ) -> Result<T, CacheError> {
        check_text("key", key, max.min(Self::MAX_LENGTH))?;
        let Some(Namespace(namespace)) = namespace else { return Ok(look(KeyRef(key))) };
        let mut full = ArrayString::<{ Namespace::MAX_LENGTH + SEPARATOR.len_utf8() + Self::MAX_LENGTH }>::new();
        let fits =
            full.try_push_str(namespace).is_ok() && full.try_push(SEPARATOR).is_ok() && full.try_push_str(key).is_ok();
        // Each part is within its limit, so this always fits; a truncated key would be another key.
        if fits { Ok(look(KeyRef(&full))) } else { Err(CacheError::InvalidArgument("key: is too long".to_owned())) }
    }

    /// The key under which the lease on refreshing this key is held. No plugin can name it: it is in the empty namespace.
    /// In a cluster it may be on another node than the key itself.
    pub(crate) fn of_refresh(&self) -> Self {
        Self(format!("{SEPARATOR}refresh{SEPARATOR}{}", self.0).into())
    }

    /// True for a key of [`Key::of_refresh`].
    pub(crate) fn is_of_refresh(&self) -> bool {
        self.0.starts_with(SEPARATOR)
    }

    /// A borrowed form of the key.
    pub fn as_ref(&self) -> KeyRef<'_> {
        KeyRef(&self.0)
    }

    /// The text of the key, including its namespace.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0, f)
    }
}

/// The prefix that separates a plugin's keys from those of others, as configured by the operator. Cheap to clone.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Namespace(Arc<str>);

impl fmt::Display for Namespace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Borrow<str> for Namespace {
    fn borrow(&self) -> &str {
        &self.0
    }
}

impl Namespace {
    /// The maximum length of a namespace in bytes.
    pub const MAX_LENGTH: usize = 64;

    /// Checks a namespace.
    ///
    /// # Errors
    ///
    /// [`CacheError::InvalidArgument`] for a namespace that is empty, is longer than [`Namespace::MAX_LENGTH`] bytes,
    /// or contains a control character.
    pub fn new(namespace: &str) -> Result<Self, CacheError> {
        check_text("namespace", namespace, Self::MAX_LENGTH)?;
        Ok(Self(namespace.into()))
    }
}

/// The keys that a `clear-pattern` or `clear-all` applies to: those of one key space that match a glob.
#[derive(Debug, Clone)]
pub struct Selection {
    namespace: Option<Namespace>,
    pattern: Pattern,
}

impl Selection {
    /// The number of keys to match before yielding to other tasks. With the slowest pattern, the longest key takes
    /// about a millisecond.
    pub(crate) const KEYS_PER_TURN: usize = 32;

    /// The items whose keys are selected. Yields to other tasks in between.
    pub(crate) async fn select<T>(&self, items: Vec<T>, key: impl Fn(&T) -> &Key) -> Vec<T> {
        let mut selected = Vec::new();
        for (index, item) in items.into_iter().enumerate() {
            if index % Self::KEYS_PER_TURN == Self::KEYS_PER_TURN - 1 {
                tokio::task::yield_now().await;
            }
            if self.matches(key(&item)) {
                selected.push(item);
            }
        }
        selected
    }

    /// Selects the keys of a key space that match a plugin's pattern as a whole.
    ///
    /// # Errors
    ///
    /// As [`Pattern::new`].
    pub fn matching(namespace: Option<Namespace>, pattern: &str) -> Result<Self, CacheError> {
        Ok(Self { namespace, pattern: Pattern::new(pattern)? })
    }

    /// Selects the keys of a key space that begin with a text.
    ///
    /// # Errors
    ///
    /// [`CacheError::InvalidArgument`] for a text that no key begins with: one that is longer than
    /// [`Key::MAX_LENGTH`] bytes, or contains a control character.
    pub fn beginning_with(namespace: Option<Namespace>, prefix: &str) -> Result<Self, CacheError> {
        if !prefix.is_empty() {
            check_text("prefix", prefix, Key::MAX_LENGTH)?;
        }
        Ok(Self { namespace, pattern: Pattern::beginning_with(prefix) })
    }

    /// Selects all keys of a key space.
    pub fn all(namespace: Option<Namespace>) -> Self {
        Self { namespace, pattern: Pattern::any() }
    }

    /// True if all keys of the key space are selected, by [`Selection::all`] or by a pattern of `*` alone.
    pub(crate) fn is_all(&self) -> bool {
        self.pattern.as_str() == "*"
    }

    /// The namespace of the key space.
    pub(crate) fn namespace(&self) -> Option<&str> {
        self.namespace.as_ref().map(Borrow::borrow)
    }

    /// True if the key is selected.
    pub fn matches(&self, key: &Key) -> bool {
        self.name_of(key.as_str()).is_some()
    }

    /// The plugin's name of a selected key, which is given with its namespace. `None` for a key that is not selected.
    pub(crate) fn name_of<'a>(&self, key: &'a str) -> Option<&'a str> {
        let own = match &self.namespace {
            None if key.contains(SEPARATOR) => None,
            None => Some(key),
            Some(namespace) => key.strip_prefix(&*namespace.0).and_then(|rest| rest.strip_prefix(SEPARATOR)),
        };
        own.filter(|own| self.pattern.matches(own.as_bytes()))
    }

    /// As [`Selection::name_of`], for a key that a server named, without the prefix of the cache. `None` also for a key of
    /// another program that no plugin can name.
    pub(crate) fn name_from_server<'a>(&self, key: &'a [u8]) -> Option<&'a str> {
        let name = self.name_of(std::str::from_utf8(key).ok()?)?;
        check_text("key", name, Key::MAX_LENGTH).ok().map(|()| name)
    }

    /// The glob for a server's keys under `prefix`. It may also match keys of other key spaces;
    /// [`Selection::owns`] excludes them.
    pub fn server_glob(&self, prefix: &str) -> String {
        let mut glob = glob::escape(prefix);
        if let Some(namespace) = &self.namespace {
            glob.push_str(&glob::escape(&namespace.0));
            glob.push(SEPARATOR);
        }
        glob.push_str(self.pattern.as_str());
        glob
    }

    /// True if a key that the server matched with [`Selection::server_glob`], given without the prefix, belongs to this
    /// key space. A glob with a namespace matches only its keys; one without also matches the keys of all namespaces.
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
    fn a_key_contains_no_control_characters() {
        for bad in ["\0", "a\u{1f}b", "\n", "\u{7f}"] {
            assert_eq!(Key::new(None, bad).unwrap_err().to_string(), "key: must not hold control characters");
        }
        assert!(Key::new(None, "käse und öl \u{1f9c0}").is_ok());
    }

    #[test]
    fn a_selection_without_a_namespace_excludes_all_namespaces() {
        let all = Selection::all(None);
        assert!(all.matches(&Key::new(None, "user:1").unwrap()));
        assert!(!all.matches(&Key::new(namespace("shop").as_ref(), "user:1").unwrap()));
        assert!(all.owns(b"user:1"));
        assert!(!all.owns(b"shop\x1fuser:1"));
    }

    #[test]
    fn a_selection_with_a_namespace_selects_only_its_keys() {
        let selection = Selection::matching(namespace("shop"), "user:*").unwrap();
        assert!(selection.matches(&Key::new(namespace("shop").as_ref(), "user:1").unwrap()));
        assert!(!selection.matches(&Key::new(namespace("shop").as_ref(), "post:1").unwrap()));
        assert!(!selection.matches(&Key::new(namespace("shop2").as_ref(), "user:1").unwrap()));
        assert!(!selection.matches(&Key::new(None, "user:1").unwrap()));
    }

    #[test]
    fn a_prefix_selects_the_keys_of_its_key_space_that_begin_with_it() {
        let selection = Selection::beginning_with(namespace("shop"), "user*").unwrap();
        for (key, is_selected) in [("user*", true), ("user*:1", true), ("user:1", false), ("a user*", false)] {
            assert_eq!(selection.matches(&Key::new(namespace("shop").as_ref(), key).unwrap()), is_selected, "{key}");
            assert!(!selection.matches(&Key::new(None, key).unwrap()), "{key}");
        }
        assert_eq!(selection.server_glob("cache:"), "cache:shop\u{1f}user\\**");
        assert!(Selection::beginning_with(None, "").unwrap().is_all());
        assert!(Selection::beginning_with(None, &"k".repeat(1024)).is_ok());
        for bad in ["\n", &"k".repeat(1025)] {
            assert!(matches!(Selection::beginning_with(None, bad), Err(CacheError::InvalidArgument(_))));
        }
    }

    #[test]
    fn a_key_that_a_server_named_has_a_name_only_if_a_plugin_can_write_it() {
        let all = Selection::all(namespace("shop"));
        assert_eq!(all.name_from_server(b"shop\x1fuser:1"), Some("user:1"));
        let long = [b"shop\x1f", &[b'k'; 1025][..]].concat();
        for other in [&b"user:1"[..], b"shop\x1f", b"shop\x1f\xff", b"shop\x1fa\nb", b"shop2\x1fuser:1", &long] {
            assert_eq!(all.name_from_server(other), None, "{other:?}");
        }
        assert_eq!(Selection::all(None).name_from_server(b"\x1frefresh\x1fk"), None);
        assert_eq!(Selection::matching(None, "a*").unwrap().name_from_server(b"b"), None);
    }

    #[test]
    fn prefix_and_namespace_are_escaped_in_the_server_glob() {
        let selection = Selection::matching(namespace("a*b"), "user:?").unwrap();
        assert_eq!(selection.server_glob("[x]:"), "\\[x\\]:a\\*b\u{1f}user:?");
    }
}
