//! W3C trace context on its way through a host, and spans for a collector.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::mpsc::{Receiver, channel};

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use larder_tests::{Client, Larder, ServeProcess, TEST_TIMEOUT, Upstream, guest, ok_response};
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::trace::v1::{Span, span::SpanKind, status::StatusCode};
use prost::Message;
use tokio::net::TcpListener;

const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
const PARENT: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

async fn header(serving: &ServeProcess, name: &str, sent: &[(&str, &str)]) -> String {
    let client = Client::connect(serving.address()).await;
    client.get_with(&format!("/header/{name}"), sent).await.unwrap().body
}

#[tokio::test]
async fn a_trace_is_passed_on_to_the_plugin() {
    let serving = ServeProcess::start("");
    let sent = [("traceparent", PARENT), ("tracestate", "a=1,b=2"), ("tracestate", "c=3")];
    assert_eq!(header(&serving, "traceparent", &sent).await, PARENT);
    assert_eq!(header(&serving, "tracestate", &sent).await, "a=1,b=2 | c=3");
    assert_eq!(header(&serving, "traceparent", &[]).await, "");
}

/// A host that answers with the headers of its requests that are about traces.
async fn upstream() -> Upstream {
    Upstream::start(async |request: Request<Incoming>| {
        let header = |name| request.headers().get(name).map_or("", |value| value.to_str().unwrap());
        ok_response(format!("{} {}", header("traceparent"), header("tracestate")))
    })
    .await
}

#[tokio::test]
async fn a_trace_is_passed_on_by_the_requests_of_the_plugin() {
    let upstream = upstream().await;
    let serving = ServeProcess::start(&format!("[plugins.http]\noutgoing_hosts = [\"{}\"]\n", upstream.address()));
    let client = Client::connect(serving.address()).await;
    let fetch = format!("/fetch?http://{}/", upstream.address());
    let sent = [("traceparent", PARENT), ("tracestate", "a=1")];
    assert_eq!(client.get_with(&fetch, &sent).await.unwrap().body, format!("{PARENT} a=1"));
    assert_eq!(client.get_with(&fetch, &[]).await.unwrap().body, " ");
}

#[tokio::test]
async fn an_invalid_trace_is_not_passed_on() {
    let serving = ServeProcess::start("");
    for parent in ["", "garbage", "00-0-0-0", &PARENT.to_uppercase(), &format!("{PARENT}-more")] {
        let sent = [("traceparent", parent), ("tracestate", "a=1")];
        assert_eq!(header(&serving, "traceparent", &sent).await, "", "{parent}");
        assert_eq!(header(&serving, "tracestate", &sent).await, "", "{parent}");
    }
    let twice = [("traceparent", PARENT), ("traceparent", PARENT)];
    assert_eq!(header(&serving, "traceparent", &twice).await, "");
}

/// Receives the exports of hosts, as a collector does.
struct Collector {
    address: SocketAddr,
    exports: Receiver<ExportTraceServiceRequest>,
}

impl Collector {
    async fn start() -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        let (sender, exports) = channel();
        tokio::spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                let sender = sender.clone();
                let service = service_fn(move |request: Request<Incoming>| {
                    let sender = sender.clone();
                    async move {
                        assert_eq!(request.uri().path(), "/v1/traces");
                        let body = request.into_body().collect().await?.to_bytes();
                        // The test has what it needs, and no longer receives.
                        let _over = sender.send(ExportTraceServiceRequest::decode(body).unwrap());
                        Ok::<_, hyper::Error>(Response::new(Full::<Bytes>::default()))
                    }
                });
                tokio::spawn(http1::Builder::new().serve_connection(TokioIo::new(stream), service));
            }
        });
        Self { address, exports }
    }

    fn host(&self, config: &str) -> ServeProcess {
        let larder = Larder::serve().config(config).arg(guest("http"));
        ServeProcess::start_with(larder.env("OTEL_EXPORTER_OTLP_ENDPOINT", format!("http://{}", self.address)))
    }

    /// All spans of a host that has ended, in the order in which they began.
    fn spans(self) -> Vec<Span> {
        let exports = self.exports.try_iter().flat_map(|export| export.resource_spans);
        let spans = exports.flat_map(|of_host| of_host.scope_spans).flat_map(|of_scope| of_scope.spans);
        let mut spans: Vec<Span> = spans.collect();
        // They come in the order of their ends, and a plugin may go on after its answer.
        spans.sort_by_key(|span| span.start_time_unix_nano);
        spans
    }
}

fn attributes(span: &Span) -> BTreeMap<&str, String> {
    let text = |value: &Value| match value {
        Value::StringValue(text) => text.clone(),
        Value::IntValue(number) => number.to_string(),
        other => format!("{other:?}"),
    };
    let attributes = span.attributes.iter();
    attributes
        .map(|attribute| (&*attribute.key, text(attribute.value.as_ref().unwrap().value.as_ref().unwrap())))
        .collect()
}

fn hex(id: &[u8]) -> String {
    id.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[tokio::test]
async fn a_request_is_a_span_of_its_trace_and_each_cache_call_one_below_it() {
    let collector = Collector::start().await;
    let serving = collector.host("[caches.pages]\ntype = \"ram\"\n");
    let client = Client::connect(serving.address()).await;
    let sent = [("traceparent", PARENT), ("tracestate", "a=1")];
    client.get_with("/compute/the-key", &sent).await.unwrap();
    client.get_with("/compute/the-key", &sent).await.unwrap();
    let passed_on = client.get_with("/header/traceparent", &sent).await.unwrap().body;
    assert_eq!(client.get_with("/header/tracestate", &sent).await.unwrap().body, "a=1");
    assert_eq!(client.get_with("/panic", &sent).await.unwrap().status, 500);
    // What is left is sent at the end.
    serving.terminate().await;
    let spans = collector.spans();

    assert!(spans.iter().all(|span| hex(&span.trace_id) == TRACE), "{spans:#?}");
    let requests: Vec<&Span> = spans.iter().filter(|span| span.name == "request").collect();
    assert_eq!(requests.len(), 5, "{spans:#?}");
    for request in &requests {
        assert_eq!(hex(&request.parent_span_id), "00f067aa0ba902b7");
        assert_eq!(request.kind, SpanKind::Server as i32);
        assert_eq!(attributes(request)["http.request.method"], "GET");
    }
    let status = |span: &Span| span.status.as_ref().map_or(0, |status| status.code);
    let about = attributes(requests[0]);
    assert_eq!((&*about["url.path"], &*about["http.response.status_code"]), ("/compute/the-key", "200"));
    assert_eq!((&*about["plugin"], status(requests[0])), ("http", StatusCode::Unset as i32));
    assert_eq!(attributes(requests[4])["http.response.status_code"], "500");
    assert_eq!(status(requests[4]), StatusCode::Error as i32);
    // The plugin receives the span of the request.
    assert_eq!(passed_on, format!("00-{TRACE}-{}-01", hex(&requests[2].span_id)));

    let calls: Vec<(&str, &str, String, usize)> = spans
        .iter()
        .filter(|span| span.name != "request")
        .map(|span| {
            let about = attributes(span);
            assert_eq!((&*about["cache"], &*about["operation"]), ("pages", &*span.name));
            let below = requests.iter().position(|request| request.span_id == span.parent_span_id).unwrap();
            let outcome = about["outcome"].clone();
            assert!(!format!("{about:?}").contains("the-key"), "{about:?}");
            ("call", &*span.name, outcome, below)
        })
        .collect();
    let call = |operation, outcome: &str, below| ("call", operation, outcome.to_owned(), below);
    let expected = [call("get-or-set", "miss", 0), call("fill", "stored", 0), call("get-or-set", "hit", 1)];
    assert_eq!(calls, expected);
}

#[tokio::test]
async fn a_request_of_the_plugin_is_a_span_and_sends_its_context() {
    let (collector, upstream) = (Collector::start().await, upstream().await);
    let serving = collector.host(&format!("[plugins.http]\noutgoing_hosts = [\"{}\"]\n", upstream.address()));
    let client = Client::connect(serving.address()).await;
    let fetch = format!("/fetch?http://{}/the-path", upstream.address());
    let told = client.get_with(&fetch, &[("traceparent", PARENT), ("tracestate", "a=1")]).await.unwrap().body;
    serving.terminate().await;
    let spans = collector.spans();
    let span = |name| spans.iter().find(|span| span.name == name).unwrap_or_else(|| panic!("{name}: {spans:#?}"));
    let (request, sent) = (span("request"), span("outgoing request"));
    assert_eq!((&sent.trace_id, &sent.parent_span_id), (&request.trace_id, &request.span_id));
    assert_eq!(told, format!("00-{TRACE}-{} a=1", hex(&sent.span_id) + "-01"));
    let about = attributes(sent);
    assert_eq!((sent.kind, &*about["outcome"]), (SpanKind::Client as i32, "answered"));
    assert_eq!((&*about["http.request.method"], &*about["server.address"]), ("GET", "127.0.0.1"));
    assert!(!format!("{about:?}").contains("the-path"), "{about:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_run_is_a_span_with_its_calls_below_it() {
    let collector = Collector::start().await;
    let endpoint = format!("http://{}", collector.address);
    let run = Larder::run("hello-cache").env("OTEL_EXPORTER_OTLP_ENDPOINT", endpoint);
    tokio::task::spawn_blocking(|| run.succeed()).await.unwrap();
    let spans = collector.spans();
    let names: Vec<&str> = spans.iter().map(|span| &*span.name).collect();
    assert_eq!(names, ["run", "get-or-set", "fill"]);
    assert!(spans[1..].iter().all(|call| call.parent_span_id == spans[0].span_id), "{spans:#?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_metric_is_exported_if_that_is_turned_off() {
    let collector = Collector::start().await;
    let endpoint = format!("http://{}", collector.address);
    for (name, value) in [("OTEL_SDK_DISABLED", "true"), ("OTEL_TRACES_EXPORTER", "none")] {
        let run = Larder::run("hello-cache").env("OTEL_EXPORTER_OTLP_ENDPOINT", &endpoint).env(name, value);
        tokio::task::spawn_blocking(|| run.succeed()).await.unwrap();
    }
    assert_eq!(collector.spans(), []);
}

#[tokio::test]
async fn a_trace_begins_here_if_the_request_has_none() {
    let collector = Collector::start().await;
    let serving = collector.host("");
    let passed_on = header(&serving, "traceparent", &[]).await;
    serving.terminate().await;
    let spans = collector.spans();
    let [request] = spans.as_slice() else { panic!("{spans:#?}") };
    assert!(request.parent_span_id.is_empty());
    assert_eq!(passed_on, format!("00-{}-{}-01", hex(&request.trace_id), hex(&request.span_id)));
}

#[tokio::test]
async fn a_trace_that_is_not_sampled_is_not_exported() {
    let collector = Collector::start().await;
    let serving = collector.host("");
    let parent = PARENT.replace("-01", "-fe");
    let passed_on = header(&serving, "traceparent", &[("traceparent", &parent)]).await;
    assert!(passed_on.starts_with(&format!("00-{TRACE}-")) && passed_on.ends_with("-00"), "{passed_on}");
    serving.terminate().await;
    assert_eq!(collector.spans(), []);
}

/// Requests are answered, and the end does not wait for long.
#[tokio::test]
async fn an_unreachable_collector_disturbs_no_request() {
    let away = std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let larder = Larder::serve().arg(guest("http"));
    // It takes connections, and says nothing.
    let serving = ServeProcess::start_with(
        larder.env("OTEL_EXPORTER_OTLP_ENDPOINT", format!("http://{}", away.local_addr().unwrap())),
    );
    assert_eq!(serving.get("/hello").await.body, "hello\n");
    let ended = tokio::time::timeout(TEST_TIMEOUT, serving.terminate()).await.expect("it ends");
    assert_eq!(ended.status, Some(0), "{ended:#?}");
    assert!(ended.stderr.contains("WARN") || ended.stderr.contains("ERROR"), "{}", ended.stderr);
}

#[test]
fn a_collector_behind_tls_is_refused() {
    let larder = Larder::serve().arg(guest("http")).env("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "https://localhost:4318");
    let refused = larder.fail(2);
    assert!(
        refused.error_line().contains("`OTEL_EXPORTER_OTLP_TRACES_ENDPOINT` must begin with `http://`"),
        "{refused:?}"
    );
}
