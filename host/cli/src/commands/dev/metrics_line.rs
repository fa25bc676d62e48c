//! Logs one line about the requests of each interval in which there were some.

use std::time::Duration;

use larder_host::Caches;

use super::super::top::summary::Summary;
use crate::recorder::Recorder;

const INTERVAL: Duration = Duration::from_secs(5);

/// Logs until the future is dropped.
pub(super) async fn log(recorder: &Recorder, caches: &Caches) {
    // A host has at least one cache from its start, so that its metrics can be read.
    let Ok(mut summary) = Summary::new(&recorder.render(caches)) else { return };
    loop {
        tokio::time::sleep(INTERVAL).await;
        if let Ok(Some(line)) = summary.next(&recorder.render(caches)) {
            tracing::info!("{line}");
        }
    }
}
