//! The text of a plugin's error, which may be as long as the plugin likes, cut before it is formatted.

use std::fmt::{self, Write};

use wasmtime_wasi_http::p2::bindings::http::types::ErrorCode;

use crate::cache::text::one_line;

/// The longest text in the log, in bytes.
const MAX: usize = 500;

/// Formats at most [`MAX`] bytes of the error, on one line.
pub(super) fn error_text(mut error: ErrorCode) -> String {
    // The formatter looks through all of a string before it writes.
    if let Some(text) = text_of(&mut error) {
        text.truncate(text.floor_char_boundary(MAX));
    }
    let mut cut = Cut(String::new());
    let _too_long = write!(cut, "{error:?}");
    one_line(&cut.0)
}

/// The text that the plugin chose.
fn text_of(error: &mut ErrorCode) -> Option<&mut String> {
    match error {
        ErrorCode::DnsError(payload) => payload.rcode.as_mut(),
        ErrorCode::TlsAlertReceived(payload) => payload.alert_message.as_mut(),
        ErrorCode::HttpRequestHeaderSize(payload) => payload.as_mut()?.field_name.as_mut(),
        ErrorCode::HttpRequestTrailerSize(payload)
        | ErrorCode::HttpResponseHeaderSize(payload)
        | ErrorCode::HttpResponseTrailerSize(payload) => payload.field_name.as_mut(),
        ErrorCode::HttpResponseTransferCoding(text)
        | ErrorCode::HttpResponseContentCoding(text)
        | ErrorCode::InternalError(text) => text.as_mut(),
        _ => None,
    }
}

/// Takes text until it has [`MAX`] bytes.
struct Cut(String);

impl Write for Cut {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        let end = text.floor_char_boundary(MAX.saturating_sub(self.0.len()));
        self.0.push_str(text.get(..end).unwrap_or_default());
        if end == text.len() { Ok(()) } else { Err(fmt::Error) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_text_is_cut() {
        let text = error_text(ErrorCode::InternalError(Some("é".repeat(30 << 20))));
        assert!(
            text.starts_with("ErrorCode::InternalError(Some(\"é") || text.starts_with("InternalError(Some(\"é"),
            "{text}"
        );
        assert!((490..=MAX).contains(&text.len()), "{}", text.len());
        assert!(error_text(ErrorCode::ConnectionTimeout).contains("ConnectionTimeout"));
    }
}
