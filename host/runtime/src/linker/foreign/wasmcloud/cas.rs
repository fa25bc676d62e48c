//! The interface `cas`: compare-and-swap on a version or a value, without a handle.

// Decision: docs/decisions/0096-a-version-of-a-key-is-its-digest-and-its-expiry.md

use std::sync::Arc;

use bytes::Bytes;
use wasmtime::component::Linker;

use super::super::super::interface::View;
use super::super::Import;
use super::super::bucket::Bucket;
use super::answer;
use super::types::{CasOptions, CasResult, Entry};
use crate::cache::{CacheError, Duration, ScopedCache, Version};

/// How often a swap that requires a value alone is tried while others store this same value anew.
const ATTEMPTS: usize = 8;

pub(in super::super) fn add<T: Send + 'static>(
    linker: &mut Linker<T>,
    import: &Import,
    view: View<T>,
) -> wasmtime::Result<()> {
    let mut interface = linker.instance(&import.name)?;
    interface.func_wrap_concurrent("current", move |accessor, (bucket, key): (Bucket, String)| {
        let len = key.len();
        let read = move |cache: Arc<ScopedCache>| async move { cache.read_version(&key).await };
        answer(accessor, view, bucket, len, read, |found| Ok(found.map(Entry::new)))
    })?;
    interface.func_wrap_concurrent(
        "swap",
        move |accessor, (bucket, key, value, options): (Bucket, String, Vec<u8>, CasOptions)| {
            let CasOptions { require_version, require_value } = options;
            let required = require_version.as_ref().map_or(0, String::len);
            let required = required.saturating_add(require_value.as_ref().map_or(0, Vec::len));
            let len = key.len().saturating_add(value.len()).saturating_add(required);
            let swap = move |cache: Arc<ScopedCache>| async move {
                let (version, required) = (require_version.as_deref(), require_value.as_deref());
                swap(&cache, &key, value.into(), version, required).await
            };
            answer(accessor, view, bucket, len, swap, Ok)
        },
    )
}

/// Stores a value if the key holds what is required. Otherwise returns what it holds.
async fn swap(
    cache: &ScopedCache,
    key: &str,
    value: Bytes,
    version: Option<&str>,
    required: Option<&[u8]>,
) -> Result<CasResult, CacheError> {
    cache.check_write()?;
    let store = async |version: &Version| cache.replace(key, Some(version), value.clone(), Duration::lasting()).await;
    match (version, required) {
        (None, None) => {
            let rule = "options: must require a version or a value".to_owned();
            return Err(CacheError::InvalidArgument(rule));
        }
        // The digest of the version says whether it is one of the required value. Another text is no version of any key.
        (Some(token), required) => {
            let version = Version::from_token(token);
            let version = version.filter(|version| required.is_none_or(|required| version.is_of(required)));
            if let Some(version) = version
                && store(&version).await?
            {
                return Ok(CasResult::Swapped);
            }
        }
        (None, Some(required)) => {
            for _ in 0..ATTEMPTS {
                match cache.read_version(key).await? {
                    Some((found, version)) if found == required => {
                        if store(&version).await? {
                            return Ok(CasResult::Swapped);
                        }
                    }
                    found => return Ok(CasResult::Stale(found.map(Entry::new))),
                }
            }
        }
    }
    Ok(CasResult::Stale(cache.read_version(key).await?.map(Entry::new)))
}
