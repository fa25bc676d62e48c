//! docs/command-line.md has the commands and options of `larder --help`, and no others.

use std::collections::BTreeSet;

use larder_tests::Larder;
use larder_tests::repository::read;

/// The options of every command, which the page describes once.
const OF_ALL: [&str; 6] = ["--config", "--help", "--log-format", "--quiet", "--verbose", "--version"];

fn help(command: &[&str]) -> String {
    Larder::new(command.iter().chain(&["--help"])).succeed().stdout
}

/// The names under `Commands:`, without `help`.
fn commands(help: &str) -> Vec<String> {
    let Some((_, list)) = help.split_once("\nCommands:\n") else { return Vec::new() };
    let lines = list.lines().take_while(|line| !line.trim().is_empty()).filter(|line| line.starts_with("  "));
    let names = lines.filter(|line| !line.starts_with("    ")).filter_map(|line| line.split_whitespace().next());
    names.filter(|name| *name != "help").map(str::to_owned).collect()
}

/// The words that begin with `--`.
fn options(text: &str) -> BTreeSet<String> {
    let words = text.split(|letter: char| !(letter.is_ascii_alphanumeric() || letter == '-'));
    let is_option = |word: &&str| word.strip_prefix("--").is_some_and(|name| name.starts_with(char::is_alphabetic));
    words.filter(is_option).map(str::to_owned).collect()
}

/// The options that a help text lists, each at the beginning of a line.
fn listed(help: &str) -> BTreeSet<String> {
    let lines = help.lines().map(str::trim_start).filter(|line| line.starts_with('-'));
    let long = lines.filter_map(|line| line.split([' ', ',']).find(|word| word.starts_with("--")));
    long.map(|word| word.split(['=', '[', '.']).next().unwrap_or(word).to_owned()).collect()
}

/// The values that an option or argument can have.
fn values(help: &str) -> Vec<String> {
    let lists = help.split("[possible values: ").skip(1).filter_map(|rest| rest.split(']').next());
    lists.flat_map(|list| list.split(',').map(|value| value.trim().to_owned()).collect::<Vec<_>>()).collect()
}

/// What the page says of one command: its paragraph, or the section of `larder cache`.
fn described(page: &str, command: &str) -> String {
    if command == "cache" {
        let (_, section) = page.split_once("\n## larder cache\n").unwrap();
        return section.split("\n## ").next().unwrap().to_owned();
    }
    let is_it = |paragraph: &&str| paragraph.contains(&format!("**`larder {command}"));
    let found: Vec<&str> = page.split("\n\n").filter(is_it).collect();
    let [paragraph] = found[..] else { panic!("{} paragraphs are about `larder {command}`", found.len()) };
    // Of several commands in one paragraph, this one's part.
    let (_, part) = paragraph.split_once(&format!("**`larder {command}")).unwrap();
    part.split("\n**`larder ").next().unwrap().to_owned()
}

#[test]
fn the_page_has_every_command_and_option_and_no_other() {
    let page = read("docs/command-line.md");
    let top = help(&[]);
    let all: BTreeSet<String> = OF_ALL.map(str::to_owned).into();
    assert_eq!(listed(&top), all);
    for option in ["--config", "--log-format", "--quiet", "--verbose", "--version"] {
        assert!(page.contains(option), "the page does not have `{option}`");
    }
    let commands_of_larder = commands(&top);
    assert!(commands_of_larder.len() >= 10, "{top}");
    for command in &commands_of_larder {
        let text = described(&page, command);
        let own = help(&[command]);
        let mut has = listed(&own);
        for operation in commands(&own) {
            assert!(
                text.contains(&format!("`larder {command} {operation}")),
                "the page has no `{command} {operation}`"
            );
            has.extend(listed(&help(&[command, &operation])));
        }
        let has = &has - &all;
        assert_eq!(&options(&text) - &all, has, "of `larder {command}`: the page, and its help");
        let of_all = values(&help(&["schema"]));
        for value in values(&own).iter().filter(|value| !of_all.contains(value)) {
            assert!(text.contains(value.as_str()), "the page does not have `{value}` of `larder {command}`");
        }
    }
    let named = page.split("**`larder ").skip(1).filter_map(|rest| rest.split([' ', '`']).next());
    assert_eq!(named.collect::<BTreeSet<_>>(), commands_of_larder.iter().map(String::as_str).collect());
}

/// An option without an effect misleads: these commands read no configuration.
#[test]
fn only_commands_that_read_the_configuration_have_an_option_for_it() {
    let without = ["new", "sdk", "schema", "completions", "man"];
    for command in commands(&help(&[])) {
        let has_it = listed(&help(&[&command])).contains("--config");
        assert_eq!(has_it, !without.contains(&command.as_str()), "larder {command}");
    }
    let larder = Larder::new(["--config", "larder.toml", "schema"]).config("").fail(2);
    assert_eq!(larder.error_line(), "larder: --config: this command reads no configuration");
}
