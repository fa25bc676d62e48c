//! `env` of `[plugins.*]`.

use super::{parse_with, refusal};

#[test]
fn a_plugin_is_given_the_variables_of_its_table() {
    let text = "[plugins.shop]\nenv = { A = \"1\", KEY = \"${API_KEY}\", EMPTY = \"\" }\n";
    let config = parse_with(text, &[("API_KEY", "s3cret")]).unwrap();
    let env = &config.grant("shop").env;
    assert_eq!(env.iter().collect::<Vec<_>>(), [("A", "1"), ("EMPTY", ""), ("KEY", "s3cret")]);
    assert_eq!(config.grant("other").env.iter().count(), 0);
    let shown = format!("{config:?}");
    assert!(shown.contains("KEY") && !shown.contains("s3cret"), "{shown}");
}

#[test]
fn what_is_no_variable_is_refused() {
    for env in ["{ \"\" = \"1\" }", "{ \"A=B\" = \"1\" }", "{ \"A\\u0000\" = \"1\" }", "{ A = \"s3cret\\u0000\" }"] {
        let refused = refusal(&format!("[plugins.shop]\nenv = {env}\n"));
        let rule = "the name of a variable must not be empty or hold a `=`, and neither it nor the value a NUL";
        assert!(refused.starts_with("larder.toml:2:") && refused.contains(rule), "{env}: {refused}");
        assert!(refused.contains("plugins.shop.env") && !refused.contains("s3cret"), "{refused}");
    }
    let refused = refusal("[plugins.shop]\nenv = { A = 1 }\n");
    assert!(refused.contains("plugins.shop.env.A"), "{refused}");
}
