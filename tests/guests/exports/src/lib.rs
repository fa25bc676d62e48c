//! A plugin without a `main`: functions at its root and in an interface, for `larder run --invoke`.

#![allow(missing_docs, unsafe_code, reason = "the generated exports are not documented, and call by raw pointer")]

use exports::test::exports::counters;

wit_bindgen::generate!({
    inline: "
        package test:exports;

        interface counters {
            /// Counts a visit in the default cache and answers how many there were.
            visit: func(name: string) -> result<u64, string>;
        }

        world plugin {
            export greet: func(name: string) -> string;
            export half: func(n: u32) -> result<u32, string>;
            export nothing: func();
            export leave: func();
            export counters;
        }
    ",
});

struct Plugin;

impl Guest for Plugin {
    fn greet(name: String) -> String {
        format!("hello, {name}")
    }

    fn half(n: u32) -> Result<u32, String> {
        if n.is_multiple_of(2) { Ok(n / 2) } else { Err(format!("{n} is odd")) }
    }

    fn nothing() {}

    fn leave() {
        std::process::exit(1)
    }
}

impl counters::Guest for Plugin {
    fn visit(name: String) -> Result<u64, String> {
        let count = || {
            let cache = larder::Cache::default()?;
            let visits = cache.get::<u64>(&name)?.unwrap_or(0).saturating_add(1);
            cache.set(&name, &visits)?;
            Ok(visits)
        };
        count().map_err(|error: larder::Error| error.to_string())
    }
}

export!(Plugin);
