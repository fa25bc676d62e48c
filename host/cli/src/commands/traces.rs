//! Traces for a collector, by OTLP over HTTP. OpenTelemetry's own environment variables say where, how, and which.

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

/// Either of them names a collector.
const ENDPOINTS: [&str; 2] = ["OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT"];

/// How long the collector may take for a batch of spans, and we at the end to send the last ones.
const SEND_TIMEOUT: Duration = Duration::from_secs(5);

/// Traces that are exported.
#[derive(Debug)]
pub(crate) struct Traces(SdkTracerProvider);

impl Traces {
    /// `None` where the environment names no collector.
    pub(crate) fn start(runtime: &Handle) -> anyhow::Result<Option<Self>> {
        let variable = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
        let is = |name, value: &str| variable(name).is_some_and(|set| set.eq_ignore_ascii_case(value));
        if is("OTEL_SDK_DISABLED", "true") || is("OTEL_TRACES_EXPORTER", "none") {
            return Ok(None);
        }
        let Some((name, endpoint)) = ENDPOINTS.iter().find_map(|name| Some((name, variable(name)?))) else {
            return Ok(None);
        };
        if !endpoint.starts_with("http://") {
            let rule =
                format!("`{name}` must begin with `http://`: traces go to a collector near this host, without TLS");
            return Err(Error::Option(rule).into());
        }
        let client = HyperClient::with_default_connector(SEND_TIMEOUT, None);
        let exporter = SpanExporter::builder().with_http().with_http_client(OnRuntime(client, runtime.clone())).build();
        let exporter = exporter.map_err(|error| Error::Option(format!("cannot export traces to `{name}`: {error}")))?;
        let mut resource = Resource::builder();
        if variable("OTEL_SERVICE_NAME").is_none() {
            resource = resource.with_service_name("larder");
        }
        let provider = SdkTracerProvider::builder().with_resource(resource.build()).with_batch_exporter(exporter);
        Ok(Some(Self(provider.build())))
    }

    /// Takes all spans of ours, and not what the log says in them, which may be a server's words or a plugin's.
    pub(crate) fn layer<S: Subscriber + for<'a> LookupSpan<'a>>(&self) -> impl Layer<S> + use<S> {
        tracing_opentelemetry::layer()
            .with_tracer(self.0.tracer("larder"))
            .with_location(false)
            .with_threads(false)
            .with_tracked_inactivity(false)
            .with_filter(filter_fn(|about| about.is_span() && about.target().starts_with("larder_host")))
    }

    /// Sends what is left.
    pub(crate) fn end(self, runtime: &Runtime) {
        // On a thread of its own, because it waits for what the runtime sends.
        let ending = runtime.spawn_blocking(move || self.0.shutdown_with_timeout(SEND_TIMEOUT));
        match runtime.block_on(ending) {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::warn!("the last traces were not sent: {error}"),
            Err(error) => tracing::warn!("the last traces were not sent: {error}"),
        }
    }
}

/// A client for the exporter's thread, which has no runtime of its own.
#[derive(Debug)]
struct OnRuntime(HyperClient, Handle);

#[async_trait::async_trait]
impl HttpClient for OnRuntime {
    async fn send_bytes(&self, request: Request<Bytes>) -> Result<Response<Bytes>, HttpError> {
        let client = self.0.clone();
        self.1.spawn(async move { client.send_bytes(request).await }).await?
    }
}
