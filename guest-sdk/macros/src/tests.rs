//! The messages of the attribute. `guest-sdk/tests/cached.rs` tests what it expands to.

use proc_macro2::TokenStream;

/// The message for an attribute on a function.
#[track_caller]
fn refused(options: &str, function: &str) -> String {
    match expand(options, function) {
        Ok(expanded) => panic!("{expanded}"),
        Err(error) => error.to_string(),
    }
}

fn expand(options: &str, function: &str) -> syn::Result<TokenStream> {
    crate::expand::cached(options.parse().unwrap(), function.parse().unwrap())
}

const MINUTE: &str = "duration = \"60s\"";
const LOAD: &str = "fn load(id: u32, client: Client) -> String { todo!() }";

#[test]
fn a_missing_duration_is_named() {
    let message = "`duration` is missing: write how long a value is fresh, as in `duration = \"60s\"`";
    assert_eq!(refused("", LOAD), message);
    assert_eq!(refused("stale = \"1h\"", LOAD), message);
}

#[test]
fn text_that_is_no_duration_is_refused_with_its_option() {
    for text in ["", "0s", "60", "s", "1.5h", "-1s", "1h 30", "1 h", "99999999999999999999s", "300000000000d", "1w"] {
        let rule = format!("{text:?} is not a duration: write it as \"500ms\", \"60s\", \"5m\", \"2h\" or \"1d\"");
        assert_eq!(refused(&format!("duration = {text:?}"), LOAD), format!("`duration`: {rule}"));
        assert_eq!(refused(&format!("{MINUTE}, stale = {text:?}"), LOAD), format!("`stale`: {rule}"));
    }
    assert_eq!(refused("duration = 60", LOAD), "`duration`: 60 has no unit: write it as \"60s\"");
}

#[test]
fn text_that_is_a_duration_is_read_when_the_plugin_is_compiled() {
    for (text, milliseconds) in [("500ms", 500), ("60s", 60_000), ("1h30m", 5_400_000), (" 1d  1ms ", 86_400_001)] {
        let expanded = expand(&format!("duration = {text:?}"), LOAD).unwrap().to_string();
        assert!(expanded.contains(&format!("Milliseconds ({milliseconds}u64)")), "{text}: {expanded}");
    }
}

#[test]
fn a_name_that_is_no_argument_is_refused_in_key_and_skip() {
    let message = "`name` in `key` is not an argument of `load`";
    assert_eq!(refused(&format!("{MINUTE}, key = \"user:{{id}}:{{name}}\""), LOAD), message);
    let message = "`name` in `skip` is not an argument of `load`";
    assert_eq!(refused(&format!("{MINUTE}, skip(client, name)"), LOAD), message);
    let message = "`a` in `key` is not an argument of `load`";
    assert_eq!(refused(&format!("{MINUTE}, key = \"{{a}}\""), "fn load((a, b): (u32, u32)) -> u32 { a }"), message);
}

#[test]
fn a_key_that_is_no_format_string_over_arguments_is_refused() {
    let key = |key: &str| refused(&format!("{MINUTE}, key = {key:?}"), LOAD);
    for positional in ["user:{}", "user:{0}", "user:{:>5}"] {
        assert_eq!(key(positional), "`key`: `{}` names no argument: write its name, as in `{id}`");
    }
    for single in ["user:{", "user:}", "{id", "}{id}"] {
        assert_eq!(key(single), "`key`: a single brace: write it twice, or name an argument as in `{id}`");
    }
    let message =
        "`key`: `user.id` is not the name of an argument; for anything else, write an expression: `key = format!(…)`";
    assert_eq!(key("{user.id}"), message);
    for allowed in ["user", "user:{id}", "{id:>5}", "{{id}}", "{client}{id}"] {
        expand(&format!("{MINUTE}, key = {allowed:?}"), LOAD).unwrap();
    }
}

#[test]
fn options_that_do_not_go_together_are_refused() {
    let message = "`skip` has no effect beside `key`: that names the arguments itself";
    assert_eq!(refused(&format!("{MINUTE}, key = \"{{id}}\", skip(client)"), LOAD), message);
    let message = "`on_error` needs `stale`: without it the caller gets the error";
    assert_eq!(refused(&format!("{MINUTE}, on_error = log"), LOAD), message);
    assert_eq!(refused(&format!("{MINUTE}, {MINUTE}"), LOAD), "`duration` is given twice");
    let message = "`seconds` is not an option: `cache`, `duration`, `stale`, `key`, `skip` and `on_error` are";
    assert_eq!(refused("seconds = 60", LOAD), message);
    assert_eq!(refused("60", LOAD), "expected one of `cache`, `duration`, `stale`, `key`, `skip` and `on_error`");
}

#[test]
fn an_argument_that_a_value_from_the_cache_cannot_change_is_refused_by_its_name() {
    let function = "fn load(id: u32, log: &mut Log) -> String { todo!() }";
    let message =
        "`log` is a `&mut` reference, which a value from the cache leaves as it is: add `skip(log)` or a `key`";
    assert_eq!(refused(MINUTE, function), message);
    expand(&format!("{MINUTE}, skip(log)"), function).unwrap();
    expand(&format!("{MINUTE}, key = \"{{id}}\""), function).unwrap();
}

#[test]
fn a_method_needs_a_key() {
    let method = "fn load(&self) -> String { todo!() }";
    let message = "`load` has `self`, so its values need a `key`, as in `key = format!(\"user:{}\", self.id)`";
    assert_eq!(refused(MINUTE, method), message);
    assert_eq!(refused(&format!("{MINUTE}, skip(self)"), method), message);
    expand(&format!("{MINUTE}, key = format!(\"{{}}\", self.0)"), method).unwrap();
}

#[test]
fn a_function_whose_value_cannot_be_stored_is_refused() {
    let message = "`load` returns nothing that could be cached";
    assert_eq!(refused(MINUTE, "fn load(id: u32) {}"), message);
    let message = "`load` returns a reference, but a value from the cache is owned";
    assert_eq!(refused(MINUTE, "fn load(id: &str) -> &str { id }"), message);
    let message = "`load` returns an `impl Trait`, but a value from the cache has a type with a name";
    assert_eq!(refused(MINUTE, "fn load(id: u32) -> impl Display { id }"), message);
    let message = "a `const fn` cannot be cached: it runs when the plugin is compiled";
    assert_eq!(refused(MINUTE, "const fn load(id: u32) -> u32 { id }"), message);
}

#[test]
fn anything_but_a_function_with_a_body_is_refused() {
    for item in ["struct Load;", "fn load() -> u32;", "static LOAD: u32 = 1;"] {
        assert_eq!(refused(MINUTE, item), "`#[cached]` belongs on a function with a body", "{item}");
    }
}
