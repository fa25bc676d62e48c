//! Reads settings through all versions of `wasi:config`, and those with its earlier name `runtime`: `get KEY` and `get-all`
//! print a line for each of them.

#![allow(missing_docs, unsafe_code, reason = "the generated bindings are undocumented and use raw pointers")]

mod draft {
    wit_bindgen::generate!({
        path: "../../../host/runtime/foreign-wit/config-draft",
        world: "imports",
        generate_all,
    });
}

mod dated {
    wit_bindgen::generate!({
        path: "../../../host/runtime/foreign-wit/config-draft-2024-09-27",
        world: "imports",
        generate_all,
    });
}

mod candidate {
    wit_bindgen::generate!({
        path: "../../../host/runtime/foreign-wit/config-rc1",
        world: "imports",
        generate_all,
    });
}

macro_rules! read {
    ($words:expr, $($($store:ident)::+),+) => {
        [$({
            use $($store)::+ as store;
            match $words {
                ["get", key] => match store::get(key).expect("settings have no errors") {
                    Some(value) => format!("`{value}`"),
                    None => "none".to_owned(),
                },
                ["get-all"] => {
                    let settings = store::get_all().expect("settings have no errors");
                    settings.into_iter().map(|(key, value)| format!("{key}=`{value}`")).collect::<Vec<_>>().join(" ")
                }
                words => panic!("unknown operation: {words:?}"),
            }
        }),+]
    };
}

fn main() {
    larder_test_foreign::execute_arguments(|words| {
        let read = read!(
            words,
            draft::wasi::config::store,
            dated::wasi::config::store,
            candidate::wasi::config::store,
            draft::wasi::config::runtime,
            dated::wasi::config::runtime
        );
        Ok(read.join("\n"))
    });
}
