//! Propagates the trace of a request through the host, in the headers of [W3C Trace Context].
//!
//! Without a trace exporter, the host passes the trace context of a request on unchanged. With an exporter (the feature
//! `opentelemetry`, and a layer of the `tracing_opentelemetry` crate in the program's subscriber), the request's span
//! joins the trace, and the host passes on a context that names that span.
//!
//! [W3C Trace Context]: https://www.w3.org/TR/trace-context/

// Decision: docs/decisions/0034-without-an-exporter-the-host-takes-no-part-in-traces.md

use hyper::HeaderMap;
use hyper::header::{HeaderName, HeaderValue};
use tracing::Span;

const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");
const TRACESTATE: HeaderName = HeaderName::from_static("tracestate");

/// The position in a trace: a parent span and the state of the tracing systems.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct TraceContext {
    /// A valid `traceparent`.
    parent: String,
    /// The values of `tracestate`, which are passed on unchanged.
    state: Vec<HeaderValue>,
}

/// A parsed `traceparent`.
#[derive(Debug, PartialEq, Eq)]
struct Parent<'a> {
    trace_id: &'a str,
    span_id: &'a str,
    flags: u8,
}

impl<'a> Parent<'a> {
    /// `None` for a value that is invalid by the specification.
    fn parse(text: &'a str) -> Option<Self> {
        let mut parts = text.splitn(5, '-');
        let mut hex = |len| parts.next().filter(|part| part.len() == len && part.bytes().all(is_hex_digit));
        let (version, trace_id, span_id, flags) = (hex(2)?, hex(32)?, hex(16)?, hex(2)?);
        let is_known = match (version, parts.next()) {
            ("ff", _) | ("00", Some(_)) => false,
            // Later versions may append fields.
            _ => true,
        };
        let is_zero = |id: &str| id.bytes().all(|digit| digit == b'0');
        let flags = u8::from_str_radix(flags, 16).ok()?;
        (is_known && !is_zero(trace_id) && !is_zero(span_id)).then_some(Self { trace_id, span_id, flags })
    }
}

fn is_hex_digit(byte: u8) -> bool {
    matches!(byte, b'0'..=b'9' | b'a'..=b'f')
}

impl TraceContext {
    /// Removes the context from a request's headers. `None` if it is absent, repeated or invalid.
    pub(crate) fn take(headers: &mut HeaderMap) -> Option<Self> {
        if !headers.contains_key(TRACEPARENT) && !headers.contains_key(TRACESTATE) {
            return None;
        }
        let mut parents = headers.get_all(TRACEPARENT).iter();
        let parent = match (parents.next(), parents.next()) {
            (Some(only), None) => only.to_str().ok().filter(|text| Parent::parse(text).is_some()).map(str::to_owned),
            _ => None,
        };
        let state = headers.get_all(TRACESTATE).iter().cloned().collect();
        headers.remove(TRACEPARENT);
        headers.remove(TRACESTATE);
        Some(Self { parent: parent?, state })
    }

    /// Sets the context in a request's headers, and replaces any context there.
    pub(crate) fn put(&self, headers: &mut HeaderMap) {
        headers.remove(TRACESTATE);
        let Ok(parent) = HeaderValue::from_str(&self.parent) else { return };
        headers.insert(TRACEPARENT, parent);
        for state in &self.state {
            headers.append(TRACESTATE, state.clone());
        }
    }

    /// The trace ID, 32 hexadecimal digits.
    pub(crate) fn trace_id(&self) -> &str {
        Parent::parse(&self.parent).map_or("", |parent| parent.trace_id)
    }
}

/// The trace of a request, after its span has joined it.
pub(crate) struct Joined {
    /// The context for the plugin and its own requests.
    pub(crate) context: Option<TraceContext>,
    /// True if the span is exported, so that further fields should be recorded.
    pub(crate) is_exported: bool,
}

/// Adds a request's span to its trace, if traces are exported.
pub(crate) fn join(span: &Span, context: Option<TraceContext>) -> Joined {
    #[cfg(feature = "opentelemetry")]
    if let Some(ours) = exported::join(span, context.as_ref()) {
        return Joined { context: Some(ours), is_exported: true };
    }
    let _not_exported = span;
    Joined { context, is_exported: false }
}

/// Sets the trace context in a plugin's own request, unless the plugin has set a valid one itself.
pub(crate) fn pass_on(context: Option<&TraceContext>, headers: &mut HeaderMap) {
    let own = TraceContext::take(headers);
    if let Some(context) = own.as_ref().or(context) {
        context.put(headers);
    }
}

/// The trace context for an outgoing request with this span. `context` is that of the request that caused it.
pub(crate) fn continued(span: &Span, context: Option<&TraceContext>) -> Option<TraceContext> {
    #[cfg(feature = "opentelemetry")]
    if let Some(ours) = exported::context_of(span, "client") {
        return Some(ours);
    }
    let _not_exported = span;
    context.cloned()
}

#[cfg(feature = "opentelemetry")]
mod exported {
    use std::str::FromStr;

    use hyper::header::HeaderValue;
    use opentelemetry::trace::{SpanContext, SpanId, TraceContextExt, TraceFlags, TraceId, TraceState};
    use tracing::Span;
    use tracing_opentelemetry::OpenTelemetrySpanExt;

    use super::{Parent, TraceContext};

    pub(super) fn join(span: &Span, context: Option<&TraceContext>) -> Option<TraceContext> {
        let parent = context.and_then(span_context);
        let parent = parent.map(|parent| opentelemetry::Context::new().with_remote_span_context(parent));
        // Fails if no layer exports traces.
        span.set_parent(parent.unwrap_or_default()).ok()?;
        context_of(span, "server")
    }

    /// The context that names the span, if it is exported.
    pub(super) fn context_of(span: &Span, kind: &'static str) -> Option<TraceContext> {
        // Recorded first: reading the context starts the span.
        span.record("otel.kind", kind);
        let context = span.context();
        let ours = context.span().span_context().clone();
        ours.is_valid().then(|| TraceContext {
            parent: format!("00-{}-{}-{:02x}", ours.trace_id(), ours.span_id(), ours.trace_flags().to_u8()),
            state: HeaderValue::from_str(&ours.trace_state().header()).into_iter().filter(|s| !s.is_empty()).collect(),
        })
    }

    fn span_context(context: &TraceContext) -> Option<SpanContext> {
        let Parent { trace_id, span_id, flags } = Parent::parse(&context.parent)?;
        let state: Vec<&str> = context.state.iter().filter_map(|value| value.to_str().ok()).collect();
        // An invalid `tracestate` is dropped, as the specification requires.
        let state = TraceState::from_str(&state.join(",")).unwrap_or_default();
        let (trace_id, span_id) = (TraceId::from_hex(trace_id).ok()?, SpanId::from_hex(span_id).ok()?);
        Some(SpanContext::new(trace_id, span_id, TraceFlags::new(flags) & TraceFlags::SAMPLED, true, state))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PARENT: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

    fn headers(parents: &[&str], states: &[&str]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, values) in [(TRACEPARENT, parents), (TRACESTATE, states)] {
            for value in values {
                headers.append(&name, HeaderValue::from_str(value).unwrap());
            }
        }
        headers
    }

    #[test]
    fn a_valid_context_is_passed_on_with_its_state() {
        let sent = headers(&[PARENT], &["a=1", "b=2,c=3"]);
        let mut taken = sent.clone();
        let context = TraceContext::take(&mut taken).unwrap();
        assert!(taken.is_empty());
        assert_eq!(context.trace_id(), "4bf92f3577b34da6a3ce929d0e0e4736");
        let mut put = headers(&["set by the plugin"], &["d=4"]);
        context.put(&mut put);
        assert_eq!(put, sent);
    }

    #[test]
    fn a_valid_context_of_the_plugin_takes_precedence() {
        let ours = TraceContext::take(&mut headers(&[PARENT], &["a=1"]));
        let own = PARENT.replace("4bf9", "0000");
        for (sent, passed_on) in [
            (headers(&[&own], &["d=4"]), headers(&[&own], &["d=4"])),
            (headers(&["garbage"], &["d=4"]), headers(&[PARENT], &["a=1"])),
        ] {
            let mut head = sent;
            pass_on(ours.as_ref(), &mut head);
            assert_eq!(head, passed_on);
        }
        let mut head = headers(&["garbage"], &["d=4"]);
        pass_on(None, &mut head);
        assert!(head.is_empty());
    }

    #[test]
    fn a_parent_of_a_later_version_may_have_more_fields() {
        let later = PARENT.replacen("00", "cc", 1);
        for parent in [later.clone(), format!("{later}-more"), format!("{later}-")] {
            assert!(Parent::parse(&parent).is_some(), "{parent}");
        }
    }

    #[test]
    fn an_invalid_parent_is_not_passed_on() {
        let zeros = |range: std::ops::Range<usize>| {
            let mut parent = PARENT.to_owned();
            parent.replace_range(range.clone(), &"0".repeat(range.len()));
            parent
        };
        for parent in [
            String::new(),
            "garbage".to_owned(),
            PARENT.to_uppercase(),
            PARENT.replacen("00", "ff", 1),
            PARENT.replacen("00", "0", 1),
            PARENT.replacen("00", "0g", 1),
            format!("{PARENT}-more"),
            format!("{PARENT}0"),
            PARENT[..54].to_owned(),
            PARENT.replace('-', "_"),
            zeros(3..35),
            zeros(36..52),
        ] {
            let mut headers = headers(&[&parent], &["a=1"]);
            assert_eq!(TraceContext::take(&mut headers), None, "{parent}");
            assert!(headers.is_empty(), "{parent}");
        }
        assert_eq!(TraceContext::take(&mut headers(&[PARENT, PARENT], &[])), None);
        assert_eq!(TraceContext::take(&mut headers(&[], &["a=1"])), None);
    }
}
