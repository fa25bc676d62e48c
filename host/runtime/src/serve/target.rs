//! The target of a request and its host, checked before anything else sees them.

use std::net::Ipv6Addr;

use hyper::header::{HOST, HeaderValue};
use hyper::http::request::Parts;
use hyper::http::uri::{Authority, Scheme};
use hyper::{Method, Version};

use super::error_response::ErrorResponse;

/// The longest method. No registered one is longer than 17 bytes.
const MAX_METHOD: usize = 32;

/// Checks that a plugin can answer the request: its method, the form of its target, and one valid host. Afterwards the
/// header `host` is the host that the target names, if it names one.
///
/// # Errors
///
/// The response of the host itself.
pub(super) fn check(head: &mut Parts) -> Result<(), ErrorResponse> {
    if head.method.as_str().len() > MAX_METHOD {
        return Err(ErrorResponse::UnknownMethod);
    }
    let host = host(head)?;
    // RFC 9112, 3.2.2: a target in absolute form replaces the header.
    if let Some(host) = host {
        head.headers.insert(HOST, host);
    }
    if head.method == Method::CONNECT || head.method == Method::TRACE {
        return Err(ErrorResponse::MethodNotAllowed);
    }
    match head.uri.path() {
        "*" if head.method == Method::OPTIONS => Err(ErrorResponse::Options),
        path if path.starts_with('/') => Ok(()),
        _ => Err(ErrorResponse::InvalidTarget),
    }
}

/// Checks the host of the request. Returns the value for the header `host` if it must be replaced.
fn host(head: &Parts) -> Result<Option<HeaderValue>, ErrorResponse> {
    let mut headers = head.headers.get_all(HOST).iter();
    let header = headers.next();
    if headers.next().is_some() {
        return Err(ErrorResponse::InvalidHost);
    }
    if let Some(header) = header
        && !header.to_str().is_ok_and(is_valid_host)
    {
        return Err(ErrorResponse::InvalidHost);
    }
    let authority = head.uri.authority().map(Authority::as_str);
    if authority.is_some_and(|authority| !is_valid_host(authority)) {
        return Err(ErrorResponse::InvalidHost);
    }
    if head.version == Version::HTTP_2 {
        // RFC 9113, 8.3.1: of two names for one thing, intermediaries would use either.
        return match (authority, header) {
            (None, None) => Err(ErrorResponse::InvalidHost),
            (Some(authority), Some(header)) if !authority.as_bytes().eq_ignore_ascii_case(header.as_bytes()) => {
                Err(ErrorResponse::InvalidHost)
            }
            _ => Ok(None),
        };
    }
    let Some(header) = header else { return Err(ErrorResponse::InvalidHost) };
    let scheme = head.uri.scheme();
    match (scheme, authority) {
        (None, None) => Ok(None),
        (None, Some(_)) if head.method == Method::CONNECT => Ok(None),
        (Some(scheme), Some(authority)) if *scheme == Scheme::HTTP || *scheme == Scheme::HTTPS => {
            if authority.as_bytes() == header.as_bytes() {
                return Ok(None);
            }
            HeaderValue::from_str(authority).map(Some).map_err(|_| ErrorResponse::InvalidHost)
        }
        _ => Err(ErrorResponse::InvalidTarget),
    }
}

/// True for `uri-host [":" port]` of RFC 9110, 7.2: a name or an address, and no user.
fn is_valid_host(host: &str) -> bool {
    // Plugins parse it again, most with this parser.
    if host.parse::<Authority>().is_err() {
        return false;
    }
    let (name, port) = match host.strip_prefix('[') {
        Some(rest) => match rest.split_once(']') {
            Some((address, port)) if address.parse::<Ipv6Addr>().is_ok() => (None, port.strip_prefix(':').ok_or(port)),
            _ => return false,
        },
        None => match host.split_once(':') {
            Some((name, port)) => (Some(name), Ok(port)),
            None => (Some(host), Err("")),
        },
    };
    let is_valid_port = match port {
        Ok(port) => !port.is_empty() && port.bytes().all(|byte| byte.is_ascii_digit()) && port.parse::<u16>().is_ok(),
        Err(rest) => rest.is_empty(),
    };
    is_valid_port && name.is_none_or(is_valid_name)
}

/// True for a name that is not empty, of the characters of RFC 3986, 3.2.2.
fn is_valid_name(name: &str) -> bool {
    let mut bytes = name.bytes();
    while let Some(byte) = bytes.next() {
        let is_valid = match byte {
            b'%' => (0..2).all(|_| bytes.next().is_some_and(|digit| digit.is_ascii_hexdigit())),
            _ => byte.is_ascii_alphanumeric() || b"-._~!$&'()*+,;=".contains(&byte),
        };
        if !is_valid {
            return false;
        }
    }
    !name.is_empty()
}

#[cfg(test)]
mod tests {
    use hyper::Request;

    use super::*;

    #[test]
    fn a_host_is_a_name_or_an_address_with_a_port_or_none() {
        for host in ["h", "host.example", "host.example:8080", "127.0.0.1", "[::1]", "[::1]:80", "a-b_c~d", "h:65535"] {
            assert!(is_valid_host(host), "{host}");
        }
        for host in [
            "",
            " ",
            "a b",
            "%zz",
            "a%2",
            "user@h",
            "h:",
            "h:x",
            "h:65536",
            "h:80:80",
            "[::1",
            "::1",
            "[]",
            "[::1]x",
            "h/",
            "a,b@c",
            "[1.2.3.4]",
            ":80",
            "h\t",
            "ü",
            "h#",
            "h?",
        ] {
            assert!(!is_valid_host(host), "{host}");
        }
    }

    fn checked(version: Version, method: &str, target: &str, hosts: &[&str]) -> Result<String, ErrorResponse> {
        let request = Request::builder().version(version).method(method).uri(target);
        let request = hosts.iter().fold(request, |request, host| request.header(HOST, *host));
        let (mut head, ()) = request.body(()).unwrap().into_parts();
        check(&mut head)?;
        Ok(head.headers.get(HOST).map(|host| host.to_str().unwrap().to_owned()).unwrap_or_default())
    }

    #[test]
    fn the_host_of_an_absolute_target_replaces_the_header() {
        let checked = |target, hosts: &[&str]| checked(Version::HTTP_11, "GET", target, hosts);
        assert_eq!(checked("/", &["h"]), Ok("h".to_owned()));
        assert_eq!(checked("http://other:80/", &["h"]), Ok("other:80".to_owned()));
        assert_eq!(checked("http://u:p@other/", &["h"]), Err(ErrorResponse::InvalidHost));
        assert_eq!(checked("ftp://h/", &["h"]), Err(ErrorResponse::InvalidTarget));
        assert_eq!(checked("http://h/", &[]), Err(ErrorResponse::InvalidHost));
        assert_eq!(checked("/", &["h", "h"]), Err(ErrorResponse::InvalidHost));
        assert_eq!(checked("h", &["h"]), Err(ErrorResponse::InvalidTarget));
        assert_eq!(checked("*", &["h"]), Err(ErrorResponse::InvalidTarget));
    }

    #[test]
    fn two_names_of_one_host_must_be_equal_over_http2() {
        let checked = |target, hosts: &[&str]| checked(Version::HTTP_2, "GET", target, hosts);
        assert_eq!(checked("http://h/", &[]), Ok(String::new()));
        assert_eq!(checked("http://h/", &["H"]), Ok("H".to_owned()));
        assert_eq!(checked("http://h/", &["other"]), Err(ErrorResponse::InvalidHost));
        assert_eq!(checked("/", &[]), Err(ErrorResponse::InvalidHost));
        assert_eq!(checked("/", &["h"]), Ok("h".to_owned()));
    }

    #[test]
    fn methods_that_no_plugin_can_answer_are_refused() {
        let checked = |method: &str, target: &str| checked(Version::HTTP_11, method, target, &["h"]);
        assert_eq!(checked("CONNECT", "h:80"), Err(ErrorResponse::MethodNotAllowed));
        assert_eq!(checked("TRACE", "/"), Err(ErrorResponse::MethodNotAllowed));
        assert_eq!(checked("OPTIONS", "*"), Err(ErrorResponse::Options));
        assert_eq!(checked("OPTIONS", "/"), Ok("h".to_owned()));
        assert_eq!(checked(&"A".repeat(MAX_METHOD), "/"), Ok("h".to_owned()));
        assert_eq!(checked(&"A".repeat(MAX_METHOD + 1), "/"), Err(ErrorResponse::UnknownMethod));
    }
}
