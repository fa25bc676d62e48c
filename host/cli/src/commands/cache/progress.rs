//! A line about a long clear, for a person at a terminal.

use std::io::{IsTerminal, Write};
use std::time::{Duration, Instant};

use larder_host::cache::{CacheError, ClearProgress, ScopedCache};

/// How often the line is written anew. A clear that is shorter has none.
const INTERVAL: Duration = Duration::from_millis(500);

/// Clears the keys that match, or all. On a terminal, a line on stderr says how far it is.
pub(super) async fn clear(cache: &ScopedCache, pattern: Option<&str>) -> Result<u64, CacheError> {
    let progress = ClearProgress::default();
    let clear = cache.clear_with(pattern, &progress);
    if !std::io::stderr().is_terminal() || !tracing::enabled!(tracing::Level::WARN) {
        return clear.await;
    }
    let mut clear = std::pin::pin!(clear);
    let start = Instant::now();
    let mut is_shown = false;
    loop {
        tokio::select! {
            biased;
            cleared = &mut clear => {
                if is_shown {
                    show("");
                }
                return cleared;
            }
            () = tokio::time::sleep(INTERVAL) => {
                is_shown = true;
                show(&line(&progress, start.elapsed()));
            }
        }
    }
}

fn line(progress: &ClearProgress, elapsed: Duration) -> String {
    let (looked_at, removed) = (progress.looked_at(), progress.removed());
    let rate = looked_at as f64 / elapsed.as_secs_f64().max(0.001);
    format!("looked at about {looked_at} keys ({rate:.0} per second), removed {removed}")
}

/// Replaces the line. A terminal that is gone is no reason to stop.
fn show(line: &str) {
    let mut stderr = std::io::stderr();
    let _gone = write!(stderr, "\r\x1b[K{line}").and_then(|()| stderr.flush());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_line_has_what_was_done_and_how_fast() {
        let line = line(&ClearProgress::default(), Duration::from_secs(1));
        assert_eq!(line, "looked at about 0 keys (0 per second), removed 0");
    }
}
