//! The pictures are what their script draws.

use std::process::Command;

use larder_tests::repository::root;
use larder_tests::skip;

// Decision: docs/decisions/0101-pictures-are-drawn-by-scripts-and-bring-their-background.md
#[test]
fn the_pictures_are_drawn_by_their_script() {
    let check = Command::new("python3").arg(root().join("docs/pictures/draw.py")).arg("--check").output();
    let Ok(check) = check else {
        return skip("python3 is not installed");
    };
    assert!(check.status.success(), "{}", String::from_utf8_lossy(&check.stderr));
}
