//! `larder new`: the plugin that it creates builds and runs, and no file is overwritten.

use std::collections::BTreeSet;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};

use larder_tests::{Kind, Larder, LarderOutput, ServeProcess, Server, program, template_plugin};
use serde_json::Value;
use tempfile::TempDir;

use larder_tests::repository::{read, root};

/// An interpreter takes long to compile on a busy machine.
const COMPILES: &str = "\n[sandbox]\ncompile_timeout = \"10m\"\n";

const LANGUAGES: [&str; 3] = ["rust", "python", "javascript"];

/// `larder new` with these arguments in a folder.
fn new_in(folder: &Path, arguments: &[&str]) -> LarderOutput {
    let output = std::process::Command::new(program()).arg("new").args(arguments).current_dir(folder).output().unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    LarderOutput { status: output.status.code(), stdout: text(output.stdout), stderr: text(output.stderr) }
}

/// All files below a folder, by their path in it.
fn files(folder: &Path) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    let mut open = vec![folder.to_owned()];
    while let Some(path) = open.pop() {
        if path.is_dir() {
            open.extend(std::fs::read_dir(&path).unwrap().map(|entry| entry.unwrap().path()));
        } else {
            found.insert(path.strip_prefix(folder).unwrap().to_str().unwrap().to_owned());
        }
    }
    found
}

/// The languages whose tools are there, with their plugins as `make templates` built them. All are compiled already: a
/// greeting is cached for a minute only.
fn plugins() -> Vec<(&'static str, PathBuf)> {
    LANGUAGES.into_iter().filter_map(|language| Some((language, template_plugin(language)?))).collect()
}

/// Runs the plugin of a language with what its last command has in front of its file.
fn greet(language: &str, plugin: &Path, config: &str) -> String {
    let run = match language {
        "rust" => Larder::new(["run"]),
        _ => Larder::new(["run", "--invoke", "greet(\"world\")"]),
    };
    run.config(config).arg(plugin).succeed().stdout
}

#[test]
fn a_new_plugin_in_each_language_runs() {
    let config = read("host/cli/templates/larder.toml") + COMPILES;
    let plugins = plugins();
    assert!(plugins.iter().any(|(language, _)| *language == "rust"));
    let [computed, cached] = ["Hello, world! (computed now)", "Hello, world! (from the cache)"];
    for (language, plugin) in &plugins {
        let expected = match *language {
            "rust" => format!("{computed}\n{cached}\n"),
            _ => format!("ok([\"{computed}\", \"{cached}\"])\n"),
        };
        assert_eq!(greet(language, plugin, &config), expected, "{language}");
    }
}

#[test]
fn new_plugins_in_all_languages_share_what_they_cache() {
    let Some(server) = Server::start(Kind::Valkey) else { return };
    let config = server.cache("c") + COMPILES;
    let plugins = plugins();
    for (maker, made) in &plugins {
        Larder::new(["cache", "clear-all"]).config(&config).succeed();
        greet(maker, made, &config);
        assert_eq!(
            Larder::new(["cache", "get", "greeting:world"]).config(&config).succeed().stdout,
            "\"Hello, world!\""
        );
        for (reader, plugin) in &plugins {
            let said = greet(reader, plugin, &config);
            assert!(said.contains("Hello, world!") && !said.contains("computed"), "{reader} after {maker}: {said}");
        }
    }
}

#[test]
fn a_new_folder_has_every_file_that_its_readme_and_its_commands_name() {
    let folder = TempDir::new().unwrap();
    for (language, http) in LANGUAGES.into_iter().flat_map(|language| [(language, false), (language, true)]) {
        let name = format!("my-{language}-x2{}", if http { "-http" } else { "" });
        let mut arguments = vec![name.as_str(), "--lang", language];
        arguments.extend(http.then_some("--http"));
        let run = new_in(folder.path(), &arguments);
        assert_eq!((run.status, run.stderr.as_str()), (Some(0), ""), "{run:#?}");
        let plugin = folder.path().join(&name);
        let readme = std::fs::read_to_string(plugin.join("README.md")).unwrap();
        let mut commands = run.stdout.lines().filter_map(|line| line.strip_prefix("    "));
        assert_eq!(commands.next(), Some(format!("cd {name}").as_str()));
        let commands: Vec<&str> = commands.collect();
        let builds = match language {
            "rust" => "cargo build --release --target wasm32-wasip2",
            "python" => "componentize-py",
            _ => "npm run build",
        };
        assert!(commands.iter().any(|command| command.contains(builds)), "{}", run.stdout);
        assert!(readme.contains(&format!("```sh\n{}\n```", commands.join("\n"))), "{readme}");
        assert!(commands.last().unwrap().ends_with(&format!("{name}.wasm")), "{}", run.stdout);
        let asked = run.stdout.split("in another terminal: `").nth(1).map(|rest| rest.split('`').next().unwrap());
        assert_eq!(asked.is_some(), http, "{}", run.stdout);
        assert!(asked.is_none_or(|curl| readme.contains(&format!("```sh\n{curl}\n```"))), "{readme}");
        for linked in readme.split("](").skip(1).map(|rest| rest.split(')').next().unwrap()) {
            assert!(plugin.join(linked).is_file(), "{language}: {linked}");
        }
        for file in files(&plugin) {
            let text = std::fs::read_to_string(plugin.join(&file)).unwrap();
            for left in ["{{name}}", "{{larder}}", "{{sdk}}", "{{exclude}}", "{{version}}", "{{commands}}", "{{dev}}"] {
                assert!(!text.contains(left), "{language}: {file}: {text}");
            }
        }
        Larder::new(["check"]).config(&std::fs::read_to_string(plugin.join("larder.toml")).unwrap()).succeed();
    }
    let own = files(&folder.path().join("my-rust-x2")).into_iter().filter(|file| !file.starts_with("larder-sdk/"));
    assert_eq!(own.count(), 6);
}

/// One request after the other: the second is answered from the cache.
#[test]
fn a_new_plugin_that_serves_http_answers_from_the_cache() {
    assert!(template_plugin("rust-http").is_some());
    let config = read("host/cli/templates/larder.toml");
    for language in LANGUAGES {
        let Some(plugin) = template_plugin(&format!("{language}-http")) else { continue };
        let reuse = format!("{config}[plugins.{language}-http]\nreuse = {{}}\n");
        let serving = ServeProcess::start_with(Larder::serve().config(&reuse).arg(plugin));
        for how in ["computed now", "from the cache"] {
            let mut stream = TcpStream::connect(serving.address()).unwrap();
            stream.write_all(b"GET /Ada HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n").unwrap();
            let mut answer = String::new();
            stream.read_to_string(&mut answer).unwrap();
            assert!(answer.starts_with("HTTP/1.1 200 "), "{language}: {answer}");
            assert!(answer.contains(&format!("Hello, Ada! ({how})")), "{language}: {answer}");
        }
    }
}

/// The dependency on the SDK of a plugin in Rust.
fn dependency(plugin: &Path) -> toml::Value {
    let manifest: toml::Table = std::fs::read_to_string(plugin.join("Cargo.toml")).unwrap().parse().unwrap();
    manifest["dependencies"]["larder"].clone()
}

/// An installed program knows no checkout, and no folder around decides what a plugin is built with.
#[test]
fn an_installed_program_brings_the_sdk() {
    let folder = TempDir::new().unwrap();
    let larder = folder.path().join("larder");
    std::fs::hard_link(program(), &larder).or_else(|_| std::fs::copy(program(), &larder).map(|_| ())).unwrap();
    std::fs::create_dir(folder.path().join("guest-sdk")).unwrap();
    std::fs::write(folder.path().join("guest-sdk/Cargo.toml"), "[package]\nname = \"larder\"\n").unwrap();
    let output =
        std::process::Command::new(&larder).args(["new", "hello"]).current_dir(folder.path()).output().unwrap();
    assert!(output.status.success() && output.stderr.is_empty(), "{output:?}");
    let plugin = folder.path().join("hello");
    assert_eq!(dependency(&plugin)["path"].as_str(), Some("larder-sdk"));
    let manifest: toml::Table = std::fs::read_to_string(plugin.join("Cargo.toml")).unwrap().parse().unwrap();
    assert_eq!(manifest["workspace"]["exclude"][0].as_str(), Some("larder-sdk"));
    let text = |file: &str| std::fs::read_to_string(plugin.join("larder-sdk").join(file)).unwrap();
    for (file, source) in [
        ("src/lib.rs", "guest-sdk/src/lib.rs"),
        ("macros/src/lib.rs", "guest-sdk/macros/src/lib.rs"),
        ("wit/cache.wit", "wit/cache.wit"),
        ("LICENSE", "LICENSE"),
    ] {
        assert!(text(file) == read(source), "{file}");
    }
    assert!(text("README.md").contains(&format!("`larder = \"{}\"`", env!("CARGO_PKG_VERSION"))));
}

/// `larder sdk` in a folder.
fn update(folder: &Path) -> LarderOutput {
    let output = std::process::Command::new(program()).arg("sdk").current_dir(folder).output().unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    LarderOutput { status: output.status.code(), stdout: text(output.stdout), stderr: text(output.stderr) }
}

#[test]
fn the_sdk_of_an_older_program_is_replaced_and_nothing_else() {
    let folder = TempDir::new().unwrap();
    for (language, changed) in [
        ("rust", &["larder-sdk/src/lib.rs", "larder.schema.json"][..]),
        ("python", &["src/larder_cache.py", "wit/deps/cache.wit", "larder.schema.json"]),
        ("javascript", &["src/larder-cache.js", "wit/deps/cache.wit", "larder.schema.json"]),
    ] {
        assert_eq!(new_in(folder.path(), &[language, "--lang", language]).status, Some(0));
        let plugin = folder.path().join(language);
        let all = || -> Vec<(String, String)> {
            let names = files(&plugin).into_iter();
            names.map(|file| (file.clone(), std::fs::read_to_string(plugin.join(file)).unwrap())).collect()
        };
        std::fs::write(plugin.join("larder.toml"), "# mine").unwrap();
        let before = all();
        let version = env!("CARGO_PKG_VERSION");
        let said = |path: &str, is_same| match is_same {
            true => format!("`{path}` is that of larder {version} already\n"),
            false => format!("replaced `{path}` by that of larder {version}\n"),
        };
        let paths = || changed.iter().map(|path| if path.starts_with("larder-sdk") { "larder-sdk" } else { path });
        let run = update(&plugin);
        assert_eq!((run.status, run.stderr.as_str()), (Some(0), ""), "{run:#?}");
        assert_eq!(run.stdout, paths().map(|path| said(path, true)).collect::<String>());
        for file in changed {
            std::fs::write(plugin.join(file), "old").unwrap();
        }
        if language == "rust" {
            std::fs::write(plugin.join("larder-sdk/src/old.rs"), "old").unwrap();
        }
        let run = update(&plugin);
        assert_eq!((run.status, run.stderr.as_str()), (Some(0), ""), "{run:#?}");
        assert_eq!(run.stdout, paths().map(|path| said(path, false)).collect::<String>());
        assert!(all() == before, "{language}: {:?}", files(&plugin));
    }
}

#[test]
fn a_folder_without_an_sdk_is_not_changed() {
    let folder = TempDir::new().unwrap();
    assert_eq!(new_in(folder.path(), &["shop", "--published"]).status, Some(0));
    let plugin = folder.path().join("shop");
    // Another crate in a folder of that name.
    std::fs::create_dir(plugin.join("larder-sdk")).unwrap();
    std::fs::write(plugin.join("larder-sdk/Cargo.toml"), "[package]\nname = \"shop-sdk\"\n").unwrap();
    let before = files(&plugin);
    let run = update(&plugin);
    assert_eq!(run.status, Some(1), "{run:#?}");
    assert!(run.error_line().starts_with("larder: this folder has no SDK: neither `larder-sdk` nor `src/"), "{run:#?}");
    assert_eq!(files(&plugin), before);
}

/// A published package has no schema, so the folder has it.
#[test]
fn the_schema_of_a_new_folder_is_that_of_the_program() {
    let folder = TempDir::new().unwrap();
    assert_eq!(new_in(folder.path(), &["hello"]).status, Some(0));
    let text = |file: &str| std::fs::read_to_string(folder.path().join("hello").join(file)).unwrap();
    assert_eq!(text("larder.schema.json"), Larder::new(["schema"]).succeed().stdout);
    assert!(text("larder.toml").starts_with("#:schema ./larder.schema.json\n"));
    // The commented table is one that the program accepts.
    let configuration = text("larder.toml");
    let lines = configuration.split("#\n").nth(1).unwrap().lines().filter_map(|line| line.strip_prefix("# "));
    let server = lines.filter(|line| !line.starts_with("password_file")).collect::<Vec<_>>().join("\n");
    let run = Larder::new(["check"]).config(&server.replace("port = 6379", "port = 1")).fail(1);
    assert!(run.stderr.contains("cannot reach Valkey at `localhost:1`"), "{run:#?}");
}

#[test]
fn a_new_plugin_in_rust_may_depend_on_the_published_crate_or_on_a_checkout() {
    let folder = TempDir::new().unwrap();
    let dependency = |name: &str, arguments: &[&str]| {
        let run = new_in(folder.path(), &[&[name], arguments].concat());
        assert_eq!((run.status, run.stderr.as_str()), (Some(0), ""), "{run:#?}");
        let plugin = folder.path().join(name);
        assert!(!plugin.join("larder-sdk").exists());
        for file in ["Cargo.toml", "README.md"] {
            assert!(!std::fs::read_to_string(plugin.join(file)).unwrap().contains("larder-sdk"), "{file}");
        }
        (dependency(&plugin), run.stdout)
    };
    let (published, said) = dependency("published", &["--published"]);
    assert_eq!(published.as_str(), Some(env!("CARGO_PKG_VERSION")));
    assert!(said.starts_with("created the Rust plugin `published` with the crate `larder` "), "{said}");
    let sdk = root().join("guest-sdk").canonicalize().unwrap();
    // From the working folder, and with a character that TOML needs escaped.
    let link = folder.path().join("the \"sdk\"");
    std::os::unix::fs::symlink(&sdk, &link).unwrap();
    let (local, said) = dependency("local", &["--sdk", "the \"sdk\""]);
    assert_eq!(local["path"].as_str(), sdk.to_str());
    assert!(said.contains(" with the SDK in `"), "{said}");
    for (arguments, words) in [
        (&["a", "--sdk", "."][..], "larder: --sdk: `.` is not the folder `guest-sdk` of a Larder checkout"),
        (&["a", "--sdk", "no-such"], "larder: --sdk: `no-such` is not the folder"),
        (&["a", "--lang", "python", "--sdk", "the \"sdk\""], "larder: --sdk requires --lang rust"),
        (&["a", "--lang", "python", "--published"], "larder: --published requires --lang rust"),
        (&["a", "--published", "--sdk", "the \"sdk\""], "error: the argument '--published' cannot be used with"),
    ] {
        let run = new_in(folder.path(), arguments);
        assert_eq!(run.status, Some(2), "{run:#?}");
        assert!(run.stderr.starts_with(words), "{}", run.stderr);
    }
    assert!(!folder.path().join("a").exists());
}

#[test]
fn a_name_that_is_invalid_in_cargo_or_wit_is_refused_with_the_rule() {
    let folder = TempDir::new().unwrap();
    let words = "must be words of a-z and 0-9 that begin with a letter, joined by `-`";
    let long = "a".repeat(65);
    for (name, rule) in [
        ("Shop", words),
        ("my_shop", words),
        ("my--shop", words),
        ("-shop", "unexpected argument"),
        ("shop-", words),
        ("2shop", words),
        ("käse", words),
        ("../shop", words),
        ("a/b", words),
        (".", words),
        ("", words),
        (&long, "must not be longer than 64 characters"),
        ("larder", "must not be one of"),
        ("larder-macros", "must not be one of"),
        ("build", "must not be one of"),
    ] {
        let run = new_in(folder.path(), &[name]);
        assert_eq!(run.status, Some(2), "{name}: {run:#?}");
        assert!(run.stderr.contains(rule), "{name}: {}", run.stderr);
    }
    let run = new_in(folder.path(), &["shop", "--lang", "cobol"]);
    assert!(run.status == Some(2) && run.stderr.contains("rust, python, javascript"), "{run:#?}");
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
    for (language, file) in [("js", "package.json"), ("py", "requirements.txt"), ("rs", "Cargo.toml")] {
        assert_eq!(new_in(folder.path(), &[language, "--lang", language]).status, Some(0));
        assert!(folder.path().join(language).join(file).is_file(), "{language}");
    }
    for name in ["a", "shop2", "my-shop2-x", &long[1..]] {
        assert_eq!(new_in(folder.path(), &[name]).status, Some(0), "{name}");
    }
}

#[test]
fn existing_files_are_not_changed() {
    let folder = TempDir::new().unwrap();
    let path = |name: &str| folder.path().join(name);
    std::fs::create_dir(path("full")).unwrap();
    std::fs::write(path("full/note.txt"), "mine").unwrap();
    std::fs::write(path("file"), "mine").unwrap();
    std::fs::create_dir(path("empty")).unwrap();
    std::os::unix::fs::symlink("nowhere", path("link")).unwrap();
    for name in ["full", "file", "link"] {
        let run = new_in(folder.path(), &[name]);
        assert_eq!(run.status, Some(1), "{run:#?}");
        assert!(
            run.error_line().contains(&format!("`{name}` already exists and is not an empty directory")),
            "{run:#?}"
        );
        assert_eq!(run.stdout, "");
    }
    assert_eq!(new_in(folder.path(), &["empty"]).status, Some(0));
    assert!(path("empty/Cargo.toml").is_file());
    assert_eq!(std::fs::read_to_string(path("full/note.txt")).unwrap(), "mine");
    assert_eq!(std::fs::read_to_string(path("file")).unwrap(), "mine");
    let names: BTreeSet<_> = std::fs::read_dir(folder.path())
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    assert_eq!(names, ["empty", "file", "full", "link"].map(str::to_owned).into(), "a draft was left behind");
}

/// Not even root may create a folder there.
#[cfg(target_os = "linux")]
#[test]
fn a_folder_that_cannot_be_created_is_named_in_the_error() {
    let run = new_in(Path::new("/proc"), &["shop"]);
    assert_eq!(run.status, Some(1), "{run:#?}");
    assert!(run.error_line().starts_with("larder: cannot create the directory `.shop."), "{run:#?}");
}

/// The package of the program contains copies of the files that `larder new` writes.
#[test]
fn copies_in_the_templates_are_equal_to_their_originals() {
    for (template, source) in [
        ("python/larder_cache.py", "examples/python/larder_cache.py"),
        ("python/requirements.txt", "examples/python/requirements.txt"),
        ("javascript/larder-cache.js", "examples/javascript/larder-cache.js"),
    ] {
        assert_eq!(read(&format!("host/cli/templates/{template}")), read(source), "{template} is not {source}");
    }
    let json = |path: &str| -> Value { serde_json::from_str(&read(path)).unwrap() };
    let [package, lock] = ["package.json", "package-lock.json"].map(|file| {
        [json(&format!("host/cli/templates/javascript/{file}")), json(&format!("examples/javascript/{file}"))]
    });
    assert_eq!(package[0]["devDependencies"], package[1]["devDependencies"]);
    // The package itself is listed as well, under its name.
    let tools = lock.map(|lock| {
        let mut packages = lock["packages"].as_object().unwrap().clone();
        packages.remove("");
        packages
    });
    assert!(tools[0].contains_key("node_modules/componentize-qjs"));
    assert_eq!(tools[0], tools[1]);
}
