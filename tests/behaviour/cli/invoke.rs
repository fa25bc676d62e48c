//! `larder run --invoke` calls one exported function.

use larder_tests::{Kind, Larder, Server};

fn invoke(call: &str) -> Larder {
    Larder::run_with(&["--invoke", call], "exports")
}

#[test]
fn the_result_is_printed_in_wave() {
    for (call, printed) in [
        ("greet(\"Ada\")", "\"hello, Ada\"\n"),
        ("greet(\"\\u{e9}\\n\")", "\"hello, é\\n\"\n"),
        ("half(4)", "ok(2)\n"),
        ("half(4294967294)", "ok(2147483647)\n"),
        ("nothing()", ""),
    ] {
        let run = invoke(call).succeed();
        assert_eq!((run.stdout.as_str(), run.stderr.as_str()), (printed, ""), "{call}");
    }
}

#[test]
fn an_error_result_is_printed_and_is_status_1() {
    let run = invoke("half(3)").fail(1);
    assert_eq!((run.stdout.as_str(), run.stderr.as_str()), ("err(\"3 is odd\")\n", ""));
}

#[test]
fn a_function_in_an_interface_is_found_by_its_name_and_has_the_caches() {
    assert_eq!(invoke("visit(\"page\")").succeed().stdout, "ok(1)\n");
    let Some(server) = Server::start(Kind::Valkey) else { return };
    for count in ["ok(1)\n", "ok(2)\n"] {
        assert_eq!(invoke("visit(\"page\")").config(&server.cache("c")).succeed().stdout, count);
    }
}

#[test]
fn a_missing_function_is_status_2_and_the_others_are_listed() {
    let run = invoke("great(\"Ada\")").fail(2);
    let expected = "larder: cannot invoke `great(\"Ada\")`: the plugin exports no such function, only ";
    let listed = run.error_line().strip_prefix(expected).unwrap_or_else(|| panic!("{}", run.stderr));
    for name in ["`greet`", "`half`", "`nothing`", "`leave`", "`test:exports/counters#visit`"] {
        assert!(listed.contains(name), "{listed}");
    }
}

#[test]
fn arguments_that_do_not_fit_are_status_2() {
    for call in [
        "greet(1)",
        "greet()",
        "greet(\"a\", \"b\")",
        "greet(\"a\"",
        "greet",
        "",
        "half(-1)",
        "half(4294967296)",
        "half(\"4\")",
        "nothing(1)",
    ] {
        let run = invoke(call).fail(2);
        assert!(run.error_line().starts_with(&format!("larder: cannot invoke `{call}`: ")), "{}", run.stderr);
        assert_eq!(run.stdout, "");
    }
}

/// A shell removes double quotes that are not in single ones, so this is what most first calls look like.
#[test]
fn a_string_without_quotes_is_answered_with_the_call_as_it_is_to_be_typed() {
    for (call, typed) in [
        ("greet(world)", r#"greet("world")"#),
        ("greet(Ada Lovelace)", r#"greet("Ada Lovelace")"#),
        ("greet(a, b)", r#"greet("a, b")"#),
        ("greet('Ada')", r#"greet("Ada")"#),
        ("greet(world", r#"greet("world")"#),
        ("greet(1)", r#"greet("1")"#),
        (r"greet(it's)", r#"greet("it'\''s")"#),
    ] {
        let run = invoke(call).fail(2);
        let expected = format!("quote its strings: type `--invoke '{typed}'`, with the single quotes for the shell");
        assert_eq!(run.error_line(), format!("larder: cannot invoke `{call}`: {expected}"));
    }
}

#[test]
fn another_mistake_is_answered_with_the_parameters_of_the_function() {
    for call in ["half(\"4\")", "half(-1)", "half()", "half"] {
        let run = invoke(call).fail(2);
        assert!(run.error_line().contains("; its function is `half("), "{run:#?}");
        assert!(run.error_line().ends_with(": u32)`"), "{run:#?}");
    }
    let run = invoke("great(\"Ada\")").fail(2);
    assert!(run.error_line().ends_with("; did you mean `greet`?"), "{run:#?}");
}

#[test]
fn a_function_that_exits_ends_the_program() {
    let run = invoke("leave()").fail(1);
    assert_eq!((run.stdout.as_str(), run.stderr.as_str()), ("", ""));
}
