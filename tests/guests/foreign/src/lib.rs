//! What the plugins of this package have in common: they know nothing of Larder, import interfaces of other projects alone,
//! execute each argument as one operation, and print one line for each.

/// Executes each argument as the words of an operation, and prints what it returns.
pub fn execute_arguments(mut execute: impl FnMut(&[&str]) -> Result<String, String>) {
    for operation in std::env::args().skip(1) {
        let words: Vec<&str> = operation.split(' ').collect();
        println!("{}", execute(&words).unwrap_or_else(|error| format!("error: {error}")));
    }
}

/// `none`, or the text of a value; one of over 100 bytes is shown by its length.
pub fn show(value: Option<Vec<u8>>) -> String {
    match value {
        None => "none".to_owned(),
        Some(value) if value.len() > 100 => format!("{} bytes", value.len()),
        Some(value) => format!("`{}`", String::from_utf8_lossy(&value)),
    }
}

/// The text of an argument, in which `large:N` is N bytes.
pub fn value(word: &str) -> Vec<u8> {
    match word.strip_prefix("large:") {
        Some(len) => vec![b'x'; number(len)],
        None => word.into(),
    }
}

/// A number among the arguments.
///
/// # Panics
///
/// If the word is no number.
pub fn number<N: std::str::FromStr>(word: &str) -> N {
    word.parse().unwrap_or_else(|_| panic!("`{word}` is no number"))
}

/// Prints a line and waits for a line on standard input, so that a test can do something meanwhile.
pub fn wait_for_line(printed: &str) {
    println!("{printed}");
    std::io::stdin().read_line(&mut String::new()).expect("standard input is text");
}

/// Makes the function that executes an operation of `wasi:keyvalue`, whose bindings are in the module `$keyvalue`. The versions
/// differ in the types of numbers and cursors, which the method `$cursor` passes and `$from` makes of text, and in the shape of
/// what `get-many` returns, of which `$pair` makes text.
#[macro_export]
macro_rules! keyvalue_operations {
    ($($keyvalue:ident)::+, $number:ty, $cursor:ident, $from:expr, $pair:expr) => {
        use $($keyvalue)::+::{atomics, batch, store};

        fn text(error: store::Error) -> String {
            match error {
                store::Error::NoSuchStore => "no-such-store".to_owned(),
                store::Error::AccessDenied => "access-denied".to_owned(),
                store::Error::Other(text) => format!("other: {text}"),
            }
        }

        fn list(bucket: &store::Bucket) -> Result<(Vec<String>, usize), store::Error> {
            let mut page = bucket.list_keys(None)?;
            let (mut keys, mut pages) = (std::mem::take(&mut page.keys), 1);
            while page.cursor.is_some() {
                page = bucket.list_keys(page.cursor.$cursor())?;
                keys.append(&mut page.keys);
                pages += 1;
            }
            keys.sort();
            keys.dedup();
            Ok((keys, pages))
        }

        fn execute(bucket: &store::Bucket, words: &[&str]) -> Result<String, store::Error> {
            let owned = |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect::<Vec<String>>();
            Ok(match words {
                ["get", key] => $crate::show(bucket.get(key)?),
                ["set", key, value] => bucket.set(key, &$crate::value(value)).map(|()| "ok".to_owned())?,
                ["delete", key] => bucket.delete(key).map(|()| "ok".to_owned())?,
                ["exists", key] => bucket.exists(key)?.to_string(),
                ["list"] => list(bucket)?.0.join(" "),
                ["list-from", cursor] => bucket.list_keys($from(cursor))?.keys.len().to_string(),
                ["await"] => {
                    $crate::wait_for_line("waiting");
                    "went on".to_owned()
                }
                ["count"] => {
                    let (keys, pages) = list(bucket)?;
                    format!("{} keys, more than one page: {}", keys.len(), pages > 1)
                }
                ["fill", count] => {
                    let keys: Vec<usize> = (0..$crate::number(count)).collect();
                    for keys in keys.chunks(1000) {
                        let entries: Vec<_> = keys.iter().map(|nth| (format!("key{nth}"), b"v".to_vec())).collect();
                        batch::set_many(bucket, &entries)?;
                    }
                    "ok".to_owned()
                }
                ["increment", key, delta] => {
                    atomics::increment(bucket, key, $crate::number::<$number>(delta))?.to_string()
                }
                ["increments", key, times] => {
                    for _ in 0..$crate::number(times) {
                        atomics::increment(bucket, key, 1)?;
                    }
                    "ok".to_owned()
                }
                ["get-many", keys @ ..] => {
                    let found = batch::get_many(bucket, &owned(keys))?;
                    found.into_iter().map($pair).collect::<Vec<_>>().join(" ")
                }
                ["get-many-of", key, times] => {
                    let keys = vec![(*key).to_owned(); $crate::number(times)];
                    batch::get_many(bucket, &keys)?.len().to_string()
                }
                ["set-many", entries @ ..] => {
                    let entries: Vec<_> =
                        entries.chunks(2).map(|entry| (entry[0].to_owned(), $crate::value(entry[1]))).collect();
                    batch::set_many(bucket, &entries).map(|()| "ok".to_owned())?
                }
                ["delete-many", keys @ ..] => batch::delete_many(bucket, &owned(keys)).map(|()| "ok".to_owned())?,
                words => panic!("unknown operation: {words:?}"),
            })
        }
    };
}

/// Makes the function that executes an operation of compare-and-swap, after [`keyvalue_operations`].
#[macro_export]
macro_rules! swap_operations {
    () => {
        /// What became of a swap.
        fn swapped(outcome: Result<(), atomics::CasError>) -> Result<Result<(), atomics::Cas>, store::Error> {
            match outcome {
                Ok(()) => Ok(Ok(())),
                Err(atomics::CasError::CasFailed(next)) => Ok(Err(next)),
                Err(atomics::CasError::StoreError(error)) => Err(error),
            }
        }

        fn execute_swap(bucket: &store::Bucket, words: &[&str]) -> Result<Option<String>, store::Error> {
            Ok(Some(match words {
                // Sees the key, lets another writer change it, and swaps.
                ["swap", key, value] => {
                    let cas = atomics::Cas::new(bucket, key)?;
                    match swapped(atomics::swap(cas, &$crate::value(value)))? {
                        Ok(()) => "swapped".to_owned(),
                        Err(_) => "failed".to_owned(),
                    }
                }
                ["swap-after-set", key, other, value] => {
                    let cas = atomics::Cas::new(bucket, key)?;
                    let before = $crate::show(cas.current()?);
                    bucket.set(key, other.as_bytes())?;
                    match swapped(atomics::swap(cas, value.as_bytes()))? {
                        Ok(()) => format!("{before} swapped"),
                        Err(next) => {
                            let seen = $crate::show(next.current()?);
                            let again = swapped(atomics::swap(next, value.as_bytes()))?.is_ok();
                            format!("{before} failed, now {seen}, again {again}")
                        }
                    }
                }
                // Swaps, after seeing the key, while a line is awaited.
                ["swap-awaiting", key, value] => {
                    let cas = atomics::Cas::new(bucket, key)?;
                    $crate::wait_for_line("waiting");
                    format!("swapped {}", swapped(atomics::swap(cas, value.as_bytes()))?.is_ok())
                }
                // The key gets another value and then the old one again, by a call of the bucket or by swaps.
                ["swap-after-return", by, key, other, value] => {
                    let cas = atomics::Cas::new(bucket, key)?;
                    let old = cas.current()?.expect("a value");
                    for stored in [other.as_bytes(), &old] {
                        match *by {
                            "set" => bucket.set(key, stored)?,
                            "set-many" => batch::set_many(bucket, &[((*key).to_owned(), stored.to_vec())])?,
                            _ => {
                                let other = atomics::Cas::new(bucket, key)?;
                                assert!(swapped(atomics::swap(other, stored))?.is_ok(), "no one else writes");
                            }
                        }
                    }
                    format!("swapped {}", swapped(atomics::swap(cas, value.as_bytes()))?.is_ok())
                }
                ["swap-after-delete", key, value] => {
                    let cas = atomics::Cas::new(bucket, key)?;
                    bucket.delete(key)?;
                    format!("swapped {}", swapped(atomics::swap(cas, value.as_bytes()))?.is_ok())
                }
                ["hold-swaps", key, count] => {
                    let mut held = Vec::new();
                    for _ in 0..$crate::number(count) {
                        held.push(atomics::Cas::new(bucket, key)?);
                    }
                    format!("{} held", held.len())
                }
                // Adds 1 to a number by compare-and-swap until it is stored.
                ["swaps", key, times] => {
                    let mut failed = 0;
                    for _ in 0..$crate::number(times) {
                        let mut cas = atomics::Cas::new(bucket, key)?;
                        loop {
                            let current = cas.current()?.unwrap_or_else(|| b"0".to_vec());
                            let number: u64 = $crate::number(std::str::from_utf8(&current).expect("digits"));
                            match swapped(atomics::swap(cas, (number + 1).to_string().as_bytes()))? {
                                Ok(()) => break,
                                Err(next) => cas = next,
                            }
                            failed += 1;
                        }
                    }
                    eprintln!("{failed} swaps failed");
                    "ok".to_owned()
                }
                _ => return Ok(None),
            }))
        }
    };
}
