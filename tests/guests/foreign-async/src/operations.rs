//! The operations of buckets, counters and batches.

use std::cell::Cell;
use std::rc::Rc;

use futures_util::future::{join, join_all};
use larder_test_foreign::{number, show, value};
use wasip3::clocks::monotonic_clock::wait_for;

use crate::keyvalue::wasmcloud::keyvalue::types::{Bucket, Error, SetOptions};
use crate::keyvalue::wasmcloud::keyvalue::{atomics, batch};

/// All keys with a prefix in their order, and the number of pages.
async fn list(bucket: &Bucket, prefix: Option<&str>) -> Result<(Vec<String>, usize), Error> {
    let (mut keys, mut pages, mut cursor) = (Vec::new(), 0, None);
    loop {
        let mut page = bucket.list_keys(prefix.map(str::to_owned), cursor).await?;
        keys.append(&mut page.keys);
        pages += 1;
        if page.cursor.is_none() {
            keys.sort();
            keys.dedup();
            return Ok((keys, pages));
        }
        cursor = page.cursor;
    }
}

async fn set(bucket: &Bucket, key: &str, word: &str, options: Option<SetOptions>) -> Result<String, Error> {
    bucket.set(key.to_owned(), value(word), options).await.map(|()| "ok".to_owned())
}

fn owned(words: &[&str]) -> Vec<String> {
    words.iter().map(|word| (*word).to_owned()).collect()
}

pub(crate) async fn execute(bucket: &Rc<Bucket>, words: &[&str]) -> Result<String, Error> {
    let ok = |()| "ok".to_owned();
    Ok(match words {
        ["get", key] => show(bucket.get((*key).to_owned()).await?),
        ["set", key, value] => set(bucket, key, value, None).await?,
        // Options that ask for nothing.
        ["set-plain", key, value] => {
            set(bucket, key, value, Some(SetOptions { ttl_ms: None, if_not_exists: false })).await?
        }
        ["set-for", key, value, ms] => {
            set(bucket, key, value, Some(SetOptions { ttl_ms: Some(number(ms)), if_not_exists: false })).await?
        }
        ["set-new", key, value] => {
            set(bucket, key, value, Some(SetOptions { ttl_ms: None, if_not_exists: true })).await?
        }
        ["set-new-for", key, value, ms] => {
            set(bucket, key, value, Some(SetOptions { ttl_ms: Some(number(ms)), if_not_exists: true })).await?
        }
        ["wait", ms] => {
            wait_for(number::<u64>(ms) * 1_000_000).await;
            "ok".to_owned()
        }
        ["await"] => {
            larder_test_foreign::wait_for_line("waiting");
            "went on".to_owned()
        }
        // Stores a value under each of this many keys that no one has stored before.
        ["claims", prefix, count] => {
            let mut won = 0_usize;
            for nth in 0..number::<usize>(count) {
                let options = SetOptions { ttl_ms: None, if_not_exists: true };
                match bucket.set(format!("{prefix}{nth}"), b"mine".to_vec(), Some(options)).await {
                    Ok(()) => won += 1,
                    Err(Error::PreconditionFailed) => {}
                    Err(error) => return Err(error),
                }
            }
            format!("{won} won")
        }
        ["delete", key] => bucket.delete((*key).to_owned()).await.map(ok)?,
        ["exists", key] => bucket.exists((*key).to_owned()).await?.to_string(),
        ["list"] => list(bucket, None).await?.0.join(" "),
        ["list", prefix] => list(bucket, Some(prefix)).await?.0.join(" "),
        ["list-from", cursor] => bucket.list_keys(None, Some((*cursor).to_owned())).await?.keys.len().to_string(),
        ["count", prefix @ ..] => {
            let (keys, pages) = list(bucket, prefix.first().copied()).await?;
            format!("{} keys, more than one page: {}", keys.len(), pages > 1)
        }
        ["fill", count, prefix @ ..] => {
            let prefix = prefix.first().unwrap_or(&"key");
            let keys: Vec<usize> = (0..number(count)).collect();
            for keys in keys.chunks(1000) {
                let entries = keys.iter().map(|nth| (format!("{prefix}{nth}"), b"v".to_vec())).collect();
                batch::set_many(bucket, entries).await?;
            }
            "ok".to_owned()
        }
        ["increment", key, delta] => atomics::increment(bucket, (*key).to_owned(), number(delta)).await?.to_string(),
        ["increments", key, times] => {
            for _ in 0..number(times) {
                atomics::increment(bucket, (*key).to_owned(), 1).await?;
            }
            "ok".to_owned()
        }
        ["get-many", keys @ ..] => {
            let found = batch::get_many(bucket, owned(keys)).await?;
            let pair = |pair: Option<(String, Vec<u8>)>| match pair {
                Some((key, value)) => format!("{key}={}", show(Some(value))),
                None => "none".to_owned(),
            };
            found.into_iter().map(pair).collect::<Vec<_>>().join(" ")
        }
        ["get-many-of", key, times] => {
            let keys = vec![(*key).to_owned(); number(times)];
            batch::get_many(bucket, keys).await?.len().to_string()
        }
        ["set-many", entries @ ..] => {
            let entries = entries.chunks(2).map(|entry| (entry[0].to_owned(), value(entry[1]))).collect();
            batch::set_many(bucket, entries).await.map(ok)?
        }
        ["delete-many", keys @ ..] => batch::delete_many(bucket, owned(keys)).await.map(ok)?,
        // This many gets of a key at the same time.
        ["gets", key, count] => {
            let gets = (0..number(count)).map(|_| bucket.get((*key).to_owned()));
            let found: Result<Vec<_>, Error> = join_all(gets).await.into_iter().collect();
            format!("{} hits", found?.into_iter().flatten().count())
        }
        // This many values of a size at the same time.
        ["sets", count, size] => {
            let sets = (0..number::<usize>(count))
                .map(|nth| bucket.set(format!("large{nth}"), vec![b'x'; number(size)], None));
            let stored: Result<Vec<()>, Error> = join_all(sets).await.into_iter().collect();
            format!("{} stored", stored?.len())
        }
        // How a call ends, and whether the instance has waited for a clock ten times meanwhile.
        ["beside", key] => {
            let is_over = Cell::new(false);
            let call = async {
                let found = bucket.get((*key).to_owned()).await;
                is_over.set(true);
                found
            };
            let ticks = async {
                let mut ticks = 0_u32;
                while !is_over.get() && ticks < 10_000 {
                    wait_for(1_000_000).await;
                    ticks += 1;
                }
                ticks
            };
            let (found, ticks) = join(call, ticks).await;
            format!("{}, others went on: {}", found.map_or_else(crate::text, show), ticks >= 10)
        }
        words => panic!("unknown operation: {words:?}"),
    })
}
