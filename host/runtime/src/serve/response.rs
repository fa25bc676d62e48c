//! The head of a plugin's response, made such that the client can trust it.

use hyper::header::{CONTENT_LENGTH, HeaderMap, HeaderValue};
use hyper::{Method, Response, StatusCode};
use wasmtime_wasi_http::WasiBody;

use crate::plugin_body::drained;

/// Checks the head of a plugin's response to a request with this method, and drains the body if the client gets none.
/// Returns the response with the length that its body must have, if the head says one.
///
/// # Errors
///
/// What is wrong with the head. The plugin's author must fix it.
pub(super) fn checked(
    mut response: Response<WasiBody>,
    method: &Method,
) -> Result<(Response<WasiBody>, Option<u64>), &'static str> {
    let status = response.status();
    if !(200..600).contains(&status.as_u16()) {
        return Err("its status is not that of a final response (200 to 599)");
    }
    let length = length(response.headers())?;
    // RFC 9110, 6.4.1.
    if status == StatusCode::NO_CONTENT {
        response.headers_mut().remove(CONTENT_LENGTH);
    } else if status == StatusCode::RESET_CONTENT {
        response.headers_mut().insert(CONTENT_LENGTH, HeaderValue::from_static("0"));
    } else if let Some(length) = length {
        // Repeated equal values become one.
        response.headers_mut().insert(CONTENT_LENGTH, HeaderValue::from(length));
    }
    let has_body = !matches!(status, StatusCode::NO_CONTENT | StatusCode::RESET_CONTENT | StatusCode::NOT_MODIFIED);
    if has_body && method != Method::HEAD {
        return Ok((response, length));
    }
    Ok((response.map(drained), None))
}

/// The value of `content-length`.
fn length(headers: &HeaderMap) -> Result<Option<u64>, &'static str> {
    let mut found = None;
    for value in headers.get_all(CONTENT_LENGTH) {
        let digits = value.to_str().ok().filter(|text| text.bytes().all(|byte| byte.is_ascii_digit()));
        let length = digits.and_then(|text| text.parse::<u64>().ok()).ok_or("its `content-length` is not a number")?;
        if found.is_some_and(|found| found != length) {
            return Err("it has two different `content-length` headers");
        }
        found = Some(length);
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use http_body_util::{BodyExt, Full};

    use super::*;

    fn response(status: u16, lengths: &[&str]) -> Response<WasiBody> {
        let response = lengths
            .iter()
            .fold(Response::builder().status(status), |response, length| response.header(CONTENT_LENGTH, *length));
        response.body(Full::from("body").map_err(|never| match never {}).boxed_unsync()).unwrap()
    }

    async fn body(response: Response<WasiBody>) -> String {
        let body = response.into_body().collect().await.unwrap().to_bytes();
        String::from_utf8(body.into()).unwrap()
    }

    #[tokio::test]
    async fn statuses_without_content_have_no_body() {
        for (status, length, sent) in [(204, "4", None), (205, "4", Some("0")), (304, "4", Some("4"))] {
            let (response, length) = checked(response(status, &[length]), &Method::GET).unwrap();
            let header = response.headers().get(CONTENT_LENGTH).map(|value| value.to_str().unwrap());
            assert_eq!((header, length), (sent, None), "{status}");
            assert_eq!(body(response).await, "", "{status}");
        }
        let (answer, length) = checked(response(200, &["4"]), &Method::HEAD).unwrap();
        assert_eq!((length, body(answer).await.as_str()), (None, ""));
        let (answer, length) = checked(response(200, &["4", "4"]), &Method::GET).unwrap();
        assert_eq!(answer.headers().get_all(CONTENT_LENGTH).iter().count(), 1);
        assert_eq!((length, body(answer).await.as_str()), (Some(4), "body"));
    }

    #[tokio::test]
    async fn a_head_that_is_no_final_response_or_has_two_lengths_is_refused() {
        for (status, lengths) in [
            (100, &[][..]),
            (101, &[]),
            (103, &[]),
            (199, &[]),
            (600, &[]),
            (999, &[]),
            (200, &["3", "5"]),
            (200, &["+3"]),
            (200, &[""]),
        ] {
            assert!(checked(response(status, lengths), &Method::GET).is_err(), "{status} {lengths:?}");
        }
    }
}
