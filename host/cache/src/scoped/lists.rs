//! The calls that list the keys of a plugin's view of a cache.

use std::collections::BTreeSet;

use super::ScopedCache;
use crate::backend::{KeyPage, ListCursor};
use crate::error::CacheError;
use crate::key::Selection;
use crate::policy::Policy;

/// The number of keys on a page of a list that is collected.
const KEYS_OF_A_PAGE: usize = 16_384;

impl ScopedCache {
    /// As [`ScopedCache::list_keys`], for the keys that match a glob.
    ///
    /// # Errors
    ///
    /// As [`ScopedCache::list_keys`]; [`CacheError::InvalidArgument`] for an invalid pattern, or one over
    /// [`Limits::max_pattern_bytes`](crate::Limits::max_pattern_bytes).
    pub async fn list_matching_keys(&self, pattern: &str, cursor: Option<ListCursor>) -> Result<KeyPage, CacheError> {
        let list = async {
            let selection = self.scope.selected(pattern)?;
            let _reserved = self.cache.reserve(self.answers(), Policy::max_reply).await;
            self.cache.list_keys(&selection, cursor, self.scope.limits.max_batch).await
        };
        self.metrics().list_keys.call(list).await
    }

    /// Returns a page of the names of the keys of this key space, in no particular order: the first page, or the one at a
    /// cursor that an earlier page returned. A page has about [`Limits::max_batch`](crate::Limits::max_batch) names and about
    /// 1 MiB at most. It may be empty although more pages follow.
    ///
    /// # Errors
    ///
    /// In an outage as [`ScopedCache`] describes, but never an empty page instead of an error.
    /// [`CacheError::InvalidArgument`] for a cursor that is not valid any more.
    pub async fn list_keys(&self, cursor: Option<ListCursor>) -> Result<KeyPage, CacheError> {
        self.list_selected(Ok(self.scope.space()), cursor).await
    }

    /// As [`ScopedCache::list_keys`], of the keys that begin with a text. A cursor goes with the text of its list.
    ///
    /// # Errors
    ///
    /// As [`ScopedCache::list_keys`]; [`CacheError::InvalidArgument`] for a text that no key can begin with.
    pub async fn list_keys_with_prefix(&self, prefix: &str, cursor: Option<ListCursor>) -> Result<KeyPage, CacheError> {
        self.list_selected(self.scope.beginning_with(prefix), cursor).await
    }

    async fn list_selected(
        &self,
        selection: Result<Selection, CacheError>,
        cursor: Option<ListCursor>,
    ) -> Result<KeyPage, CacheError> {
        let list = async {
            let selection = selection?;
            let _reserved = self.cache.reserve(self.answers(), Policy::max_reply).await;
            self.cache.list_keys(&selection, cursor, self.scope.limits.max_batch).await
        };
        self.metrics().list_keys.call(list).await
    }

    /// Returns the names of all keys of this key space, in no particular order.
    ///
    /// # Errors
    ///
    /// As [`ScopedCache::list_keys`]; [`CacheError::InvalidArgument`] if the names, with [`KEY_OVERHEAD`](Self::KEY_OVERHEAD)
    /// bytes for each, exceed [`Limits::max_batch_bytes`](crate::Limits::max_batch_bytes).
    pub async fn list_all_keys(&self) -> Result<Vec<String>, CacheError> {
        let list = async {
            let space = self.scope.space();
            let _reserved = self.cache.reserve(self.answers(), Policy::max_reply).await;
            // A server may list a key twice.
            let (mut keys, mut bytes, mut cursor) = (BTreeSet::new(), 0_usize, None);
            loop {
                let page = self.cache.list_keys(&space, cursor, KEYS_OF_A_PAGE).await?;
                for key in page.keys {
                    let len = key.len().saturating_add(Self::KEY_OVERHEAD);
                    bytes = bytes.saturating_add(if keys.insert(key) { len } else { 0 });
                }
                let max = self.scope.limits.max_batch_bytes;
                if bytes > max {
                    let rule = format!("keys: there are too many to list at once: their names are over {max} bytes");
                    return Err(CacheError::InvalidArgument(rule));
                }
                match page.next {
                    Some(next) => cursor = Some(next),
                    None => return Ok(Vec::from_iter(keys)),
                }
            }
        };
        self.metrics().list_keys.call(list).await
    }
}
