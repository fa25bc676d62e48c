//! Executes operations of `wasi:keyvalue@0.2.0-draft2` in the shape of Spin. `open IDENTIFIER` opens a bucket, which the operations after it use;
//! `hold-buckets N` opens the default bucket again and again.

#![allow(missing_docs, unsafe_code, reason = "the generated bindings are undocumented and use raw pointers")]

wit_bindgen::generate!({
    path: "../../../host/runtime/foreign-wit/keyvalue-draft2-spin",
    world: "imports",
    generate_all,
});

larder_test_foreign::keyvalue_operations!(wasi::keyvalue, i64, as_deref, Some, |(key, value): (
    String,
    Option<Vec<u8>>
)| {
    format!("{key}={}", larder_test_foreign::show(value))
});
larder_test_foreign::swap_operations!();

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
            match execute_swap(bucket, words).map_err(text)? {
                Some(done) => Ok(done),
                None => execute(bucket, words).map_err(text),
            }
        }
    });
}
