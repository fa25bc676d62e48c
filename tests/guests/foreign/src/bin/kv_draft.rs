//! Executes operations of `wasi:keyvalue@0.2.0-draft`. `open IDENTIFIER` opens a bucket, which the operations after it use;
//! `hold-buckets N` opens the default bucket again and again.

#![allow(missing_docs, unsafe_code, reason = "the generated bindings are undocumented and use raw pointers")]

wit_bindgen::generate!({
    path: "../../../host/runtime/foreign-wit/keyvalue-draft",
    world: "imports",
    generate_all,
});

larder_test_foreign::keyvalue_operations!(wasi::keyvalue, u64, take, cursor, |pair: Option<(String, Vec<u8>)>| {
    match pair {
        Some((key, value)) => format!("{key}={}", larder_test_foreign::show(Some(value))),
        None => "none".to_owned(),
    }
});

fn cursor(text: &str) -> Option<u64> {
    Some(larder_test_foreign::number(text))
}

fn main() {
    let mut bucket = None;
    larder_test_foreign::execute_arguments(|words| match words {
        ["open"] => store::open("").map(|opened| bucket = Some(opened)).map(|()| "ok".to_owned()).map_err(text),
        ["open", name] => store::open(name).map(|opened| bucket = Some(opened)).map(|()| "ok".to_owned()).map_err(text),
        ["hold-buckets", count] => {
            let opened: Result<Vec<_>, _> =
                (0..larder_test_foreign::number::<usize>(count)).map(|_| store::open("")).collect();
            opened.map(|opened| format!("{} held", opened.len())).map_err(text)
        }
        words => {
            let bucket = bucket.get_or_insert_with(|| store::open("").expect("the default bucket opens"));
            execute(bucket, words).map_err(text)
        }
    });
}
