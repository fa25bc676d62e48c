//! Executes operations of `wasmcloud:keyvalue@0.2.0` as a command of WASI 0.3. `open IDENTIFIER` opens a bucket, which the
//! operations after it use; `hold-buckets N` opens the default bucket again and again.

#![allow(missing_docs, unsafe_code, reason = "the generated exports are undocumented and use raw pointers")]

mod operations;
mod swaps;

use std::cell::RefCell;
use std::rc::Rc;

use wasip3::cli::environment;

mod keyvalue {
    wit_bindgen::generate!({
        path: "../../../host/runtime/foreign-wit/keyvalue-wasmcloud",
        world: "imports",
        generate_all,
    });
}

use keyvalue::wasmcloud::keyvalue::store;
use keyvalue::wasmcloud::keyvalue::types::Error;

struct Command;

wasip3::cli::command::export!(Command);

impl wasip3::exports::cli::run::Guest for Command {
    async fn run() -> Result<(), ()> {
        let mut bucket = None;
        // The version that the last look at a key has shown.
        let seen = RefCell::default();
        for operation in environment::get_arguments().into_iter().skip(1) {
            let words: Vec<&str> = operation.split(' ').collect();
            let done = match words.as_slice() {
                ["open", name @ ..] => match store::open(name.join(" ")).await {
                    Ok(opened) => {
                        bucket = Some(Rc::new(opened));
                        Ok("ok".to_owned())
                    }
                    Err(error) => Err(error),
                },
                ["hold-buckets", count] => hold(larder_test_foreign::number(count)).await,
                words => {
                    if bucket.is_none() {
                        bucket = Some(Rc::new(store::open(String::new()).await.expect("the default bucket opens")));
                    }
                    let bucket = bucket.as_ref().expect("a bucket is open");
                    match swaps::execute(bucket, &seen, words).await {
                        Ok(Some(done)) => Ok(done),
                        Ok(None) => operations::execute(bucket, words).await,
                        Err(error) => Err(error),
                    }
                }
            };
            println!("{}", done.unwrap_or_else(|error| format!("error: {}", text(error))));
        }
        Ok(())
    }
}

async fn hold(count: usize) -> Result<String, Error> {
    let mut held = Vec::new();
    for _ in 0..count {
        held.push(store::open(String::new()).await?);
    }
    Ok(format!("{} held", held.len()))
}

fn text(error: Error) -> String {
    match error {
        Error::NoSuchStore => "no-such-store".to_owned(),
        Error::AccessDenied => "access-denied".to_owned(),
        Error::InvalidArgument => "invalid-argument".to_owned(),
        Error::PreconditionFailed => "precondition-failed".to_owned(),
        Error::Timeout => "timeout".to_owned(),
        Error::StoreUnavailable => "store-unavailable".to_owned(),
        Error::QuotaExceeded => "quota-exceeded".to_owned(),
        Error::Other(text) => format!("other: {text}"),
    }
}
