//! Completion scripts for shells, and man pages.

use std::io::Write;
use std::process::{Command, Stdio};

use larder_tests::{Larder, program, skip};
use tempfile::TempDir;

/// The subcommands, as `--help` lists them below `larder` and these words.
fn subcommands(words: &[&str]) -> Vec<String> {
    let help = Larder::new(words.iter().chain(&["--help"])).succeed().stdout;
    let Some((_, commands)) = help.split_once("Commands:\n") else { return Vec::new() };
    let names = commands.lines().take_while(|line| line.starts_with("  ")).filter(|line| !line.starts_with("   "));
    names.map(|line| line.split_whitespace().next().unwrap().to_owned()).filter(|name| name != "help").collect()
}

/// Asserts that a program accepts a text on standard input, and prints nothing on standard error.
fn assert_takes(checker: &str, arguments: &[&str], text: &str) {
    let mut command = Command::new(checker);
    let piped = command.args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = match piped.spawn() {
        Err(_) => return skip(&format!("`{checker}` is not installed")),
        Ok(child) => child,
    };
    child.stdin.take().unwrap().write_all(text.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success() && output.stderr.is_empty(), "{checker}: {output:#?}");
}

#[test]
fn every_shell_completes_every_subcommand() {
    let names = subcommands(&[]);
    let expected = [
        "new",
        "sdk",
        "dev",
        "run",
        "serve",
        "top",
        "ready",
        "check",
        "cache",
        "plugin",
        "schema",
        "completions",
        "man",
    ];
    assert_eq!(names, expected);
    for shell in ["bash", "elvish", "fish", "powershell", "zsh"] {
        let script = Larder::new(["completions", shell]).succeed().stdout;
        for name in names.iter().chain(&subcommands(&["cache"])).chain(&subcommands(&["plugin"])) {
            assert!(script.contains(name.as_str()), "{shell} does not know `{name}`");
        }
    }
    Larder::new(["completions", "tcsh"]).fail(2);
}

#[test]
fn shells_understand_their_completions() {
    for (shell, arguments) in [("bash", &["-n"][..]), ("zsh", &["-n"]), ("fish", &["--no-execute"])] {
        assert_takes(shell, arguments, &Larder::new(["completions", shell]).succeed().stdout);
    }
}

/// As a shell asks for it when a user has typed `larder ru` and the tabulator.
#[test]
fn bash_completes_a_subcommand_and_its_options() {
    let folder = TempDir::new().unwrap();
    let script = folder.path().join("larder.bash");
    std::fs::write(&script, Larder::new(["completions", "bash"]).succeed().stdout).unwrap();
    let complete = |words: &str, nth: usize| {
        let ask = format!(
            "source {}; COMP_WORDS=({words}); COMP_CWORD={nth}; \
             _larder larder \"${{COMP_WORDS[{nth}]}}\" \"${{COMP_WORDS[{nth}-1]}}\"; echo \"${{COMPREPLY[@]}}\"",
            script.display()
        );
        let output = Command::new("bash").args(["--norc", "-c", &ask]).output().unwrap();
        String::from_utf8(output.stdout).unwrap()
    };
    assert_eq!(complete("larder ru", 1), "run\n");
    assert_eq!(complete("larder run --inv", 2), "--invoke\n");
    assert_eq!(complete("larder new --lang p", 3), "python\n");
}

#[test]
fn there_is_a_man_page_for_every_subcommand_and_it_renders() {
    let man = Larder::new(["man", "deep/man"]);
    let folder = man.folder().join("deep/man");
    let mut command = Command::new(program());
    assert!(command.args(["man", "deep/man"]).current_dir(man.folder()).status().unwrap().success());
    let mut pages = vec!["larder".to_owned()];
    pages.extend(subcommands(&[]).iter().map(|name| format!("larder-{name}")));
    for command in ["cache", "plugin"] {
        pages.extend(subcommands(&[command]).iter().map(|name| format!("larder-{command}-{name}")));
    }
    for page in &pages {
        let text = std::fs::read_to_string(folder.join(format!("{page}.1"))).unwrap();
        assert!(text.contains(".SH SYNOPSIS"), "{page}: {text}");
        let text = folder.join(format!("{page}.1")).display().to_string();
        match Command::new("man").args(["--warnings", "--local-file", &text]).env("MANWIDTH", "100").output() {
            Err(_) => skip("`man` is not installed"),
            Ok(output) => {
                let shown = String::from_utf8_lossy(&output.stdout);
                assert!(output.status.success() && output.stderr.is_empty(), "{page}: {output:#?}");
                assert!(shown.contains("SYNOPSIS") && shown.contains("--log-format"), "{page}: {shown}");
            }
        }
    }
    assert_eq!(std::fs::read_dir(&folder).unwrap().count(), pages.len());
    let top = std::fs::read_to_string(folder.join("larder.1")).unwrap();
    for name in subcommands(&[]) {
        assert!(
            top.contains(&format!("larder\\-{}(1)", name.replace('-', "\\-"))),
            "`{name}` is not in larder.1: {top}"
        );
    }
}

#[test]
fn man_pages_that_cannot_be_written_are_an_error_that_names_the_folder() {
    let run = Larder::new(["man", "/dev/null/man"]).fail(1);
    assert!(run.error_line().starts_with("larder: cannot write to `/dev/null/man`: "), "{}", run.stderr);
}
