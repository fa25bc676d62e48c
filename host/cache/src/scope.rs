//! What a plugin's view adds to a cache: the namespace, the access and the limits of one plugin instance.

use std::sync::Arc;

use crate::answer_limit::AnswerLimit;
use crate::error::CacheError;
use crate::get_or_set::in_flight::Owner;
use crate::glob::Pattern;
use crate::key::{Key, KeyRef, Namespace, Selection};
use crate::text::check_text;
use crate::value::Value;

/// What a plugin may do with the caches that it is granted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Access {
    /// All calls.
    #[default]
    ReadWrite,
    /// Calls that only read.
    ReadOnly,
}

/// The limits on the arguments of one call. A call over a limit is refused and has no effect. To change some limits,
/// assign to the fields of [`Limits::default`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Limits {
    /// The maximum length of a key in bytes. Defaults to [`Key::MAX_LENGTH`]; a greater limit has no effect.
    pub max_key_bytes: usize,
    /// The maximum length of a pattern in bytes. Defaults to [`Pattern::MAX_LENGTH`]; a greater limit has no effect.
    pub max_pattern_bytes: usize,
    /// The maximum number of keys in one batch. Defaults to 1,024.
    pub max_batch: usize,
    /// The maximum total length of the keys and values of one batch, in bytes. Defaults to 8 MiB.
    pub max_batch_bytes: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            max_key_bytes: Key::MAX_LENGTH,
            max_pattern_bytes: Pattern::MAX_LENGTH,
            max_batch: 1024,
            max_batch_bytes: 8 << 20,
        }
    }
}

impl Limits {
    /// Checks a batch by the number of its keys or entries and the bytes of each.
    fn check_batch(&self, argument: &str, bytes: impl ExactSizeIterator<Item = usize>) -> Result<(), CacheError> {
        let (len, max) = (bytes.len(), self.max_batch);
        if len > max {
            return Err(CacheError::InvalidArgument(format!("{argument}: must not be more than {max}, but are {len}")));
        }
        let (bytes, max) = (bytes.fold(0, usize::saturating_add), self.max_batch_bytes);
        if bytes > max {
            let rule = format!("{argument}: must not be over {max} bytes, but are {bytes}");
            return Err(CacheError::InvalidArgument(rule));
        }
        Ok(())
    }
}

/// The scope of one plugin instance. It makes checked and namespaced arguments out of the plugin's own, for the calls
/// with a future and for the fast path.
#[derive(Debug, Clone)]
pub(crate) struct Scope {
    pub(crate) namespace: Option<Namespace>,
    pub(crate) access: Access,
    pub(crate) owner: Owner,
    pub(crate) limits: Limits,
    /// The limit on the answers of an instance with concurrent calls.
    pub(crate) answers: Option<Arc<AnswerLimit>>,
}

impl Scope {
    /// Refuses a call that needs write access, under a read-only grant.
    pub(crate) fn check_write(&self) -> Result<(), CacheError> {
        match self.access {
            Access::ReadWrite => Ok(()),
            Access::ReadOnly => Err(CacheError::ReadOnly),
        }
    }

    /// The key for a call that may only read.
    pub(crate) fn key(&self, key: &str) -> Result<Key, CacheError> {
        Key::with_limit(self.limits.max_key_bytes, self.namespace.as_ref(), key)
    }

    /// The key for a call that needs write access.
    pub(crate) fn key_to_write(&self, key: &str) -> Result<Key, CacheError> {
        self.check_write()?;
        self.key(key)
    }

    /// Calls `look` with the key, which is built on the stack.
    pub(crate) fn look_up<T>(&self, key: &str, look: impl FnOnce(KeyRef<'_>) -> T) -> Result<T, CacheError> {
        Key::look_up(self.limits.max_key_bytes, self.namespace.as_ref(), key, look)
    }

    /// Checks the limits on a batch of keys.
    pub(crate) fn check_keys(&self, keys: &[impl AsRef<str>]) -> Result<(), CacheError> {
        self.limits.check_batch("keys", keys.iter().map(|key| key.as_ref().len()))
    }

    /// The keys of a batch.
    pub(crate) fn keys(&self, keys: &[impl AsRef<str>]) -> Result<Vec<Key>, CacheError> {
        self.check_keys(keys)?;
        keys.iter().map(|key| self.key(key.as_ref())).collect()
    }

    /// The keys of a batch that is to be cleared.
    pub(crate) fn keys_to_write(&self, keys: &[impl AsRef<str>]) -> Result<Vec<Key>, CacheError> {
        self.check_write()?;
        self.keys(keys)
    }

    /// All keys of the key space, to be listed.
    pub(crate) fn space(&self) -> Selection {
        Selection::all(self.namespace.clone())
    }

    /// The keys of the key space that begin with a text, to be listed.
    pub(crate) fn beginning_with(&self, prefix: &str) -> Result<Selection, CacheError> {
        Selection::beginning_with(self.namespace.clone(), prefix)
    }

    /// The entries of a batch that is to be stored.
    pub(crate) fn entries<V: Value>(&self, entries: Vec<(impl AsRef<str>, V)>) -> Result<Vec<(Key, V)>, CacheError> {
        self.check_write()?;
        let bytes = entries.iter().map(|(key, value)| key.as_ref().len().saturating_add(value.as_ref().len()));
        self.limits.check_batch("entries", bytes)?;
        entries.into_iter().map(|(key, value)| Ok((self.key(key.as_ref())?, value))).collect()
    }

    /// The keys of the key space that match a pattern, to be cleared.
    pub(crate) fn matching(&self, pattern: &str) -> Result<Selection, CacheError> {
        self.check_write()?;
        self.selected(pattern)
    }

    /// The keys of the key space that match a pattern, to be listed.
    pub(crate) fn selected(&self, pattern: &str) -> Result<Selection, CacheError> {
        check_text("pattern", pattern, self.limits.max_pattern_bytes.min(Pattern::MAX_LENGTH))?;
        Selection::matching(self.namespace.clone(), pattern)
    }

    /// All keys of the key space, to be cleared.
    pub(crate) fn all(&self) -> Result<Selection, CacheError> {
        self.check_write()?;
        Ok(Selection::all(self.namespace.clone()))
    }
}
