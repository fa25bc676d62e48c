//! Sizes, durations and other numbers as they are written in the configuration, each with its limits.

use std::fmt;
use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration as StdDuration;

use serde::Deserialize;
use serde::de::{Deserializer, Error, Visitor};

use crate::cache::Duration;

/// A size in bytes, above zero and at most 1 TiB: an integer, or a string such as `"64MiB"`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Size(pub(super) u64);

/// The [`Size`] of a queue of output, at least 16 KiB.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct QueueSize(pub(super) u64);

/// A duration: a number of seconds, or a string such as `"5m"`. May be zero.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct DurationOrZero(pub(super) StdDuration);

/// A [`DurationOrZero`] of at least a millisecond.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct PositiveDuration(pub(super) StdDuration);

/// A [`PositiveDuration`], or `"unlimited"`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct ExpireDuration(pub(super) Option<StdDuration>);

/// A count. Its limits depend on the key.
#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(transparent)]
pub(super) struct Count(pub(super) i64);

/// A TCP port, 1 to 65535.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(try_from = "i64")]
pub(super) struct Port(pub(super) u16);

/// A database number, 0 to 65535.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(try_from = "i64")]
pub(super) struct Db(pub(super) u16);

/// A password. No message shows it, even if the value is not a string.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct Password(pub(super) String);

impl fmt::Debug for Password {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("\"…\"")
    }
}

impl<'de> Deserialize<'de> for Password {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        match deserializer.deserialize_any(NumberVisitor { expecting: "a string" }) {
            Ok(Number::Text(password)) => Ok(Self(password)),
            _ => Err(D::Error::custom("must be a string")),
        }
    }
}

impl TryFrom<i64> for Port {
    type Error = String;

    fn try_from(port: i64) -> Result<Self, String> {
        match u16::try_from(port) {
            Ok(port) if port > 0 => Ok(Self(port)),
            _ => Err(format!("must be from 1 to 65535, but is {port}")),
        }
    }
}

impl TryFrom<i64> for Db {
    type Error = String;

    fn try_from(db: i64) -> Result<Self, String> {
        u16::try_from(db).map(Self).map_err(|_| format!("must be from 0 to 65535, but is {db}"))
    }
}

impl<'de> Deserialize<'de> for Size {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        match deserializer
            .deserialize_any(NumberVisitor { expecting: "a number of bytes, or a string such as \"64MiB\"" })?
        {
            Number::Text(text) => {
                let size: bytesize::ByteSize =
                    text.parse().map_err(|_| D::Error::custom(format!("`{text}` is not a size; try \"64MiB\"")))?;
                checked_size(size.as_u64())
            }
            Number::Integer(bytes) => match u64::try_from(bytes) {
                Ok(bytes) => checked_size(bytes),
                Err(_) => Err(D::Error::custom(format!("must not be negative, but is {bytes}"))),
            },
            Number::Fraction(_) => Err(D::Error::custom("must be a whole number of bytes")),
        }
    }
}

impl<'de> Deserialize<'de> for QueueSize {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        match Size::deserialize(deserializer)? {
            Size(bytes) if bytes < MIN_QUEUE => Err(D::Error::custom(
                "must be at least 16KiB: a line of the log may have 8 KiB, and with less room the host drops its own log",
            )),
            Size(bytes) => Ok(Self(bytes)),
        }
    }
}

fn checked_size<E: Error>(bytes: u64) -> Result<Size, E> {
    match bytes {
        0 => Err(E::custom("must not be zero")),
        1..=MAX_SIZE => Ok(Size(bytes)),
        _ => Err(E::custom("must not be over 1TiB")),
    }
}

/// The smallest queue of output, in bytes: twice the longest line of the log.
pub(super) const MIN_QUEUE: u64 = 16 << 10;

/// The largest size, 1 TiB.
pub(super) const MAX_SIZE: u64 = 1 << 40;

impl<'de> Deserialize<'de> for DurationOrZero {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(NumberVisitor { expecting: DURATION })?.into_duration().map(DurationOrZero)
    }
}

impl<'de> Deserialize<'de> for PositiveDuration {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer
            .deserialize_any(NumberVisitor { expecting: DURATION })?
            .into_positive_duration()
            .map(PositiveDuration)
    }
}

impl<'de> Deserialize<'de> for ExpireDuration {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        match deserializer.deserialize_any(NumberVisitor { expecting: DURATION })? {
            Number::Text(text) if text == "unlimited" => Ok(Self(None)),
            written => written.into_positive_duration().map(|duration| Self(Some(duration))),
        }
    }
}

const DURATION: &str = "a number of seconds, or a string such as \"5m\"";

/// Parses a duration for a command line: a number of seconds, a string such as `5m`, or `unlimited`.
///
/// # Errors
///
/// The rule that the text violates. The caller must correct the text.
pub fn parse_duration(text: &str) -> Result<Duration, String> {
    if text == "unlimited" {
        return Ok(Duration::Unlimited);
    }
    let number = text.parse().map_or_else(|_| Number::Text(text.to_owned()), Number::Fraction);
    let duration = number.into_positive_duration::<serde::de::value::Error>().map_err(|error| error.to_string())?;
    Ok(Duration::Milliseconds(u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)))
}

/// Parses an address to listen on, such as `127.0.0.1:8080` or `[::1]:8080`. `8080`, `:8080` and `localhost:8080` are that
/// port of 127.0.0.1: what is reachable from other machines has to be said.
///
/// # Errors
///
/// The rule that the text violates. The caller must correct the text.
pub fn parse_address(text: &str) -> Result<SocketAddr, String> {
    let port = text.strip_prefix("localhost:").or_else(|| text.strip_prefix(':')).unwrap_or(text);
    match port.parse() {
        Ok(port) => Ok(SocketAddr::from((Ipv4Addr::LOCALHOST, port))),
        Err(_) => text.parse().map_err(|_| {
            "must be an IP address and a port, such as 127.0.0.1:8080 or 0.0.0.0:8080, or a port of this machine"
                .to_owned()
        }),
    }
}

/// A number, or a string that contains one.
enum Number {
    Integer(i64),
    Fraction(f64),
    Text(String),
}

impl Number {
    fn into_positive_duration<E: Error>(self) -> Result<StdDuration, E> {
        match self.into_duration()? {
            short if short < StdDuration::from_millis(1) => Err(E::custom("must be at least a millisecond")),
            duration => Ok(duration),
        }
    }

    fn into_duration<E: Error>(self) -> Result<StdDuration, E> {
        let duration = match self {
            Self::Integer(seconds) => match u64::try_from(seconds) {
                Ok(seconds) => StdDuration::from_secs(seconds),
                Err(_) => return Err(E::custom(format!("must not be negative, but is {seconds}"))),
            },
            Self::Fraction(seconds) if seconds < 0.0 => {
                return Err(E::custom(format!("must not be negative, but is {seconds}")));
            }
            Self::Fraction(seconds) => StdDuration::try_from_secs_f64(seconds)
                .map_err(|_| E::custom(format!("`{seconds}` is not a number of seconds")))?,
            // `humantime` reads `M` as months. In a cache's configuration it is a typing error for minutes.
            Self::Text(text) if text.contains('M') => {
                return Err(E::custom(format!("`{text}`: write `m` for minutes")));
            }
            Self::Text(text) => humantime::parse_duration(&text)
                .map_err(|_| E::custom(format!("`{text}` is not a duration; try \"10s\" or \"500ms\"")))?,
        };
        if duration > Duration::LONGEST {
            return Err(E::custom("must not be longer than 100 years"));
        }
        Ok(duration)
    }
}

/// Accepts a number or a string.
struct NumberVisitor {
    expecting: &'static str,
}

impl Visitor<'_> for NumberVisitor {
    type Value = Number;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.expecting)
    }

    fn visit_i64<E: Error>(self, number: i64) -> Result<Number, E> {
        Ok(Number::Integer(number))
    }

    fn visit_f64<E: Error>(self, number: f64) -> Result<Number, E> {
        Ok(Number::Fraction(number))
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<Number, E> {
        Ok(Number::Text(text.to_owned()))
    }
}
