//! `wasi:config`, from the plugin's `config`.

use larder_tests::Larder;

fn run(config: &str, operations: &[&str]) -> String {
    let larder =
        operations.iter().fold(Larder::run("settings").config(config), |larder, operation| larder.arg(operation));
    larder.env("TOKEN", "s3cret").succeed().stdout
}

#[test]
fn settings_are_those_of_the_plugins_table_in_every_version() {
    let config = "[plugins.settings]\nconfig = { region = \"eu\", token = \"${TOKEN}\", \"a key\" = \"\" }\n\
                  [plugins.other]\nconfig = { region = \"us\" }\n";
    assert_eq!(run(config, &["get region"]), "`eu`\n".repeat(3));
    assert_eq!(run(config, &["get token"]), "`s3cret`\n".repeat(3));
    assert_eq!(run(config, &["get missing"]), "none\n".repeat(3));
    assert_eq!(run(config, &["get-all"]), "a key=`` region=`eu` token=`s3cret`\n".repeat(3));
}

#[test]
fn a_plugin_without_settings_gets_none() {
    assert_eq!(
        run("[plugins.other]\nconfig = { region = \"us\" }\n", &["get region", "get-all"]),
        "none\n".repeat(3) + "\n\n\n"
    );
    assert_eq!(run("", &["get-all"]), "\n\n\n");
}

#[test]
fn a_setting_that_is_no_text_is_an_error_with_its_position() {
    for value in ["5", "true", "[\"a\"]", "{ b = \"c\" }"] {
        let config = format!("[plugins.settings]\nconfig = {{ a = {value} }}\n");
        let run = Larder::run("settings").config(&config).arg("get-all").fail(2);
        assert!(run.error_line().contains("larder.toml:2") && run.error_line().contains("config"), "{run:#?}");
    }
    let run = Larder::run("settings").config("[plugins.settings]\nconfig = { a = \"${NOT_SET}\" }\n").fail(2);
    assert!(run.error_line().contains("NOT_SET"), "{run:#?}");
}
