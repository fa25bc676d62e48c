//! The tables and plots of docs/performance.md are drawn from the results beside it.

use std::process::Command;

use larder_tests::repository::root;
use larder_tests::skip;

#[test]
fn the_page_and_its_plots_are_drawn_from_the_results() {
    let check = Command::new("python3").arg(root().join("docs/performance/draw.py")).arg("--check").output();
    let Ok(check) = check else {
        return skip("python3 is not installed");
    };
    assert!(check.status.success(), "{}", String::from_utf8_lossy(&check.stderr));
}
