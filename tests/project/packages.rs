//! The packages for npm and pip are of the right platforms, and run where they are installed.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use larder_tests::repository::root;
use larder_tests::{LarderProcess, guest, program, skip};
use serde_json::{Value, json};
use tempfile::TempDir;

const VERSION: &str = env!("CARGO_PKG_VERSION");

/// A command that must succeed, in a folder, as a user with an empty home who has set nothing. Returns its standard output,
/// or `None` if there is no such program.
fn run(folder: &Path, program: impl AsRef<Path>, arguments: &[&str]) -> Option<String> {
    let mut command = Command::new(program.as_ref());
    let Ok(output) = as_new_user(command.args(arguments), folder).output() else { return None };
    let Output { status, stdout, stderr } = output;
    assert!(status.success(), "{command:?}: {}", String::from_utf8_lossy(&stderr));
    Some(String::from_utf8(stdout).unwrap())
}

fn as_new_user<'a>(command: &'a mut Command, folder: &Path) -> &'a mut Command {
    let path = std::env::var_os("PATH").unwrap_or_default();
    // Its caches are in its home, and nothing here needs a registry.
    let offline = [("npm_config_offline", "true"), ("npm_config_update_notifier", "false"), ("PIP_NO_INDEX", "1")];
    command.env_clear().envs(offline).env("PATH", path).env("HOME", folder).current_dir(folder)
}

/// Makes the packages from the archives in `dist`, and returns their paths.
fn packages(folder: &TempDir) -> Option<Vec<PathBuf>> {
    let script = root().join(".ci/packages");
    let printed = run(folder.path(), "python3", &[script.to_str().unwrap(), "dist", "packages"])?;
    Some(printed.lines().map(|path| folder.path().join(path)).collect())
}

/// The only package whose name begins and ends with these.
fn named<'a>(packages: &'a [PathBuf], begin: &str, end: &str) -> &'a str {
    let is_named = |path: &&PathBuf| {
        let name = path.file_name().unwrap().to_str().unwrap();
        name.starts_with(begin) && name.ends_with(end)
    };
    let found: Vec<_> = packages.iter().filter(is_named).collect();
    assert!(found.len() == 1, "{begin}…{end} in {packages:?}");
    found[0].to_str().unwrap()
}

/// An archive of the program under test without its debug information, which would fill the packages.
fn archive_of_the_program(folder: &TempDir) {
    let stripped = folder.path().join("larder");
    std::fs::copy(program(), &stripped).unwrap();
    let _not_stripped = Command::new("strip").arg(&stripped).status();
    let mut dist = Command::new(root().join(".ci/dist"));
    let packed = dist.arg(&stripped).arg(folder.path().join("dist")).output().unwrap();
    assert!(packed.status.success(), "{}", String::from_utf8_lossy(&packed.stderr));
}

/// What an installed program does: its version, a plugin on a RAM cache, and the exit status of a failure.
fn assert_runs(folder: &Path, larder: &Path) {
    assert_eq!(run(folder, larder, &["--version"]).unwrap(), run(folder, program(), &["--version"]).unwrap());
    let plugin = guest("hello-cache");
    assert_eq!(run(folder, larder, &["run", plugin.to_str().unwrap()]).unwrap(), "hello\n");
    let mut missing = Command::new(larder);
    let missing = as_new_user(missing.args(["run", "missing.wasm"]), folder).output().unwrap();
    assert_eq!(missing.status.code(), Some(1), "{missing:?}");
}

/// From the files alone, without a registry, into an empty folder of a user with an empty home.
#[test]
fn the_package_for_npm_runs_a_plugin_where_it_is_installed() {
    let folder = TempDir::new().unwrap();
    archive_of_the_program(&folder);
    let Some(packages) = packages(&folder) else { return skip("python3 is not installed") };
    let platform = named(&packages, &platform_package(), ".tgz");
    let launcher = named(&packages, &format!("larder-cli-{VERSION}"), ".tgz");
    let install = ["install", "--ignore-scripts", "--no-audit", "--no-fund", launcher, platform];
    if run(folder.path(), "npm", &install).is_none() {
        return skip("npm is not installed");
    }
    let contents = manifest(&folder, platform);
    assert!(contents.get("scripts").is_none(), "it runs a script when it is installed: {contents}");
    if cfg!(target_os = "linux") {
        assert_eq!((&contents["os"], &contents["libc"]), (&json!(["linux"]), &json!(["glibc"])));
    }
    let larder = folder.path().join("node_modules/.bin/larder");
    assert_runs(folder.path(), &larder);
    let version = run(folder.path(), "npx", &["larder-cli", "--version"]).unwrap();
    assert_eq!(version, run(folder.path(), program(), &["--version"]).unwrap());

    // The launcher passes a signal on, and ends with the program's status.
    let mut session = Command::new(&larder);
    let session = as_new_user(session.arg("run").arg(guest("session")), folder.path());
    let mut session = LarderProcess::start(session, TempDir::new().unwrap());
    session.write_line("take k");
    assert_eq!(session.read_line(), "vacant");
    session.terminate();
    assert_eq!(session.wait().status, Some(143));

    // Without the package of its platform the launcher says what is missing.
    std::fs::remove_dir_all(folder.path().join(format!("node_modules/{}", platform_package()))).unwrap();
    let mut missing = Command::new(&larder);
    let missing = as_new_user(missing.arg("--version"), folder.path()).output().unwrap();
    let reason = String::from_utf8(missing.stderr).unwrap();
    assert!(missing.status.code() == Some(1) && reason.contains(&platform_package()), "{reason}");
}

/// The name of the package of this platform.
fn platform_package() -> String {
    let cpu = if std::env::consts::ARCH == "x86_64" { "x64" } else { "arm64" };
    let system = if cfg!(target_os = "macos") { "darwin" } else { "linux" };
    format!("larder-cli-{system}-{cpu}")
}

#[test]
fn the_package_for_pip_runs_a_plugin_where_it_is_installed() {
    let folder = TempDir::new().unwrap();
    archive_of_the_program(&folder);
    let Some(packages) = packages(&folder) else { return skip("python3 is not installed") };
    run(folder.path(), "python3", &["-m", "venv", "venv"]).unwrap();
    let pip = folder.path().join("venv/bin/pip");
    // It is refused if its tags are not of this machine.
    run(folder.path(), pip, &["install", "--quiet", named(&packages, "larder_cli-", ".whl")]).unwrap();
    assert_runs(folder.path(), &folder.path().join("venv/bin/larder"));
    // Every file is in the record, with its size and hash.
    let check = "import base64, hashlib, importlib.metadata as metadata\n\
                 for file in metadata.files('larder-cli'):\n    \
                 if file.hash:\n        \
                 digest = base64.urlsafe_b64encode(hashlib.new(file.hash.mode, file.read_binary()).digest())\n        \
                 assert digest.rstrip(b'=').decode() == file.hash.value, file\n        \
                 print(file.name)\n";
    let recorded = run(folder.path(), folder.path().join("venv/bin/python"), &["-c", check]).unwrap();
    for file in ["larder", "LICENSE", "METADATA", "WHEEL"] {
        assert!(recorded.lines().any(|recorded| recorded == file), "{file} is not in {recorded}");
    }
}

/// The head of a Mach-O program, which says that it needs this version of macOS: as much as the script reads.
fn mach_o(major: u32, minor: u32) -> Vec<u8> {
    let header = [0xfeed_facf, 0x0100_000c, 0, 2, 1, 24, 0, 0];
    let build_version = [0x32, 24, 1, (major << 16) | (minor << 8), 0, 0];
    header.into_iter().chain(build_version).flat_map(u32::to_le_bytes).collect()
}

/// An archive as `.ci/dist` makes it, of this program.
fn archive(folder: &TempDir, name: &str, program: &[u8]) {
    std::fs::create_dir_all(folder.path().join("dist")).unwrap();
    std::fs::create_dir(folder.path().join(name)).unwrap();
    std::fs::write(folder.path().join(name).join("larder"), program).unwrap();
    run(folder.path(), "tar", &["-czf", &format!("dist/{name}.tar.gz"), name]).unwrap();
}

/// The manifest in a package for npm.
fn manifest(folder: &TempDir, package: &str) -> Value {
    let manifest = run(folder.path(), "tar", &["-xzOf", package, "package/package.json"]).unwrap();
    serde_json::from_str(&manifest).unwrap()
}

// Decision: docs/decisions/0100-the-packages-for-npm-and-pypi-are-named-larder-cli.md
#[test]
fn each_platform_has_its_packages_and_the_launcher_depends_on_them() {
    let folder = TempDir::new().unwrap();
    archive(&folder, &format!("larder-{VERSION}-aarch64-apple-darwin"), &mach_o(11, 3));
    archive(&folder, &format!("larder-{VERSION}-x86_64-apple-darwin"), &mach_o(10, 12));
    let Some(packages) = packages(&folder) else { return skip("python3 is not installed") };
    named(&packages, &format!("larder_cli-{VERSION}-py3-none-macosx_11_0_"), "arm64.whl");
    named(&packages, &format!("larder_cli-{VERSION}-py3-none-macosx_10_12_"), "x86_64.whl");
    for (cpu, end) in [("arm64", "darwin-arm64"), ("x64", "darwin-x64")] {
        let platform = manifest(&folder, named(&packages, &format!("larder-cli-{end}"), ".tgz"));
        assert_eq!((&platform["os"], &platform["cpu"]), (&json!(["darwin"]), &json!([cpu])));
        assert_eq!(platform["libc"], Value::Null);
    }
    let launcher = manifest(&folder, named(&packages, &format!("larder-cli-{VERSION}"), ".tgz"));
    let needed = json!({ "larder-cli-darwin-arm64": VERSION, "larder-cli-darwin-x64": VERSION });
    assert_eq!(launcher["optionalDependencies"], needed);
    assert!(launcher.get("scripts").is_none(), "it runs a script when it is installed: {launcher}");
}

#[test]
fn the_same_archives_make_the_same_packages() {
    let folder = TempDir::new().unwrap();
    archive(&folder, &format!("larder-{VERSION}-aarch64-apple-darwin"), &mach_o(11, 3));
    let bytes = |packages: Vec<PathBuf>| packages.iter().map(|path| std::fs::read(path).unwrap()).collect::<Vec<_>>();
    let Some(first) = packages(&folder).map(bytes) else { return skip("python3 is not installed") };
    assert!(packages(&folder).map(bytes).unwrap() == first);
}
