//! `wasi:config`, from the plugin's `config`.

use larder_tests::Larder;

/// The versions that the plugin imports: three of `wasi:config/store`, and two of the earlier name `runtime`.
const VERSIONS: usize = 5;

fn run(config: &str, operations: &[&str]) -> String {
    let larder =
        operations.iter().fold(Larder::run("settings").config(config), |larder, operation| larder.arg(operation));
    larder.env("TOKEN", "s3cret").succeed().stdout
}

#[test]
fn settings_are_those_of_the_plugins_table_in_every_version() {
    let config = "[plugins.settings]\nconfig = { region = \"eu\", token = \"${TOKEN}\", \"a key\" = \"\" }\n\
                  [plugins.other]\nconfig = { region = \"us\" }\n";
    assert_eq!(run(config, &["get region"]), "`eu`\n".repeat(VERSIONS));
    assert_eq!(run(config, &["get token"]), "`s3cret`\n".repeat(VERSIONS));
    assert_eq!(run(config, &["get missing"]), "none\n".repeat(VERSIONS));
    assert_eq!(run(config, &["get-all"]), "a key=`` region=`eu` token=`s3cret`\n".repeat(VERSIONS));
}

#[test]
fn a_plugin_without_settings_gets_none() {
    assert_eq!(
        run("[plugins.other]\nconfig = { region = \"us\" }\n", &["get region", "get-all"]),
        "none\n".repeat(VERSIONS) + &"\n".repeat(VERSIONS)
    );
    assert_eq!(run("", &["get-all"]), "\n".repeat(VERSIONS));
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

#[test]
fn a_variable_of_the_environment_may_be_a_part_of_a_setting_and_can_be_escaped() {
    let config =
        "[plugins.settings]\nconfig = { url = \"https://${USER_NAME}:${TOKEN}@h/\", text = \"$${TOKEN} $TOKEN\" }\n";
    let read = |operation| {
        let larder = Larder::run("settings").config(config).env("TOKEN", "s3cret").env("USER_NAME", "ann");
        larder.arg(operation).succeed().stdout
    };
    assert_eq!(read("get url"), "`https://ann:s3cret@h/`\n".repeat(VERSIONS));
    assert_eq!(read("get text"), "`${TOKEN} $TOKEN`\n".repeat(VERSIONS));
}

#[test]
fn keys_and_values_may_have_any_characters_and_keys_are_told_apart_by_case() {
    let config =
        "[plugins.settings.config]\nRegion = \"1\"\nregion = \"2\"\n\"schlüssel mit ö\" = \"\"\"zwei\nZeilen\"\"\"\n";
    assert_eq!(run(config, &["get Region"]), "`1`\n".repeat(VERSIONS));
    assert_eq!(run(config, &["get region"]), "`2`\n".repeat(VERSIONS));
    assert_eq!(run(config, &["get REGION"]), "none\n".repeat(VERSIONS));
    assert!(run(config, &["get-all"]).contains("schlüssel mit ö=`zwei\nZeilen`"));
}

#[test]
fn a_plugin_is_found_by_its_name_and_not_by_its_file_alone() {
    let config = "[plugins.settings]\nconfig = { a = \"file\" }\n[plugins.named]\nconfig = { a = \"name\" }\n";
    let named = Larder::run_with(&["--name", "named"], "settings").config(config).arg("get a").succeed();
    assert_eq!(named.stdout, "`name`\n".repeat(VERSIONS));
    assert_eq!(run(config, &["get a"]), "`file`\n".repeat(VERSIONS));
}

#[test]
fn no_output_of_the_host_shows_a_setting() {
    let config = "[caches.ram]\ntype = \"ram\"\n[plugins.settings]\nconfig = { token = \"${TOKEN}\" }\n";
    for arguments in [&["check"][..], &["check", "--json"], &["run", "absent.wasm"]] {
        let mut larder = Larder::new(arguments).config(config).env("TOKEN", "s3cret");
        larder = larder.env("LARDER_LOG", "trace");
        let printed = larder.finish();
        assert!(!printed.stdout.contains("s3cret") && !printed.stderr.contains("s3cret"), "{printed:#?}");
    }
}
