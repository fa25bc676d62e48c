//! Plugins' files that change while they are served.

// Decision: docs/decisions/0038-watch-polls-file-times.md

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::MissedTickBehavior;

use super::{Route, Server, Shared};
use crate::stamp::Stamp;

/// How often the files are looked at. One that is the same at two looks is taken for whole.
const INTERVAL: Duration = Duration::from_secs(1);

/// What is known of one plugin's file.
#[derive(Debug, Clone, Copy)]
struct Watched {
    /// How it was at the last look.
    seen: Stamp,
    /// What was last taken for whole, and so loaded, or found to be of no use.
    settled: Stamp,
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
            let stamp = Stamp::of(route.handler().plugin().path());
            if watched.settles(stamp) && stamp != loaded(route) {
                route.reload(&self.runtime);
            }
        }
    }
}

/// How the file was when the plugin was read from it.
fn loaded(route: &Route) -> Stamp {
    route.handler().plugin().stamp()
}

impl Watched {
    fn new(loaded: Stamp) -> Self {
        Self { seen: loaded, settled: loaded }
    }

    /// Whether the file is whole with this look, and was not before.
    fn settles(&mut self, stamp: Stamp) -> bool {
        let is_same = std::mem::replace(&mut self.seen, stamp) == stamp;
        is_same && std::mem::replace(&mut self.settled, stamp) != stamp
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Stamps of three files, and of none.
    fn stamps() -> [Stamp; 4] {
        let folder = std::env::temp_dir().join(format!("larder-watch-{}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        let stamps = ["", "a", "ab", "none"].map(|text| {
            let file = folder.join(format!("file-{text}"));
            if text != "none" {
                std::fs::write(&file, text).unwrap();
            }
            Stamp::of(&file)
        });
        std::fs::remove_dir_all(&folder).unwrap();
        stamps
    }

    #[test]
    fn a_file_is_whole_once_it_is_the_same_at_two_looks() {
        let [old, half, new, none] = stamps();
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
        for (index, (stamp, is_whole)) in looks.into_iter().enumerate() {
            assert_eq!(watched.settles(stamp), is_whole, "look {index}");
        }
    }
}
