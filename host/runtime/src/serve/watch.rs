//! Plugins' files that change while they are served.

// Decision: docs/decisions/0038-watch-polls-file-times.md

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::MissedTickBehavior;

use super::{Route, Server, Shared};
use crate::file_version::FileVersion;

/// How often the files are looked at. One that is the same at two looks is taken for whole.
const INTERVAL: Duration = Duration::from_secs(1);

/// What is known of one plugin's file.
#[derive(Debug, Clone, Copy)]
struct Watched {
    /// How it was at the last look.
    seen: FileVersion,
    /// What was last taken for whole, and so loaded, or found to be of no use.
    settled: FileVersion,
}

impl Server {
    /// Looks at the plugins' files once a second and, as [`Server::reload`] does for all, reads again the one that has
    /// changed, as soon as it is the same at two looks.
    pub async fn watch(&self) -> Infallible {
        let mut watched = self.shared.watched();
        let mut looks = tokio::time::interval(INTERVAL);
        looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            looks.tick().await;
            let shared = Arc::clone(&self.shared);
            // A file may be on a network, and to compile takes its time.
            let looking = tokio::task::spawn_blocking(move || {
                shared.look(&mut watched);
                watched
            });
            watched = looking.await.unwrap_or_else(|error| {
                tracing::error!("cannot look at the plugins' files: {error}");
                self.shared.watched()
            });
        }
    }
}

impl Shared {
    fn watched(&self) -> Vec<Watched> {
        self.routes.iter().map(|route| Watched::new(loaded(route))).collect()
    }

    fn look(&self, watched: &mut [Watched]) {
        for (route, watched) in self.routes.iter().zip(watched) {
            let version = FileVersion::of(route.handler().plugin().path());
            if watched.settles(version) && version != loaded(route) {
                route.reload(&self.runtime);
            }
        }
    }
}

/// How the file was when the plugin was read from it.
fn loaded(route: &Route) -> FileVersion {
    route.handler().plugin().version()
}

impl Watched {
    fn new(loaded: FileVersion) -> Self {
        Self { seen: loaded, settled: loaded }
    }

    /// Whether the file is whole with this look, and was not before.
    fn settles(&mut self, version: FileVersion) -> bool {
        let is_same = std::mem::replace(&mut self.seen, version) == version;
        is_same && std::mem::replace(&mut self.settled, version) != version
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Stamps of three files, and of none.
    fn versions() -> [FileVersion; 4] {
        let folder = std::env::temp_dir().join(format!("larder-watch-{}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        let versions = ["", "a", "ab", "none"].map(|text| {
            let file = folder.join(format!("file-{text}"));
            if text != "none" {
                std::fs::write(&file, text).unwrap();
            }
            FileVersion::of(&file)
        });
        std::fs::remove_dir_all(&folder).unwrap();
        versions
    }

    #[test]
    fn a_file_is_whole_once_it_is_the_same_at_two_looks() {
        let [old, half, new, none] = versions();
        let mut watched = Watched::new(old);
        let looks = [
            (old, false),
            (old, false),
            // In place, bit by bit.
            (half, false),
            (new, false),
            (new, true),
            (new, false),
            // Gone for a moment, and gone.
            (none, false),
            (new, false),
            (new, false),
            (none, false),
            (none, true),
            (none, false),
            // Back to what it was.
            (old, false),
            (old, true),
            (old, false),
        ];
        for (index, (version, is_whole)) in looks.into_iter().enumerate() {
            assert_eq!(watched.settles(version), is_whole, "look {index}");
        }
    }
}
