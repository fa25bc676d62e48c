//! Executes operations of `fermyon:spin/key-value@2.0.0`, as a plugin for Spin does. `open LABEL` opens a store, which the
//! operations after it use.

#![allow(missing_docs, unsafe_code, reason = "the generated bindings are undocumented and use raw pointers")]

wit_bindgen::generate!({
    path: "../../../host/runtime/foreign-wit/spin-key-value",
    world: "imports",
    generate_all,
});

use fermyon::spin::key_value::{Error, Store};
use larder_test_foreign::{number, show, value};

fn text(error: Error) -> String {
    match error {
        Error::StoreTableFull => "store-table-full".to_owned(),
        Error::NoSuchStore => "no-such-store".to_owned(),
        Error::AccessDenied => "access-denied".to_owned(),
        Error::Other(text) => format!("other: {text}"),
    }
}

fn execute(store: &Store, words: &[&str]) -> Result<String, Error> {
    Ok(match words {
        ["get", key] => show(store.get(key)?),
        ["set", key, text] => store.set(key, &value(text)).map(|()| "ok".to_owned())?,
        ["delete", key] => store.delete(key).map(|()| "ok".to_owned())?,
        ["exists", key] => store.exists(key)?.to_string(),
        ["list"] => {
            let mut keys = store.get_keys()?;
            keys.sort();
            keys.join(" ")
        }
        ["count"] => format!("{} keys", store.get_keys()?.len()),
        ["fill", count] => {
            for nth in 0..number::<usize>(count) {
                store.set(&format!("key{nth}"), b"v")?;
            }
            "ok".to_owned()
        }
        words => panic!("unknown operation: {words:?}"),
    })
}

fn main() {
    let mut store = None;
    larder_test_foreign::execute_arguments(|words| match words {
        ["open", label] => {
            Store::open(label).map(|opened| store = Some(opened)).map(|()| "ok".to_owned()).map_err(text)
        }
        ["hold-buckets", count] => {
            let opened: Result<Vec<_>, _> = (0..number::<usize>(count)).map(|_| Store::open("default")).collect();
            opened.map(|opened| format!("{} held", opened.len())).map_err(text)
        }
        words => {
            let store = store.get_or_insert_with(|| Store::open("default").expect("the default store opens"));
            execute(store, words).map_err(text)
        }
    });
}
