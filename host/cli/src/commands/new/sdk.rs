//! Finds the SDK for a plugin in Rust: the folder `guest-sdk` of a checkout of Larder.

// Decision: docs/decisions/0099-a-new-plugin-uses-the-sdk-of-the-checkout-around-the-program.md

use std::fs;
use std::path::{Path, PathBuf};

/// The folder in a checkout.
const FOLDER: &str = "guest-sdk";

/// True if the folder has the crate `larder`.
pub(super) fn is_sdk(folder: &Path) -> bool {
    fs::read_to_string(folder.join("Cargo.toml")).is_ok_and(|manifest| manifest.contains("name = \"larder\"\n"))
}

/// The SDK of the checkout in which the program was built, else of the one around the working directory.
pub(super) fn find() -> Option<PathBuf> {
    let program = std::env::current_exe().and_then(fs::canonicalize).ok();
    let starts = [program, std::env::current_dir().ok()];
    let sdk = |start: PathBuf| start.ancestors().map(|folder| folder.join(FOLDER)).find(|folder| is_sdk(folder));
    starts.into_iter().flatten().find_map(sdk)
}
