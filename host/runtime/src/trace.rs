//! The trace that a request belongs to, as [W3C Trace Context] tells it, on its way through the host.
//!
//! Without an exporter of traces the host takes no part in them: what a request brings is passed on as it is. With one (the
//! feature `opentelemetry`, and a layer of the `tracing_opentelemetry` crate in the program's subscriber) the request's span is a part
//! of its trace, and what is passed on names that span.
//!
//! [W3C Trace Context]: https://www.w3.org/TR/trace-context/

// Decision: docs/decisions/0034-without-an-exporter-the-host-takes-no-part-in-traces.md

use hyper::HeaderMap;
use hyper::header::{HeaderName, HeaderValue};
use tracing::Span;

const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");
const TRACESTATE: HeaderName = HeaderName::from_static("tracestate");

/// A place in a trace.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct TraceContext {
    /// Well formed.
    parent: String,
    /// What the tracers before us want to be passed on.
    state: Vec<HeaderValue>,
}

/// What a `traceparent` says.
#[derive(Debug, PartialEq, Eq)]
struct Parent<'a> {
    trace_id: &'a str,
    span_id: &'a str,
    flags: u8,
}

impl<'a> Parent<'a> {
    /// `None` for what the specification calls invalid.
    fn parse(text: &'a str) -> Option<Self> {
        let mut parts = text.splitn(5, '-');
        let mut hex = |len| parts.next().filter(|part| part.len() == len && part.bytes().all(is_hex_digit));
        let (version, trace_id, span_id, flags) = (hex(2)?, hex(32)?, hex(16)?, hex(2)?);
        let is_known = match (version, parts.next()) {
            ("ff", _) | ("00", Some(_)) => false,
            // Later versions may say more behind it.
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
    /// Takes it out of a request's headers, where it is there, once, and well formed.
    pub(crate) fn take(headers: &mut HeaderMap) -> Option<Self> {
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

    /// Puts it into a request's headers, in place of what may be there.
    pub(crate) fn put(&self, headers: &mut HeaderMap) {
        headers.remove(TRACESTATE);
        let Ok(parent) = HeaderValue::from_str(&self.parent) else { return };
        headers.insert(TRACEPARENT, parent);
        for state in &self.state {
            headers.append(TRACESTATE, state.clone());
        }
    }

    /// Which trace it is, in 32 hexadecimal digits.
    pub(crate) fn trace_id(&self) -> &str {
        Parent::parse(&self.parent).map_or("", |parent| parent.trace_id)
    }
}

/// A request's part in a trace.
pub(crate) struct Joined {
    /// What is passed on to whom the request leads.
    pub(crate) passed_on: Option<TraceContext>,
    /// Whether anybody wants to know what else is known of the request's span.
    pub(crate) is_exported: bool,
}

/// Makes a request's span a part of its trace, where traces are exported.
pub(crate) fn join(span: &Span, context: Option<TraceContext>) -> Joined {
    #[cfg(feature = "opentelemetry")]
    if let Some(ours) = exported::join(span, context.as_ref()) {
        return Joined { passed_on: Some(ours), is_exported: true };
    }
    let _as_it_is = span;
    Joined { passed_on: context, is_exported: false }
}

/// Puts into a request of a plugin's the trace that it works for, unless the plugin keeps traces itself and has put its
/// own there.
pub(crate) fn pass_on(context: Option<&TraceContext>, headers: &mut HeaderMap) {
    let own = TraceContext::take(headers);
    if let Some(context) = own.as_ref().or(context) {
        context.put(headers);
    }
}

/// What is passed on by a request that the span is about, which is sent on behalf of one that passed on `context`.
pub(crate) fn continued(span: &Span, context: Option<&TraceContext>) -> Option<TraceContext> {
    #[cfg(feature = "opentelemetry")]
    if let Some(ours) = exported::place(span, "client") {
        return Some(ours);
    }
    let _as_it_is = span;
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
        // It fails where no layer exports, and then there is nothing to join.
        span.set_parent(parent.unwrap_or_default()).ok()?;
        place(span, "server")
    }

    /// The span's place in its trace, where one exports it.
    pub(super) fn place(span: &Span, kind: &'static str) -> Option<TraceContext> {
        // Before the span begins, as which it does when its context is asked for.
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
        // One that cannot be understood is left out, as the specification has it.
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
    fn a_well_formed_parent_is_passed_on_with_its_state() {
        let sent = headers(&[PARENT], &["a=1", "b=2,c=3"]);
        let mut taken = sent.clone();
        let context = TraceContext::take(&mut taken).unwrap();
        assert!(taken.is_empty());
        assert_eq!(context.trace_id(), "4bf92f3577b34da6a3ce929d0e0e4736");
        let mut put = headers(&["what the plugin said"], &["d=4"]);
        context.put(&mut put);
        assert_eq!(put, sent);
    }

    #[test]
    fn a_plugin_s_own_trace_goes_before_ours_if_it_is_one() {
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
    fn a_parent_of_a_later_version_may_say_more() {
        let later = PARENT.replacen("00", "cc", 1);
        for parent in [later.clone(), format!("{later}-more"), format!("{later}-")] {
            assert!(Parent::parse(&parent).is_some(), "{parent}");
        }
    }

    #[test]
    fn what_is_no_parent_is_not_passed_on() {
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
