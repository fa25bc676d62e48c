//! The broken variants of the near tier, which `make near-variants` builds and plays against, can be made from its sources.

use std::process::Command;

use larder_tests::repository::{read, root};
use larder_tests::skip;

#[test]
fn each_broken_variant_of_the_near_tier_is_a_change_of_its_sources() {
    let mut variants = 0;
    for entry in std::fs::read_dir(root().join("tests/near-variants")).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_none_or(|extension| extension != "patch") {
            continue;
        }
        variants += 1;
        let Ok(check) = Command::new("git").args(["apply", "--check"]).arg(&path).current_dir(root()).output() else {
            return skip("git is not installed");
        };
        let reason = String::from_utf8_lossy(&check.stderr);
        assert!(check.status.success(), "{} does not apply any more, change it too: {reason}", path.display());
        let name = path.file_stem().unwrap().to_str().unwrap();
        assert!(read("docs/near.md").contains(&format!("`{name}`")), "docs/near.md does not name `{name}`");
    }
    assert!(variants > 0, "there are no variants");
}
