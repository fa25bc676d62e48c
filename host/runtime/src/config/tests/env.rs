//! `env` of `[plugins.*]`.

use super::{parse_with, refusal};

#[test]
fn a_plugin_gets_the_variables_of_its_table() {
    let text = "[plugins.shop]\nenv = { A = \"1\", KEY = \"${API_KEY}\", EMPTY = \"\" }\n";
    let config = parse_with(text, &[("API_KEY", "s3cret")]).unwrap();
    let env = &config.grant("shop").env;
    assert_eq!(env.iter().collect::<Vec<_>>(), [("A", "1"), ("EMPTY", ""), ("KEY", "s3cret")]);
    assert_eq!(config.grant("other").env.iter().count(), 0);
    let shown = format!("{config:?}");
    assert!(shown.contains("KEY") && !shown.contains("s3cret"), "{shown}");
}

#[test]
fn an_invalid_variable_is_refused() {
    for env in ["{ \"\" = \"1\" }", "{ \"A=B\" = \"1\" }", "{ \"A\\u0000\" = \"1\" }", "{ A = \"s3cret\\u0000\" }"] {
        let refused = refusal(&format!("[plugins.shop]\nenv = {env}\n"));
        let rule =
            "the name of an environment variable must not be empty or contain `=` or NUL, and its value must not";
        assert!(refused.starts_with("larder.toml:2:") && refused.contains(rule), "{env}: {refused}");
        assert!(refused.contains("plugins.shop.env") && !refused.contains("s3cret"), "{refused}");
    }
}

#[test]
fn a_value_of_the_wrong_type_is_not_shown() {
    for (keys, path, rule) in [
        ("env = \"KEY=s3cret\"", "plugins.shop.env", "must be a table such as { KEY = \"value\" }, but is a string"),
        ("env = [\"s3cret\"]", "plugins.shop.env", "must be a table such as { KEY = \"value\" }, but is a list"),
        ("env = { PIN = 12345678 }", "plugins.shop.env", "must be a string in quotes, but is an integer"),
        ("env = { B = 12345678.5 }", "plugins.shop.env", "must be a string in quotes, but is a fraction"),
        (
            "outgoing_hosts = \"s3cret\"",
            "plugins.shop.outgoing_hosts",
            "must be a list such as [\"a\", \"b\"], but is a string",
        ),
        (
            "outgoing_hosts = \"s3cret\\\", expected \"",
            "plugins.shop.outgoing_hosts",
            "must be a list such as [\"a\", \"b\"], but is a string",
        ),
    ] {
        let refused = refusal(&format!("[plugins.shop]\n{keys}\n"));
        assert!(refused.contains(path) && refused.contains(rule), "{keys}: {refused}");
        assert!(!refused.contains("s3cret") && !refused.contains("12345678"), "{refused}");
    }
}
