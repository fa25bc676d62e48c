//! `larder dev`: a plugin is built, served or run, and again after each change.

mod refused;
mod templates;

use std::fs;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use larder_tests::{Larder, LarderOutput, TEST_TIMEOUT, guest, wait_at_most, wait_for};
use tempfile::TempDir;

/// Stands in for the command that builds. The source is the path of a plugin that is built already; `broken` makes the
/// build fail, and `slow` makes it last, in a process that it starts, until `slow` is removed.
const BUILD: &str = r#"
echo "begin ${0##*/} $*" >>.test/commands
while [ -e .test/slow ]; do
  sleep 600 & echo $! >.test/compiler
  wait
done
echo 'compiling' >&2
if [ -e .test/broken ]; then echo 'error: a mistake'; echo end >>.test/commands; exit 101; fi
output=$(cat .test/output)
mkdir -p "$(dirname "$output")"
cp "$(cat src/plugin)" "$output.new" && mv "$output.new" "$output"
echo end >>.test/commands
"#;

/// The deadline of a build with the real tools, which takes tens of seconds of a core that the tests share.
const BUILD_TIMEOUT: Duration = Duration::from_secs(600);

const OF_RUST: &str = "target/wasm32-wasip2/release/shop.wasm";

/// A folder for a plugin, with tools that stand in for the real ones, and a command for it. What the tests and the tools
/// write is in `.test`, where nothing is a source.
fn folder(arguments: &[&str]) -> Larder {
    let larder = Larder::new(std::iter::once(&"dev").chain(arguments));
    for folder in ["src", ".test/bin"] {
        fs::create_dir_all(larder.folder().join(folder)).unwrap();
    }
    let path = format!("{}:/usr/bin:/bin", larder.folder().join(".test/bin").display());
    larder.env("PATH", path)
}

/// A program in the `PATH` of the folder.
fn tool(folder: &Path, name: &str, script: &str) {
    let path = folder.join(".test/bin").join(name);
    fs::write(&path, format!("#!/bin/sh\n{script}")).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
}

/// A folder of a plugin in Rust that is built from this one.
fn rust(arguments: &[&str], plugin: &str) -> Larder {
    let larder = folder(arguments);
    let folder = larder.folder();
    tool(folder, "cargo", BUILD);
    tool(folder, "rustup", "echo wasm32-wasip2");
    fs::write(folder.join("Cargo.toml"), "[package]\nname = \"shop\"\n").unwrap();
    fs::write(folder.join(".test/output"), OF_RUST).unwrap();
    write_source(folder, plugin);
    larder
}

/// A folder of a plugin in JavaScript that exports functions.
fn javascript(arguments: &[&str]) -> Larder {
    let larder = folder(arguments);
    let folder = larder.folder();
    let install =
        format!("if [ $1 = ci ]; then mkdir node_modules; echo \"npm $*\" >>.test/commands; exit; fi\n{BUILD}");
    tool(folder, "npm", &install);
    fs::write(folder.join("package.json"), "{\"name\": \"@shop/prices\"}").unwrap();
    fs::write(folder.join(".test/output"), "prices.wasm").unwrap();
    write_source(folder, "exports");
    larder
}

/// Writes the source, so that it is built to this plugin.
fn write_source(folder: &Path, plugin: &str) {
    fs::write(folder.join("src/plugin"), guest(plugin).display().to_string()).unwrap();
}

/// A running `larder dev`, with its output in files. Dropping this value ends it.
struct Dev {
    child: Child,
    folder: TempDir,
}

impl Dev {
    fn start(larder: Larder) -> Self {
        let (mut command, folder) = larder.into_command();
        let file = |name: &str| Stdio::from(fs::File::create(folder.path().join(".test").join(name)).unwrap());
        command.stdin(Stdio::null()).stdout(file("stdout")).stderr(file("stderr"));
        Self { child: command.spawn().unwrap(), folder }
    }

    /// Serves at a free port.
    fn serve(plugin: &str) -> Self {
        Self::start(rust(&["--addr", "127.0.0.1:0"], plugin))
    }

    fn folder(&self) -> &Path {
        self.folder.path()
    }

    fn text(&self, file: &str) -> String {
        String::from_utf8_lossy(&fs::read(self.folder().join(".test").join(file)).unwrap_or_default()).into_owned()
    }

    /// Waits until a file has a text this many times.
    fn wait_for(&self, file: &str, text: &str, times: usize) {
        wait_at_most(BUILD_TIMEOUT, &format!("{file} has `{text}`"), || {
            (self.text(file).matches(text).count() >= times).then_some(())
        });
    }

    /// The commands that were run, without the ends of builds.
    fn commands(&self) -> Vec<String> {
        let commands = self.text("commands");
        let commands = commands.lines().filter(|line| *line != "end");
        commands.map(|line| line.trim_start_matches("begin ").to_owned()).collect()
    }

    /// Makes the builds do what the file says.
    fn set(&self, file: &str) {
        fs::write(self.folder().join(".test").join(file), "").unwrap();
    }

    fn unset(&self, file: &str) {
        fs::remove_file(self.folder().join(".test").join(file)).unwrap();
    }

    fn address(&self) -> SocketAddr {
        wait_at_most(BUILD_TIMEOUT, "larder listens", || {
            let stdout = self.text("stdout");
            stdout.split_once('\n')?.0.strip_prefix("listening on http://").map(|address| address.parse().unwrap())
        })
    }

    /// The head and the body of a response.
    fn get(&self, path: &str) -> String {
        let mut stream = TcpStream::connect(self.address()).unwrap();
        stream.set_read_timeout(Some(TEST_TIMEOUT)).unwrap();
        stream.write_all(format!("GET {path} HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n").as_bytes()).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
        answer
    }

    /// Waits until this many versions have followed the first one.
    fn wait_for_reloads(&self, times: usize) {
        self.wait_for("stderr", "reloaded plugin", times);
    }

    fn assert_answer(&self, path: &str, text: &str) {
        let answer = self.get(path);
        assert!(answer.contains(text), "{path} is answered with {answer}");
    }

    /// Sends a signal, and waits until the process has ended.
    fn end(mut self, signal: &str) -> LarderOutput {
        let id = self.child.id().to_string();
        assert!(Command::new("kill").args([signal, &id]).status().unwrap().success());
        let status = wait_for("larder has exited", || self.child.try_wait().unwrap()).code();
        LarderOutput { status, stdout: self.text("stdout"), stderr: self.text("stderr") }
    }
}

impl Drop for Dev {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("{}", self.text("stderr"));
        }
        if self.child.try_wait().unwrap().is_none() {
            // By a signal, so that the build ends as well.
            let _sent = Command::new("kill").arg(self.child.id().to_string()).status();
            let _reaped = self.child.wait();
        }
    }
}

fn is_running(process: &str) -> bool {
    let state = fs::read_to_string(format!("/proc/{}/stat", process.trim())).unwrap_or_default();
    state.rsplit(')').next().is_some_and(|rest| !rest.is_empty() && !rest.trim_start().starts_with('Z'))
}

const CARGO: &str = "cargo build --release --target wasm32-wasip2";

mod served {
    use super::*;

    #[test]
    fn a_changed_plugin_is_built_and_served() {
        let dev = Dev::serve("http");
        dev.assert_answer("/do/hello", "hello\n");
        write_source(dev.folder(), "http-pages");
        dev.wait_for_reloads(1);
        dev.assert_answer("/do/hello", "<h1>/do/hello</h1>");
        assert_eq!(dev.commands(), [CARGO; 2]);
        let output = dev.end("-TERM");
        assert_eq!(output.status, Some(0), "{output:#?}");
        assert!(output.stdout.starts_with("listening on http://127.0.0.1:"), "{output:#?}");
        for text in
            ["`src/plugin` has changed", "reloaded plugin `shop`", &format!("building: `{CARGO}`"), "compiling\n"]
        {
            assert!(output.stderr.contains(text), "{text}: {output:#?}");
        }
    }

    #[test]
    fn a_build_that_fails_keeps_the_previous_version() {
        let dev = Dev::serve("http");
        dev.address();
        dev.set("broken");
        write_source(dev.folder(), "http-pages");
        dev.wait_for("stderr", "failed: exit status: 101; the previous version is still served", 1);
        dev.assert_answer("/do/hello", "hello\n");
        dev.unset("broken");
        write_source(dev.folder(), "http-pages");
        dev.wait_for_reloads(1);
        dev.assert_answer("/do/hello", "<h1>/do/hello</h1>");
        let output = dev.end("-TERM");
        assert!(output.stderr.contains("error: a mistake\n"), "{output:#?}");
        assert_eq!(output.stderr.matches("is still served").count(), 1, "{output:#?}");
    }

    #[test]
    fn a_plugin_whose_first_build_fails_is_served_once_it_is_mended() {
        let larder = rust(&["--addr", "127.0.0.1:0"], "http");
        fs::write(larder.folder().join(".test/broken"), "").unwrap();
        let dev = Dev::start(larder);
        dev.wait_for("stderr", "failed: exit status: 101; waiting for a change", 1);
        dev.unset("broken");
        // A file that is no component, and then a plugin.
        fs::write(dev.folder().join("src/plugin"), "Cargo.toml").unwrap();
        dev.wait_for("stderr", "; waiting for a change", 2);
        assert!(dev.text("stderr").contains("cannot load plugin"), "{}", dev.text("stderr"));
        write_source(dev.folder(), "http");
        dev.assert_answer("/do/hello", "hello\n");
    }

    #[test]
    fn a_change_during_a_build_is_built_after_it() {
        let dev = Dev::serve("http");
        dev.address();
        dev.set("slow");
        write_source(dev.folder(), "http-pages");
        dev.wait_for("commands", "begin", 2);
        // More than one change: one build.
        write_source(dev.folder(), "http");
        fs::write(dev.folder().join("src/other"), "").unwrap();
        let compiler =
            wait_for("the build has started a process", || Some(dev.text("compiler")).filter(|id| id.ends_with('\n')));
        dev.unset("slow");
        assert!(Command::new("kill").arg(compiler.trim()).status().unwrap().success());
        dev.wait_for("commands", "end\n", 3);
        assert_eq!(dev.text("commands"), format!("begin {CARGO}\nend\n").repeat(3));
    }

    #[test]
    fn what_a_plugin_was_asked_is_logged_in_plain_numbers() {
        let dev = Dev::serve("http");
        for path in ["/visit/a", "/visit/a", "/compute/b"] {
            dev.get(path);
        }
        dev.wait_for("stderr", ", hit rate ", 1);
        let output = dev.end("-INT");
        assert_eq!(output.status, Some(0), "{output:#?}");
        let line = output.stderr.lines().find(|line| line.contains(", hit rate ")).unwrap();
        for text in [" s: requests ", ", hits ", ", misses ", ", p99 ", "s"] {
            assert!(line.contains(text), "{line}");
        }
    }

    #[test]
    fn a_changed_configuration_needs_another_start() {
        let dev = Dev::serve("http");
        dev.address();
        fs::write(dev.folder().join("larder.toml"), "[caches.pages]\ntype = \"ram\"\n").unwrap();
        dev.wait_for("stderr", "the configuration has changed: start `larder dev` again to use it", 1);
        assert_eq!(dev.commands(), [CARGO]);
    }
}

mod run {
    use super::*;

    #[test]
    fn a_command_is_run_with_its_arguments_after_each_build() {
        let dev = Dev::start(rust(&["--quiet", "--", "get k", "set k v", "get k"], "script"));
        let printed = "miss\nok\nhit v\n";
        dev.wait_for("stdout", printed, 1);
        write_source(dev.folder(), "script");
        dev.wait_for("stdout", printed, 2);
        assert_eq!(dev.commands(), [CARGO; 2]);
        let output = dev.end("-TERM");
        assert_eq!((output.status, output.stdout), (Some(0), printed.repeat(2)));
        assert_eq!(output.stderr, "compiling\n".repeat(2));
    }

    #[test]
    fn a_status_that_is_not_0_is_logged_and_a_change_is_waited_for() {
        let dev = Dev::start(rust(&["--", "fail"], "misbehave"));
        dev.wait_for("stderr", "the plugin has ended: exit status: 1", 1);
        write_source(dev.folder(), "hello-cache");
        dev.wait_for("stdout", "hello\n", 1);
    }

    #[test]
    fn a_plugin_that_still_runs_is_ended_at_the_next_change_and_at_a_signal() {
        let larder = rust(&["--", "sleep"], "misbehave").config("[sandbox]\ntimeout = \"1h\"\n");
        let dev = Dev::start(larder);
        let is_run = |process: &String| {
            let line = fs::read(format!("/proc/{process}/cmdline")).unwrap_or_default();
            line.split(|byte| *byte == 0).any(|word| word == b"run")
        };
        let children = |dev: &Dev| {
            let children = format!("/proc/{0}/task/{0}/children", dev.child.id());
            let children = fs::read_to_string(children).unwrap();
            children.split_whitespace().map(str::to_owned).filter(is_run).collect::<Vec<_>>()
        };
        let first = wait_for("it runs", || children(&dev).pop());
        write_source(dev.folder(), "misbehave");
        let second = wait_for("it runs again", || children(&dev).into_iter().find(|process| *process != first));
        assert!(!is_running(&first));
        let output = dev.end("-HUP");
        assert_eq!(output.status, Some(0), "{output:#?}");
        assert!(!is_running(&second));
    }

    #[test]
    fn the_files_beyond_the_most_that_are_looked_at_are_told_of() {
        let larder = rust(&[], "hello-cache");
        let many = larder.folder().join("many");
        fs::create_dir(&many).unwrap();
        for number in 0..10_000 {
            fs::write(many.join(number.to_string()), "").unwrap();
        }
        let dev = Dev::start(larder);
        dev.wait_for("stderr", "this folder has 10000 files or more: changes of further ones start no build", 1);
        dev.wait_for("stdout", "hello\n", 1);
    }

    #[test]
    fn a_call_is_made_after_each_build_of_a_plugin_in_javascript() {
        let dev = Dev::start(javascript(&["--invoke", "half(4)"]));
        dev.wait_for("stdout", "ok(2)\n", 1);
        fs::write(dev.folder().join("src/other.js"), "").unwrap();
        dev.wait_for("stdout", "ok(2)\n", 2);
        assert_eq!(dev.commands(), ["npm ci", "npm run build", "npm run build"]);
    }

    #[test]
    fn without_a_call_the_functions_are_listed() {
        let dev = Dev::start(javascript(&[]));
        dev.wait_for("stderr", "call one of its functions with `--invoke`: ", 1);
    }

    #[test]
    fn the_tools_of_python_are_installed_if_they_are_missing_or_older_than_their_list() {
        let larder = folder(&["--invoke", "half(4)"]);
        let plugin = larder.folder().to_owned();
        let name = plugin.file_name().unwrap().to_str().unwrap();
        // The program `componentize-py` is the one that builds, and `pip` installs it.
        tool(&plugin, "componentize-py", BUILD);
        let pip = "echo \"pip $*\" >>.test/commands; cp -p .test/bin/componentize-py venv/bin/";
        tool(&plugin, "pip", pip);
        tool(&plugin, "python3", "echo \"python3 $*\" >>.test/commands; mkdir -p venv/bin; cp .test/bin/pip venv/bin/");
        fs::create_dir(plugin.join("wit")).unwrap();
        for file in ["requirements.txt", "src/plugin.py"] {
            fs::write(plugin.join(file), "").unwrap();
        }
        fs::write(plugin.join(".test/output"), format!("{name}.wasm")).unwrap();
        write_source(&plugin, "exports");
        let dev = Dev::start(larder);
        dev.wait_for("stdout", "ok(2)\n", 1);
        let install = "pip install --requirement requirements.txt";
        let build = format!(
            "componentize-py --wit-path wit --world plugin componentize --python-path src plugin --output {name}.wasm"
        );
        assert_eq!(dev.commands(), ["python3 -m venv venv", install, &build]);
        fs::write(plugin.join("src/plugin.py"), "# changed").unwrap();
        dev.wait_for("stdout", "ok(2)\n", 2);
        assert_eq!(dev.commands()[3..], [build.as_str()]);
        fs::write(plugin.join("requirements.txt"), "# changed").unwrap();
        dev.wait_for("stdout", "ok(2)\n", 3);
        assert_eq!(dev.commands()[4..], [install, &build]);
    }
}

#[test]
fn a_signal_ends_a_build_with_all_that_it_has_started() {
    // During the first build, and while a plugin is served.
    for is_first in [true, false] {
        for signal in ["-TERM", "-INT", "-HUP"] {
            let larder = rust(&["--addr", "127.0.0.1:0"], "http");
            if is_first {
                fs::write(larder.folder().join(".test/slow"), "").unwrap();
            }
            let dev = Dev::start(larder);
            if !is_first {
                dev.address();
                dev.set("slow");
                write_source(dev.folder(), "http-pages");
            }
            let compiler = wait_for("the build has started a process", || {
                Some(dev.text("compiler")).filter(|process| process.ends_with('\n'))
            });
            assert!(is_running(&compiler));
            let output = dev.end(signal);
            assert_eq!(output.status, Some(0), "{signal}: {output:#?}");
            wait_for("the process of the build has ended", || (!is_running(&compiler)).then_some(()));
        }
    }
}
