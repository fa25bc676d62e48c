//! The address of a server as text: a host, `host:port`, or a URL. Each message says how to write it instead, and shows no
//! password.

use std::fmt;
use std::net::Ipv6Addr;

use percent_encoding::percent_decode_str;
use serde::{Deserialize, Deserializer};

use crate::cache::valkey::{Deployment, Endpoint, PasswordSource, Secret};
use crate::config::units::{Db, Password, Port};

/// The default port and database.
pub(super) const PORT: u16 = 6379;
pub(super) const DB: u16 = 0;

/// The longest host name, in bytes.
const MAX_HOST: usize = 253;

/// The rule about special characters in a URL.
const ENCODING: &str = "in the user name and the password, write `%` as `%25`, `/` as `%2F`, `?` as `%3F`, `#` as `%23`, \
                        `@` as `%40` and `:` as `%3A`; or set `password_file`, or the keys `host`, `username` and `password`";

/// The address and login of a server.
#[derive(Debug)]
pub(super) struct ConnectionSettings {
    pub(super) deployment: Deployment,
    pub(super) db: u16,
    pub(super) username: Option<String>,
    pub(super) password: Option<PasswordSource>,
    pub(super) tls: bool,
}

/// Reads a host: a name, an IPv4 address, or an IPv6 address with or without brackets.
///
/// # Errors
///
/// The rule that it violates. The text shows nothing of a URL, which may contain a password.
pub(super) fn host_from(text: &str) -> Result<String, String> {
    if text.is_empty() {
        return Err("must not be empty".to_owned());
    }
    if text.contains(['/', '@', '?', '#']) {
        return Err("must be a name or an address; use the key `url` for a URL".to_owned());
    }
    if text.chars().any(|character| character.is_whitespace() || character.is_control()) {
        return Err("must not contain spaces or control characters".to_owned());
    }
    if text.len() > MAX_HOST {
        return Err(format!("must not be longer than {MAX_HOST} bytes"));
    }
    if let Some(bracketed) = text.strip_prefix('[') {
        return match bracketed.split_once(']') {
            Some((address, "")) if is_ipv6(address) => Ok(address.to_owned()),
            Some((address, port)) if is_ipv6(address) && port_from(port.trim_start_matches(':')).is_ok() => {
                Err(has_port(address, port.trim_start_matches(':')))
            }
            _ => Err("must have an IPv6 address in its brackets".to_owned()),
        };
    }
    match text.split_once(':') {
        None => Ok(text.to_owned()),
        Some(_) if is_ipv6(text) => Ok(text.to_owned()),
        Some((name, port)) if !name.is_empty() && port_from(port).is_ok() => Err(has_port(name, port)),
        Some(_) => Err("must be a name or an address, without a port".to_owned()),
    }
}

fn has_port(host: &str, port: &str) -> String {
    format!("must not contain the port: write `host = \"{host}\"` and `port = {port}`")
}

/// True for an IPv6 address, which may have a scope: `fe80::1%eth0`.
fn is_ipv6(text: &str) -> bool {
    let (address, scope) = text.split_once('%').map_or((text, None), |(address, scope)| (address, Some(scope)));
    address.parse::<Ipv6Addr>().is_ok() && scope != Some("")
}

/// Reads a port.
pub(super) fn port_from(text: &str) -> Result<u16, String> {
    let number = text.parse::<i64>().map_err(|_| format!("`{text}` is not a port"))?;
    Port::try_from(number).map(|port| port.0)
}

/// `host:port`, with an IPv6 address in brackets.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub(super) struct NodeAddress(pub(super) Endpoint);

impl TryFrom<String> for NodeAddress {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        if text.contains('@') {
            // It may be a URL with a password.
            return Err("must be `host:port`; user and password have keys of their own".to_owned());
        }
        let rule = || format!("must be `host:port`, but is `{text}`");
        let (host, port) = text.rsplit_once(':').ok_or_else(rule)?;
        if is_ipv6(host) {
            return Err(format!("{}; write an IPv6 address in brackets, as in `[::1]:6379`", rule()));
        }
        let host = host_from(host).map_err(|_| rule())?;
        Ok(Self(Endpoint { host, port: port_from(port).map_err(|_| rule())? }))
    }
}

/// `redis://user:password@host:port/db`, as written. No message shows it, as it may contain a password.
#[derive(Clone)]
pub(super) struct Url(String);

impl fmt::Debug for Url {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("\"…\"")
    }
}

impl<'de> Deserialize<'de> for Url {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        // As for passwords, a value of another type is not shown either.
        Password::deserialize(deserializer).map(|text| Self(text.0))
    }
}

impl Url {
    /// Parses the URL. The error is the rule that it violates.
    pub(super) fn read(&self) -> Result<ConnectionSettings, String> {
        if self.has_bare_special_character() {
            return Err(format!("has a special character that is not encoded: {ENCODING}"));
        }
        let url = url::Url::parse(&self.0).map_err(|error| format!("is not a URL: {error}"))?;
        let tls = match url.scheme() {
            "redis" | "valkey" => false,
            "rediss" | "valkeys" => true,
            _ => return Err("must begin with `redis:`, `valkey:`, or for TLS `rediss:`, `valkeys:`".to_owned()),
        };
        if url.query().is_some() || url.fragment().is_some() {
            return Err("must end after the database; set options with their own keys".to_owned());
        }
        let decoded = |what: &str, text: &str| {
            let text = percent_decode_str(text).decode_utf8();
            Ok::<_, String>(text.map_err(|_| format!("the {what} is not UTF-8: {ENCODING}"))?.into_owned())
        };
        let host = match url.host() {
            Some(url::Host::Domain(name)) => decoded("host", name)?,
            Some(url::Host::Ipv4(address)) => address.to_string(),
            Some(url::Host::Ipv6(address)) => address.to_string(),
            None => String::new(),
        };
        let host = host_from(&host).map_err(|_| "must name a host".to_owned())?;
        let db = match url.path().trim_start_matches('/') {
            "" => DB,
            number => {
                let number = number.parse::<i64>().map_err(|_| "the database must be a number".to_owned())?;
                Db::try_from(number).map_err(|rule| format!("the database {rule}"))?.0
            }
        };
        let username = Some(decoded("user name", url.username())?).filter(|name| !name.is_empty());
        let password = url.password().map(|text| decoded("password", text)).transpose()?;
        let is_decoded = password.as_deref() != self.written_password();
        let secret = |text| if is_decoded { Secret::percent_decoded(text) } else { Secret::new(text) };
        let port = url.port().map_or(Ok(PORT), |port| Port::try_from(i64::from(port)).map(|port| port.0));
        let port = port.map_err(|rule| format!("the port {rule}"))?;
        let deployment = Deployment::Server(Endpoint { host, port });
        Ok(ConnectionSettings { deployment, db, username, password: password.map(|text| secret(text).into()), tls })
    }

    /// True if a `/`, `?` or `#` ends the host before the `@` that follows the password: the URL would have a part of the
    /// password as its port, path, query or fragment.
    fn has_bare_special_character(&self) -> bool {
        let Some((_, rest)) = self.0.split_once("://") else { return false };
        rest.split_once(['/', '?', '#']).is_some_and(|(_, behind)| behind.contains('@'))
    }

    /// The password as it is written.
    fn written_password(&self) -> Option<&str> {
        let (_, rest) = self.0.split_once("://")?;
        rest.rsplit_once('@')?.0.split_once(':').map(|(_, password)| password)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_is_a_name_or_an_address() {
        for (text, host) in [
            ("localhost", "localhost"),
            ("cache_1.example.com", "cache_1.example.com"),
            ("cache.example.com.", "cache.example.com."),
            ("192.0.2.1", "192.0.2.1"),
            ("::1", "::1"),
            ("[::1]", "::1"),
            ("fe80::1%eth0", "fe80::1%eth0"),
            ("[fe80::1%eth0]", "fe80::1%eth0"),
        ] {
            assert_eq!(host_from(text).as_deref(), Ok(host), "{text}");
        }
    }

    #[test]
    fn a_message_about_a_host_says_how_to_write_it() {
        for (text, rule) in [
            ("", "must not be empty"),
            ("192.0.2.1:7603", "write `host = \"192.0.2.1\"` and `port = 7603`"),
            ("cache.example.com:6379", "write `host = \"cache.example.com\"` and `port = 6379`"),
            ("[::1]:6379", "write `host = \"::1\"` and `port = 6379`"),
            ("[::1", "an IPv6 address in its brackets"),
            ("[localhost]", "an IPv6 address in its brackets"),
            ("::1::2", "without a port"),
            (":6379", "without a port"),
            ("h:", "without a port"),
            ("h:0", "without a port"),
            ("a b", "must not contain spaces"),
            (" h", "must not contain spaces"),
            ("h\n", "must not contain spaces"),
            ("valkey://h", "use the key `url`"),
            ("h/0", "use the key `url`"),
            ("user:s3cret@h", "use the key `url`"),
            ("s3cret#@h:1", "use the key `url`"),
        ] {
            let refused = host_from(text).unwrap_err();
            assert!(refused.contains(rule) && !refused.contains("s3cret"), "{text}: {refused}");
        }
        assert!(host_from(&"h".repeat(254)).is_err());
    }

    #[test]
    fn a_node_with_a_password_is_not_shown() {
        let refused = NodeAddress::try_from("redis://:s3cret@h:1".to_owned()).unwrap_err();
        assert!(refused.contains("keys of their own") && !refused.contains("s3cret"), "{refused}");
        let refused = NodeAddress::try_from("::1:6379".to_owned()).unwrap_err();
        assert!(refused.contains("in brackets"), "{refused}");
    }

    fn read(url: &str) -> Result<ConnectionSettings, String> {
        Url(url.to_owned()).read()
    }

    #[test]
    fn a_special_character_that_is_not_encoded_is_refused_with_how_to_write_it() {
        for url in [
            "valkey://:s3cret#@h",
            "valkey://:s3/cret@h",
            "valkey://:s3?cret@h:6379/0",
            "valkey://user:12#3s3cret@h",
            "valkey://:#s3cret@h",
            "redis://us/er:s3cret@h",
        ] {
            let refused = read(url).unwrap_err();
            assert!(refused.contains("`#` as `%23`") && !refused.contains("s3"), "{refused}");
        }
    }

    /// Passwords as services generate them.
    #[test]
    fn the_password_of_a_url_is_decoded_once() {
        for (url, password) in [
            ("redis://:sJ3R+hpIGoN=@h", "sJ3R+hpIGoN="),
            ("redis://:p%23ss@h", "p#ss"),
            ("redis://:p@ss@h", "p@ss"),
            ("redis://:p%41ss@h", "pAss"),
            ("redis://:p%2541ss@h", "p%41ss"),
            ("redis://:100%@h", "100%"),
            ("redis://:a:b@h", "a:b"),
            ("redis://:%C3%BC@h", "\u{fc}"),
            ("redis://:p%20%2F%3F%40%3A%25@h:6379/0", "p /?@:%"),
        ] {
            let settings = read(url).unwrap_or_else(|rule| panic!("{url}: {rule}"));
            assert_eq!(settings.password, Some(Secret::new(password).into()), "{url}");
            assert_eq!(settings.deployment.to_string(), "h:6379", "{url}");
        }
    }
}
