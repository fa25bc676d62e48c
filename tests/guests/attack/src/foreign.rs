//! The calls of `wasi:keyvalue`, forged handles included.

use crate::Bytes;
use crate::wasi::keyvalue::atomics::{self, Cas, CasError};
use crate::wasi::keyvalue::batch;
use crate::wasi::keyvalue::store::{self, Bucket, Error};

/// What the plugin holds, and how many calls succeeded and failed.
#[derive(Default)]
pub(crate) struct Foreign {
    buckets: Vec<Bucket>,
    handles: Vec<Cas>,
    pub(crate) results: u32,
    pub(crate) errors: u32,
}

impl Foreign {
    fn count<T>(&mut self, outcome: Result<T, Error>) -> Option<T> {
        match outcome {
            Ok(value) => {
                self.results += 1;
                Some(value)
            }
            Err(error) => {
                if let Error::Other(text) = error {
                    assert!(text.len() < 200, "{text}");
                }
                self.errors += 1;
                None
            }
        }
    }

    pub(crate) fn step(&mut self, bytes: &mut Bytes) {
        let call = bytes.next() % 20;
        if call == 0 || self.buckets.is_empty() {
            let outcome = store::open(if call == 1 { "nowhere" } else { "" });
            let opened = self.count(outcome);
            self.buckets.extend(opened);
            return;
        }
        let chosen = usize::from(bytes.next()) % self.buckets.len();
        let bucket = &self.buckets[chosen];
        match call {
            1 | 2 => {
                let outcome = bucket.get(&bytes.text());
                self.count(outcome);
            }
            3 | 4 => {
                let outcome = bucket.set(&bytes.text(), &bytes.value());
                self.count(outcome);
            }
            5 => {
                let outcome = bucket.delete(&bytes.text());
                self.count(outcome);
            }
            6 => {
                let outcome = bucket.exists(&bytes.text());
                self.count(outcome);
            }
            7 => {
                let cursor = if bytes.next() < 128 { None } else { Some(bytes.number().to_string()) };
                let outcome = bucket.list_keys(cursor.as_deref());
                self.count(outcome);
            }
            8 => {
                let outcome = bucket.list_keys(Some(&bytes.text()));
                self.count(outcome);
            }
            9 | 10 => {
                let outcome = atomics::increment(bucket, &bytes.text(), bytes.number() as i64);
                self.count(outcome);
            }
            11 => {
                let outcome = batch::get_many(bucket, &bytes.many(Bytes::text));
                self.count(outcome);
            }
            12 => {
                let outcome = batch::set_many(bucket, &bytes.many(|bytes| (bytes.text(), bytes.value())));
                self.count(outcome);
            }
            13 => {
                let outcome = batch::delete_many(bucket, &bytes.many(Bytes::text));
                self.count(outcome);
            }
            14 | 15 => {
                let outcome = Cas::new(bucket, &bytes.text());
                let handle = self.count(outcome);
                self.handles.extend(handle);
            }
            16 => {
                if let Some(handle) = self.handles.last() {
                    let outcome = handle.current();
                    self.count(outcome);
                }
            }
            17 => {
                let Some(handle) = self.handles.pop() else { return };
                match atomics::swap(handle, &bytes.value()) {
                    Ok(()) => self.results += 1,
                    Err(CasError::StoreError(error)) => {
                        self.count::<()>(Err(error));
                    }
                    Err(CasError::CasFailed(next)) => self.handles.push(next),
                }
            }
            18 => drop(self.buckets.swap_remove(chosen)),
            // Forged handles, of which using one traps.
            _ => match bytes.next() % 64 {
                0 => drop(unsafe { Bucket::from_handle(bytes.next().into()) }),
                1 => {
                    let forged = unsafe { Cas::from_handle(bytes.next().into()) };
                    let _lost = atomics::swap(forged, &bytes.value());
                }
                _ => drop(self.handles.pop()),
            },
        }
    }
}
