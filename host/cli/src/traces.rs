//! Exports traces to a collector with OTLP over HTTP. The environment variables of OpenTelemetry configure it.

use std::time::Duration;

use larder_host::Error;
use opentelemetry::trace::TracerProvider;
use opentelemetry_http::hyper::HyperClient;
use opentelemetry_http::{Bytes, HttpClient, HttpError, Request, Response};
use opentelemetry_otlp::{SpanExporter, WithHttpConfig};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::trace::SdkTracerProvider;
use tokio::runtime::{Handle, Runtime};
use tracing::Subscriber;
use tracing_subscriber::filter::filter_fn;
use tracing_subscriber::layer::Layer;
use tracing_subscriber::registry::LookupSpan;

use crate::telemetry::TARGET;

/// The variables that name a collector, in order of precedence.
const ENDPOINTS: [&str; 2] = ["OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT"];

/// The timeout for one batch of spans, and for the export of the remaining spans at shutdown.
const EXPORT_TIMEOUT: Duration = Duration::from_secs(5);

/// A running exporter.
#[derive(Debug)]
pub(crate) struct TraceExporter(SdkTracerProvider);

impl TraceExporter {
    /// Starts to export. Returns `None` if the environment names no collector, or turns traces off.
    ///
    /// # Errors
    ///
    /// If the collector's URL cannot be used; the operator must correct the variable.
    pub(crate) fn start(runtime: &Handle) -> anyhow::Result<Option<Self>> {
        let variable = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
        let is = |name, expected: &str| variable(name).is_some_and(|value| value.eq_ignore_ascii_case(expected));
        if is("OTEL_SDK_DISABLED", "true") || is("OTEL_TRACES_EXPORTER", "none") {
            return Ok(None);
        }
        let Some((name, endpoint)) = ENDPOINTS.iter().find_map(|name| Some((name, variable(name)?))) else {
            return Ok(None);
        };
        if !endpoint.starts_with("http://") {
            let message = format!(
                "`{name}` must begin with `http://`: the exporter does not support TLS; use a collector near this host"
            );
            return Err(Error::Option(message).into());
        }
        let client = HyperClient::with_default_connector(EXPORT_TIMEOUT, None);
        let client = RuntimeClient { client, runtime: runtime.clone() };
        let exporter = SpanExporter::builder().with_http().with_http_client(client).build();
        let exporter = exporter.map_err(|error| Error::Option(format!("cannot export traces to `{name}`: {error}")))?;
        let mut resource = Resource::builder();
        if variable("OTEL_SERVICE_NAME").is_none() {
            resource = resource.with_service_name("larder");
        }
        let provider = SdkTracerProvider::builder().with_resource(resource.build()).with_batch_exporter(exporter);
        Ok(Some(Self(provider.build())))
    }

    /// The layer that exports Larder's spans. Log events are not exported, because they may quote a server or a plugin.
    pub(crate) fn layer<S: Subscriber + for<'a> LookupSpan<'a>>(&self) -> impl Layer<S> + use<S> {
        tracing_opentelemetry::layer()
            .with_tracer(self.0.tracer("larder"))
            .with_location(false)
            .with_threads(false)
            .with_tracked_inactivity(false)
            .with_filter(filter_fn(|metadata| metadata.is_span() && metadata.target().starts_with(TARGET)))
    }

    /// Exports the remaining spans. Logs a warning if that fails.
    pub(crate) fn shut_down(self, runtime: &Runtime) {
        // On a thread of its own, because the export blocks while the runtime sends.
        let export = runtime.spawn_blocking(move || self.0.shutdown_with_timeout(EXPORT_TIMEOUT));
        match runtime.block_on(export) {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::warn!("cannot export the last traces: {error}"),
            Err(error) => tracing::warn!("cannot export the last traces: {error}"),
        }
    }
}

/// An HTTP client that sends on the program's runtime, because the exporter's thread has none.
#[derive(Debug)]
struct RuntimeClient {
    client: HyperClient,
    runtime: Handle,
}

#[async_trait::async_trait]
impl HttpClient for RuntimeClient {
    async fn send_bytes(&self, request: Request<Bytes>) -> Result<Response<Bytes>, HttpError> {
        let client = self.client.clone();
        self.runtime.spawn(async move { client.send_bytes(request).await }).await?
    }
}
