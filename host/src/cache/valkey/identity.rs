//! What a server says it is, and whether that is new enough.

use std::fmt;

use crate::cache::valkey::lease::Compare;

/// Valkey or Redis: as the operator wrote it in `type`, or as the server says of itself. Neither changes a command.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ServerKind {
    /// Valkey 7.2 or later.
    Valkey,
    /// Redis 7.0 or later.
    Redis,
}

impl ServerKind {
    /// The name as people write it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Valkey => "Valkey",
            Self::Redis => "Redis",
        }
    }

    /// The word for it in a configuration's `type`.
    pub fn type_name(self) -> &'static str {
        match self {
            Self::Valkey => "valkey",
            Self::Redis => "redis",
        }
    }

    fn oldest(self) -> Version {
        match self {
            Self::Valkey => Version(7, 2, 0),
            Self::Redis => Version(7, 0, 0),
        }
    }
}

/// A server's version.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Version(u16, u16, u16);

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}.{}", self.0, self.1, self.2)
    }
}

impl Version {
    fn parse(text: &str) -> Option<Self> {
        let mut parts = text.split('.').map(|part| part.parse().ok());
        Some(Self(parts.next()??, parts.next()??, parts.next().flatten().unwrap_or(0)))
    }
}

/// Which server it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Identity {
    pub(super) kind: ServerKind,
    pub(super) version: Version,
}

impl Identity {
    /// Reads the answer to `INFO server`. Valkey also states a `redis_version`, for clients that look for one.
    ///
    /// # Errors
    ///
    /// Why the server cannot be used: too old, without a version, a node of a cluster or a sentinel.
    pub(super) fn from_info(info: &str) -> Result<Self, String> {
        let field =
            |name: &str| info.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':')).map(str::trim_end);
        let (kind, text) = match (field("valkey_version"), field("redis_version")) {
            (Some(version), _) => (ServerKind::Valkey, version),
            (None, Some(version)) => (ServerKind::Redis, version),
            (None, None) => return Err("the server does not state its version in `INFO server`".to_owned()),
        };
        let version = Version::parse(text).ok_or_else(|| format!("cannot read the server's version `{text}`"))?;
        if version < kind.oldest() {
            return Err(format!("{} {version} is too old: {} or later is needed", kind.name(), kind.oldest()));
        }
        // A node of a cluster holds some of the keys, and a clear there would remove some.
        match field("redis_mode").or(field("server_mode")) {
            None | Some("standalone") => Ok(Self { kind, version }),
            Some(mode) => Err(format!("it runs in `{mode}` mode, which this release cannot use")),
        }
    }

    /// How a server of this version compares and sets, as far as its version tells.
    pub(super) fn compare(&self) -> Compare {
        if self.kind == ServerKind::Valkey && self.version >= Version(8, 1, 0) {
            Compare::Ifeq
        } else {
            Compare::Script
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn valkey_is_told_from_redis() {
        let valkey = "# Server\r\nredis_version:7.2.4\r\nserver_name:valkey\r\nvalkey_version:8.0.1\r\n";
        assert_eq!(Identity::from_info(valkey), Ok(Identity { kind: ServerKind::Valkey, version: Version(8, 0, 1) }));
        let redis = "# Server\r\nredis_version:7.0.15\r\n";
        assert_eq!(Identity::from_info(redis), Ok(Identity { kind: ServerKind::Redis, version: Version(7, 0, 15) }));
    }

    #[test]
    fn a_server_too_old_is_named_with_what_is_needed() {
        assert_eq!(
            Identity::from_info("redis_version:6.2.14\r\n"),
            Err("Redis 6.2.14 is too old: 7.0.0 or later is needed".to_owned())
        );
        assert!(Identity::from_info("redis_version:7.0\r\n").is_ok());
    }

    #[test]
    fn a_node_of_a_cluster_is_refused() {
        let standalone = "valkey_version:8.0.1\r\nserver_mode:standalone\r\n";
        assert!(Identity::from_info(standalone).is_ok());
        assert!(
            Identity::from_info("redis_version:7.0.15\r\nredis_mode:cluster\r\n").unwrap_err().contains("`cluster`")
        );
        assert!(Identity::from_info("valkey_version:8.0.1\r\nserver_mode:sentinel\r\n").is_err());
    }

    #[test]
    fn an_answer_without_a_version_is_refused() {
        assert!(Identity::from_info("").is_err());
        assert!(Identity::from_info("redis_version:unstable\r\n").is_err());
        assert!(Identity::from_info("redis_version:99999999.0.0\r\n").is_err());
    }
}
