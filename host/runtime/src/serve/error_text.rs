//! The text of a plugin's error, which may be as long as the plugin likes, cut before it is formatted.

use std::fmt::{self, Write};

use wasmtime_wasi_http::{p2, p3};

use crate::cache::text::one_line;

/// The longest text in the log, in bytes.
const MAX: usize = 500;

/// The error that a plugin returns instead of a response.
#[derive(Debug)]
pub(super) enum PluginError {
    Sequential(p2::bindings::http::types::ErrorCode),
    Concurrent(p3::bindings::http::types::ErrorCode),
}

/// Defines a function that finds the text that the plugin chose.
macro_rules! define_text {
    ($function:ident, $version:ident) => {
        fn $function(error: &mut $version::bindings::http::types::ErrorCode) -> Option<&mut String> {
            use $version::bindings::http::types::ErrorCode;
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
    };
}

define_text!(sequential_text, p2);
define_text!(concurrent_text, p3);

/// Formats at most [`MAX`] bytes of the error, on one line.
pub(super) fn error_text(mut error: PluginError) -> String {
    let text = match &mut error {
        PluginError::Sequential(error) => sequential_text(error),
        PluginError::Concurrent(error) => concurrent_text(error),
    };
    // The formatter looks through all of a string before it writes.
    if let Some(text) = text {
        text.truncate(text.floor_char_boundary(MAX));
    }
    let mut cut = Cut(String::new());
    let _too_long = match &error {
        PluginError::Sequential(error) => write!(cut, "{error:?}"),
        PluginError::Concurrent(error) => write!(cut, "{error:?}"),
    };
    one_line(&cut.0)
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
    use p2::bindings::http::types::ErrorCode;
    use p3::bindings::http::types::ErrorCode as ConcurrentErrorCode;

    use super::*;

    #[test]
    fn a_long_text_is_cut() {
        let long = || Some("é".repeat(30 << 20));
        for error in [
            PluginError::Sequential(ErrorCode::InternalError(long())),
            PluginError::Concurrent(ConcurrentErrorCode::InternalError(long())),
        ] {
            let text = error_text(error);
            assert!(
                text.starts_with("ErrorCode::InternalError(Some(\"é") || text.starts_with("InternalError(Some(\"é"),
                "{text}"
            );
            assert!((490..=MAX).contains(&text.len()), "{}", text.len());
        }
        let error = PluginError::Sequential(ErrorCode::ConnectionTimeout);
        assert!(error_text(error).contains("ConnectionTimeout"));
    }
}
