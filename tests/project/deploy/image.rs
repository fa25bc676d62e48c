//! The Dockerfile, and .dockerignore.

use std::process::Command;

use larder_tests::program;

use super::*;

/// The instructions of a stage, with their first word.
type Stage = Vec<(String, String)>;

/// The stage that builds, and the one that ships.
fn stages() -> (Stage, Stage) {
    let file = read("deploy/Dockerfile").replace("\\\n", " ");
    let lines = file.lines().filter(|line| !line.is_empty() && !line.starts_with('#'));
    let words = lines.map(|line| line.split_once(' ').unwrap());
    let mut build: Stage = words.map(|(instruction, rest)| (instruction.to_owned(), rest.to_owned())).collect();
    let last = build.iter().rposition(|(instruction, _)| instruction == "FROM").unwrap();
    let ships = build.split_off(last);
    (build, ships)
}

/// The arguments of each occurrence of one instruction.
fn of<'a>(stage: &'a [(String, String)], instruction: &str) -> Vec<&'a str> {
    stage.iter().filter(|(name, _)| name == instruction).map(|(_, rest)| rest.as_str()).collect()
}

#[test]
fn both_stages_name_their_version_and_the_first_one_our_compiler() {
    let (build, ships) = stages();
    let (from, _) = of(&build, "FROM")[0].split_once(" AS ").unwrap();
    assert_version(from);
    assert_version(of(&ships, "FROM")[0]);
    let cargo: toml::Table = read("Cargo.toml").parse().unwrap();
    let version = cargo["workspace"]["package"]["rust-version"].as_str().unwrap();
    assert!(from.starts_with(&format!("rust:{version}-")), "{from}");
    // The program is linked to the C library of one Debian, and runs with that of the same.
    assert!(from.ends_with("-bookworm") && of(&ships, "FROM")[0].contains("-debian12"));
}

#[test]
fn the_final_image_has_the_program_and_no_shell_and_no_root() {
    let (build, ships) = stages();
    assert_eq!(of(&ships, "RUN"), [""; 0], "there is nothing to run it with");
    assert!(of(&ships, "FROM")[0].starts_with("gcr.io/distroless/cc-"));
    let (user, group) = of(&ships, "USER")[0].split_once(':').unwrap();
    assert!(user.parse::<u32>().unwrap() > 0 && group.parse::<u32>().unwrap() > 0);
    let copied: Vec<Vec<&str>> = of(&ships, "COPY").iter().map(|copy| copy.split(' ').collect()).collect();
    assert_eq!(copied[0], ["--from=build", "/usr/local/bin/larder", "/usr/local/bin/larder"]);
    assert!(of(&build, "RUN")[0].ends_with("&& cp target/release/larder /usr/local/bin/larder"));
    assert_eq!(copied.len(), 1, "a configuration of the image's own would be in the way of the operator's");
    assert_eq!(words(&ships, "ENTRYPOINT"), [copied[0][2]]);
}

fn words(stage: &[(String, String)], instruction: &str) -> Vec<String> {
    serde_json::from_str(of(stage, instruction)[0]).unwrap()
}

/// As `docker run larder` does: it finds no configuration in its folder, or the one that is mounted there.
#[test]
fn the_images_own_command_succeeds_without_a_configuration_and_checks_the_mounted_one() {
    let (_, ships) = stages();
    let command = words(&ships, "CMD");
    assert!(of(&ships, "ENV").is_empty());
    assert!(Larder::new(&command).succeed().stdout.contains("ram"));
    let mounted = "[caches.mounted]\ntype = \"ram\"\n";
    assert!(Larder::new(&command).config(mounted).succeed().stdout.contains("mounted"));
    // It is found because the program starts where it is mounted.
    let file = read("deploy/Dockerfile");
    assert!(file.contains(&format!("/larder.toml:{}/larder.toml:ro", of(&ships, "WORKDIR")[0])));
}

#[test]
fn the_image_says_what_it_is_and_which_ports_it_uses() {
    let (_, ships) = stages();
    let labels = of(&ships, "LABEL")[0];
    let manifest: toml::Table = read("Cargo.toml").parse().unwrap();
    let package = &manifest["workspace"]["package"];
    let of_package = |key: &str| package[key].as_str().unwrap().to_owned();
    for (label, value) in [
        ("title", "Larder".to_owned()),
        ("version", of_package("version")),
        ("licenses", of_package("license")),
        ("documentation", "https://docs.rs/larder-cli".to_owned()),
    ] {
        assert!(labels.contains(&format!("org.opencontainers.image.{label}=\"{value}\"")), "{label}: {labels}");
    }
    let compose = super::compose::compose();
    let host = super::compose::host(&compose["services"]["larder-1"]);
    assert_eq!(of(&ships, "EXPOSE"), [format!("{} {}", host.port(), host.metrics_port())]);
}

/// The patterns of .dockerignore, which have no wildcards but the one for the documents at the root.
fn is_ignored(path: &str) -> bool {
    read(".dockerignore").lines().filter(|line| !line.starts_with('#')).any(|pattern| match pattern {
        "*.md" => path.ends_with(".md") && !path.contains('/'),
        pattern => {
            assert!(!pattern.contains(['*', '!', '?']), "`{pattern}` is not understood here");
            path.strip_prefix(pattern).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
        }
    })
}

#[test]
fn the_build_gets_what_it_reads_and_no_document_and_no_test() {
    let built = program().with_extension("d");
    let built = std::fs::read_to_string(&built).unwrap_or_else(|error| panic!("{}: {error}", built.display()));
    let root = format!("{}/", root().canonicalize().unwrap().display());
    let sources: Vec<&str> = built.split_whitespace().filter_map(|path| path.strip_prefix(root.as_str())).collect();
    assert!(sources.len() > 100, "{sources:?}");
    for source in sources.iter().filter(|source| !source.starts_with("target/")) {
        assert!(!is_ignored(source), "{source} is part of the program");
    }
    for other in
        ["README.md", "CHANGELOG.md", "docs/caching.md", "deploy/compose.yaml", "tests/project/main.rs", ".git/HEAD"]
    {
        assert!(is_ignored(other), "a change of {other} builds the program again");
    }
    // Cargo accepts the workspace as the build sees it.
    let folder = tempfile::TempDir::new().unwrap();
    copy_context(Path::new(&root), "", folder.path());
    let cargo = std::env::var_os("CARGO").unwrap_or("cargo".into());
    let mut tree = Command::new(cargo);
    tree.args(["tree", "--offline", "--locked", "-p", "larder-cli", "--depth", "0"]).current_dir(folder.path());
    let output = tree.output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

/// Copies what Docker gives to the build, below a folder of the repository.
fn copy_context(root: &Path, below: &str, to: &Path) {
    std::fs::create_dir_all(to.join(below)).unwrap();
    for entry in std::fs::read_dir(root.join(below)).unwrap() {
        let entry = entry.unwrap();
        let name = entry.file_name().into_string().unwrap();
        let path = if below.is_empty() { name } else { format!("{below}/{name}") };
        if is_ignored(&path) {
            continue;
        }
        match entry.file_type().unwrap().is_dir() {
            true => copy_context(root, &path, to),
            false => drop(std::fs::copy(entry.path(), to.join(&path)).unwrap()),
        }
    }
}
