//! What can be done about a plugin's file that is not there.

use std::ffi::OsStr;
use std::path::Path;

use crate::nearest::did_you_mean;

/// The number of files of a folder that are looked at.
const MAX_FILES: usize = 1_000;

/// The end of a message: a component with a similar name in the same folder, or how to build one.
pub(super) fn advice(path: &Path) -> String {
    let is_build = path.components().any(|part| part.as_os_str() == "wasm32-wasip2");
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten().take(MAX_FILES);
    let names = entries.filter_map(|entry| entry.file_name().into_string().ok());
    let components: Vec<String> =
        names.filter(|name| Path::new(name).extension() == Some(OsStr::new("wasm"))).collect();
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let meant = did_you_mean(&name, components.iter().map(String::as_str));
    match meant.as_str() {
        "" if is_build => "; build it: `cargo build --release --target wasm32-wasip2`, which needs \
                           `rustup target add wasm32-wasip2` once"
            .to_owned(),
        "" => "; build the plugin first, or correct the path".to_owned(),
        _ => meant,
    }
}
