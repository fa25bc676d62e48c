//! A plugin without a `main`. It exports functions at its root and in interfaces, for `larder run --invoke`.

#![allow(missing_docs, unsafe_code, reason = "the generated exports are undocumented and use raw pointers")]

use exports::test::exports::counters;
use exports::test::exports::same::{self, Color, Point, Rights, Shape};

wit_bindgen::generate!({
    inline: "
        package test:exports;

        interface counters {
            /// Counts a visit in the default cache, and returns the number of visits.
            visit: func(name: string) -> result<u64, string>;
        }

        /// Functions that return their argument.
        interface same {
            enum color { red, dark-green }
            flags rights { read, write, %own }
            variant shape { dot, circle(f64), named(string) }
            record point { x: s64, y: option<u8>, %list: list<shape> }

            same-texts: func(values: list<string>) -> list<string>;
            same-numbers: func(value: tuple<u8, s8, u16, s16, u32, s32, u64, s64, f32, f64>)
                -> tuple<u8, s8, u16, s16, u32, s32, u64, s64, f32, f64>;
            same-words: func(value: tuple<bool, char, color, rights>) -> tuple<bool, char, color, rights>;
            same-point: func(value: option<point>) -> option<point>;
            same-outcomes: func(values: list<result<option<string>, shape>>) -> list<result<option<string>, shape>>;
        }

        world plugin {
            export greet: func(name: string) -> string;
            export half: func(n: u32) -> result<u32, string>;
            export nothing: func();
            export leave: func();
            export counters;
            export same;
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

type Numbers = (u8, i8, u16, i16, u32, i32, u64, i64, f32, f64);
type Words = (bool, char, Color, Rights);
type Outcome = Result<Option<String>, Shape>;

impl same::Guest for Plugin {
    fn same_texts(values: Vec<String>) -> Vec<String> {
        values
    }

    fn same_numbers(value: Numbers) -> Numbers {
        value
    }

    fn same_words(value: Words) -> Words {
        value
    }

    fn same_point(value: Option<Point>) -> Option<Point> {
        value
    }

    fn same_outcomes(values: Vec<Outcome>) -> Vec<Outcome> {
        values
    }
}

export!(Plugin);
