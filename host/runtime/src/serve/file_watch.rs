//! Reloads plugins whose files change while they are served.

// Decision: docs/decisions/0038-watch-polls-file-times.md

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use tokio::task::JoinSet;
use tokio::time::MissedTickBehavior;

use super::state::{ServedRoute, ServerState, reload};
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

/// Polls the files of all routes for ever, and reloads those that have changed. A file whose file system does not answer,
/// or that takes long to compile, does not keep the others waiting.
pub(super) async fn watch(state: &Arc<ServerState>) -> Infallible {
    // Dropped with this future, and the tasks with it.
    let mut polling = JoinSet::new();
    for index in 0..state.routes.len() {
        polling.spawn(watch_route(Arc::clone(state), index));
    }
    while let Some(ended) = polling.join_next().await {
        if let Err(error) = ended {
            tracing::error!("cannot check the file of a plugin any more: {error}");
        }
    }
    std::future::pending().await
}

async fn watch_route(state: Arc<ServerState>, index: usize) {
    let Some(route) = state.routes.get(index) else { return };
    let mut watched = Watched::new(loaded(route));
    let mut polls = tokio::time::interval(INTERVAL);
    polls.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        polls.tick().await;
        let path = route.handler().plugin.path().to_owned();
        // Files may be on a network.
        let Ok(version) = tokio::task::spawn_blocking(move || FileVersion::of(&path)).await else { continue };
        if watched.settles(version) && version != loaded(route) {
            // It logs its failure itself.
            let _reloaded = reload(&state, index).await;
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
