//! The recorder of the process's metrics.

use larder_host::Caches;
use larder_host::metrics::{BUCKETS, BUILD_INFO, describe};
use metrics_exporter_prometheus::{PrometheusBuilder, PrometheusHandle};

/// Reads the metrics that the process has recorded. Clones are handles on the same recorder.
#[derive(Clone)]
pub(crate) struct Recorder(PrometheusHandle);

impl Recorder {
    /// Installs the process's recorder. Call it once, and before the caches are connected: metrics are recorded only from
    /// then on.
    ///
    /// # Errors
    ///
    /// If the process has one already.
    pub(crate) fn install() -> anyhow::Result<Self> {
        let recorder = PrometheusBuilder::new().set_buckets(BUCKETS)?.install_recorder()?;
        describe(&[BUILD_INFO]);
        metrics::gauge!(BUILD_INFO.name, "version" => env!("CARGO_PKG_VERSION")).set(1.0);
        Ok(Self(recorder))
    }

    /// The metrics in the text format of Prometheus, with those of the caches as they are now.
    pub(crate) fn render(&self, caches: &Caches) -> String {
        caches.publish();
        self.0.render()
    }

    /// Merges recorded samples into the histograms. Without it, samples accumulate until [`Recorder::render`].
    pub(crate) fn run_upkeep(&self) {
        self.0.run_upkeep();
    }
}
