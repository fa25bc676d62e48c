//! The operations of compare-and-swap.

use std::cell::RefCell;

use larder_test_foreign::{number, show, value};

use crate::keyvalue::wasmcloud::keyvalue::cas::{self, CasOptions, CasResult, Entry};
use crate::keyvalue::wasmcloud::keyvalue::types::{Bucket, Error};

/// Shows an entry, and remembers its version.
fn look(seen: &RefCell<Option<String>>, entry: Option<Entry>) -> String {
    let (value, version) = entry.map(|entry| (entry.value, entry.version)).unzip();
    *seen.borrow_mut() = version;
    show(value)
}

pub(crate) async fn execute(
    bucket: &Bucket,
    seen: &RefCell<Option<String>>,
    words: &[&str],
) -> Result<Option<String>, Error> {
    let required = |version: Option<&str>, value: Option<&str>| CasOptions {
        require_version: version.map(str::to_owned),
        require_value: value.map(larder_test_foreign::value),
    };
    let version = seen.borrow().clone();
    let (key, new, options) = match words {
        ["current", key] => {
            let found = cas::current(bucket, (*key).to_owned()).await?;
            return Ok(Some(look(seen, found)));
        }
        // The version that was seen last.
        ["swap", key, new] => (key, new, required(version.as_deref(), None)),
        ["swap-if", key, new, old] => (key, new, required(None, Some(old))),
        ["swap-both", key, new, old] => (key, new, required(version.as_deref(), Some(old))),
        ["swap-of", key, new, version] => (key, new, required(Some(version), None)),
        ["swaps", key, times] => return swaps(bucket, key, number(times)).await.map(Some),
        _ => return Ok(None),
    };
    let swapped = cas::swap(bucket, (*key).to_owned(), value(new), options).await?;
    Ok(Some(match swapped {
        CasResult::Swapped => "swapped".to_owned(),
        CasResult::Stale(entry) => format!("stale {}", look(seen, entry)),
    }))
}

/// Adds 1 to a number by compare-and-swap until it is stored, this many times.
async fn swaps(bucket: &Bucket, key: &str, times: usize) -> Result<String, Error> {
    for _ in 0..times {
        let mut current = cas::current(bucket, key.to_owned()).await?;
        while let Some(Entry { value, version }) = current {
            let number: u64 = number(std::str::from_utf8(&value).expect("digits"));
            let options = CasOptions { require_version: Some(version), require_value: None };
            let next = (number + 1).to_string().into_bytes();
            current = match cas::swap(bucket, key.to_owned(), next, options).await? {
                CasResult::Swapped => break,
                CasResult::Stale(entry) => entry,
            };
        }
    }
    Ok("ok".to_owned())
}
