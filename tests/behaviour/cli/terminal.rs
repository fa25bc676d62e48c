//! What the program shows on a terminal and elsewhere: colours, the progress of a long clear, and the width of its help.

use std::time::Duration;

use larder_tests::{Fault, Kind, Larder, Relay, ServeProcess, Server, Terminal, guest};

/// The beginning of a control sequence that sets a colour.
const COLOUR: &str = "\x1b[3";

/// `larder run` of a plugin that fails, which is logged as a warning of the log and not only as the last line.
fn failing() -> (Larder, String) {
    let larder = Larder::run("script").config("[plugins.scrip]\n");
    let arguments =
        format!("--config '{}' run '{}'", larder.folder().join("larder.toml").display(), guest("script").display());
    (larder, arguments)
}

#[test]
fn the_log_has_colours_on_a_terminal_and_not_elsewhere() {
    let (larder, arguments) = failing();
    let shown = Terminal::run(&arguments).wait_for_text("status ");
    assert!(shown.contains(COLOUR) && shown.contains("is `[plugins.scrip]` meant for it?"), "{shown}");
    let run = larder.finish();
    assert!(run.stderr.contains("is `[plugins.scrip]` meant for it?"), "{run:#?}");
    assert!(!run.stderr.contains('\x1b'), "{run:#?}");
}

#[test]
fn no_color_takes_the_colours_off_a_terminal() {
    let (_larder, arguments) = failing();
    for (value, is_coloured) in [("1", false), ("", true)] {
        let shown = Terminal::run_with(&[("NO_COLOR", value)], &arguments).wait_for_text("status ");
        assert!(shown.contains("is `[plugins.scrip]` meant for it?"), "{shown}");
        assert_eq!(shown.contains(COLOUR), is_coloured, "NO_COLOR={value}: {shown}");
    }
}

#[tokio::test]
async fn quiet_leaves_errors_and_verbose_adds_why_calls_failed() {
    for (options, has_warning, has_request, has_reason) in [
        (&[][..], true, true, false),
        (&["-q"], false, false, false),
        (&["--verbose"], true, true, false),
        (&["-vv"], true, true, true),
    ] {
        let larder = Larder::serve().config("[plugins.htpp]\n");
        let larder = options.iter().fold(larder, |larder, option| larder.arg(option)).arg(guest("http"));
        let serving = ServeProcess::start_with(larder);
        assert_eq!(serving.get("/fetch?http://localhost/").await.status, 502);
        let stderr = serving.terminate().await.stderr;
        for (words, is_logged) in [
            ("is `[plugins.htpp]` meant for it?", has_warning),
            ("path=/fetch", has_request),
            ("may not send requests to `localhost`", has_reason),
        ] {
            assert_eq!(stderr.contains(words), is_logged, "{options:?}, {words}: {stderr}");
        }
    }
}

/// Each answer of the server takes most of the time after which the line is shown.
#[test]
fn the_progress_of_a_long_clear_is_shown_on_a_terminal_alone() {
    let Some(server) = Server::start(Kind::Valkey) else { return };
    let relay = Relay::to(server.port());
    relay.set_fault(Fault::Delay(Duration::from_millis(300)));
    let config = format!(
        "[caches.c]\ntype = \"valkey\"\nhost = \"127.0.0.1\"\nport = {}\ntimeout = \"20s\"\nconnect_timeout = \"20s\"\n",
        relay.port()
    );
    let fill = || {
        for n in 0..20 {
            let () = redis::cmd("SET").arg(format!("cache:k{n}")).arg("v").query(&mut server.client()).unwrap();
        }
    };
    fill();
    let larder = Larder::new(["cache", "clear-all"]).config(&config);
    let file = larder.folder().join("larder.toml");
    let shown = Terminal::run(&format!("--config '{}' cache clear-all", file.display())).wait_for_text("status ");
    assert!(shown.contains("looked at about ") && shown.contains(" per second), removed "), "{shown}");
    // The line is removed before the result.
    assert!(shown.contains("\r\x1b[K20"), "{shown}");
    fill();
    let run = larder.succeed();
    assert_eq!((run.stdout.as_str(), run.stderr.as_str()), ("20\n", ""));
    fill();
    let shown = Terminal::run(&format!("-q --config '{}' cache clear-all", file.display())).wait_for_text("status ");
    assert!(!shown.contains("looked at"), "{shown}");
}

/// The commands and subcommands that `--help` lists.
fn commands(command: &[&str], help: &str) -> Vec<Vec<String>> {
    let Some((_, list)) = help.split_once("\nCommands:\n") else { return Vec::new() };
    let lines = list.lines().take_while(|line| !line.trim().is_empty());
    let names = lines.filter(|line| !line.starts_with("    ")).filter_map(|line| line.split_whitespace().next());
    let names = names.filter(|name| *name != "help");
    names.map(|name| command.iter().copied().chain([name]).map(str::to_owned).collect()).collect()
}

#[test]
fn help_is_at_most_100_columns_wide() {
    let mut rest = vec![Vec::new()];
    let mut count = 0;
    while let Some(command) = rest.pop() {
        let words: Vec<&str> = command.iter().map(String::as_str).collect();
        for option in ["--help", "-h"] {
            let help = Larder::new(words.iter().chain(&[option])).succeed().stdout;
            for line in help.lines() {
                assert!(line.chars().count() <= 100, "larder {words:?} {option}: {line}");
            }
            if option == "--help" {
                rest.extend(commands(&words, &help));
            }
        }
        count += 1;
    }
    assert!(count > 15, "{count} commands");
}

#[test]
fn a_value_is_followed_by_a_line_break_on_a_terminal_and_by_nothing_elsewhere() {
    let Some(server) = Server::start(Kind::Valkey) else { return };
    let config = server.cache("c");
    for (key, value) in [("k", "value"), ("line", "value\n")] {
        Larder::new(["cache", "set", key, value]).config(&config).succeed();
        let larder = Larder::new(["cache", "get", key]).config(&config);
        let file = larder.folder().join("larder.toml");
        let shown = Terminal::run(&format!("--config '{}' cache get {key}", file.display())).wait_for_text("status 0");
        assert!(shown.contains("value\r\nstatus 0"), "{shown}");
        assert_eq!(larder.succeed().stdout, value);
    }
}
