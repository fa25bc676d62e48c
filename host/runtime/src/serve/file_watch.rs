//! Reloads plugins whose files change while they are served.

// Decision: docs/decisions/0038-watch-polls-file-times.md

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::MissedTickBehavior;

use super::state::{ServedRoute, ServerState};
use crate::file_version::FileVersion;

/// The polling interval. A file that is unchanged between two polls is considered complete.
const INTERVAL: Duration = Duration::from_secs(1);

/// The versions of one plugin's file.
#[derive(Debug, Clone, Copy)]
struct Watched {
    /// The version at the last poll.
    seen: FileVersion,
    /// The last version that was considered complete, and was loaded or refused.
    settled: FileVersion,
}

/// Polls the files of all routes for ever, and reloads those that have changed.
pub(super) async fn watch(state: &Arc<ServerState>) -> Infallible {
    let mut watched = loaded_versions(state);
    let mut polls = tokio::time::interval(INTERVAL);
    polls.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        polls.tick().await;
        let in_task = Arc::clone(state);
        // Files may be on a network, and compilation takes time.
        let polling = tokio::task::spawn_blocking(move || {
            poll_files(&in_task, &mut watched);
            watched
        });
        watched = polling.await.unwrap_or_else(|error| {
            tracing::error!("cannot check the files of plugins: {error}");
            loaded_versions(state)
        });
    }
}

fn loaded_versions(state: &ServerState) -> Vec<Watched> {
    state.routes.iter().map(|route| Watched::new(loaded(route))).collect()
}

fn poll_files(state: &ServerState, watched: &mut [Watched]) {
    for (route, watched) in state.routes.iter().zip(watched) {
        let version = FileVersion::of(route.handler().plugin.path());
        if watched.settles(version) && version != loaded(route) {
            route.reload(&state.runtime);
        }
    }
}

/// The version of the file that the plugin was loaded from.
fn loaded(route: &ServedRoute) -> FileVersion {
    route.handler().plugin.version()
}

impl Watched {
    fn new(loaded: FileVersion) -> Self {
        Self { seen: loaded, settled: loaded }
    }

    /// True if the file is complete at this poll, and was not before.
    fn settles(&mut self, version: FileVersion) -> bool {
        let is_same = std::mem::replace(&mut self.seen, version) == version;
        is_same && std::mem::replace(&mut self.settled, version) != version
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The versions of three files, and of a missing file.
    fn versions() -> [FileVersion; 4] {
        let directory = std::env::temp_dir().join(format!("larder-watch-{}", std::process::id()));
        std::fs::create_dir_all(&directory).unwrap();
        let versions = ["", "a", "ab", "none"].map(|text| {
            let file = directory.join(format!("file-{text}"));
            if text != "none" {
                std::fs::write(&file, text).unwrap();
            }
            FileVersion::of(&file)
        });
        std::fs::remove_dir_all(&directory).unwrap();
        versions
    }

    #[test]
    fn a_file_is_complete_once_two_polls_see_the_same_version() {
        let [old, half, new, none] = versions();
        let mut watched = Watched::new(old);
        let polls = [
            (old, false),
            (old, false),
            // Written in place, in parts.
            (half, false),
            (new, false),
            (new, true),
            (new, false),
            // Missing for one poll, and removed.
            (none, false),
            (new, false),
            (new, false),
            (none, false),
            (none, true),
            (none, false),
            // The first version again.
            (old, false),
            (old, true),
            (old, false),
        ];
        for (index, (version, is_complete)) in polls.into_iter().enumerate() {
            assert_eq!(watched.settles(version), is_complete, "poll {index}");
        }
    }
}
