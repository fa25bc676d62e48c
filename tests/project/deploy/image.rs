//! The Dockerfile.

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
    assert_eq!(copied[1][0], "deploy/larder.toml");
    assert_eq!(of(&ships, "ENV"), [format!("{}={}", Config::PATH_VARIABLE, copied[1][1])]);
    let words = |instruction| serde_json::from_str::<Vec<String>>(of(&ships, instruction)[0]).unwrap();
    assert_eq!(words("ENTRYPOINT"), [copied[0][2]]);
    assert_understood(&words("CMD"));
}
