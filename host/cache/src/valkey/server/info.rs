//! What a server says it is, and whether that is new enough.

// Decision: docs/decisions/0019-a-server-that-contradicts-the-configured-deployment-is-refused.md

use std::fmt;

use crate::valkey::commands::leases::Compare;

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

/// What a server must be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::valkey) enum Mode {
    /// One that has all keys.
    Standalone,
    /// One that has all keys and takes writes.
    Primary,
    /// A node of a cluster.
    Cluster,
}

/// A server's version.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(in crate::valkey) struct Version(u16, u16, u16);

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
pub(in crate::valkey) struct Identity {
    pub(in crate::valkey) kind: ServerKind,
    pub(in crate::valkey) version: Version,
}

impl Identity {
    /// Reads the answer to `INFO server replication` of one that should run in this mode. Valkey also states a `redis_version`, for clients that look for one.
    ///
    /// # Errors
    ///
    /// Why the server cannot be used: too old, without a version, or in another mode.
    pub(in crate::valkey) fn from_info(info: &str, expected: Mode) -> Result<Self, String> {
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
        match (expected, field("redis_mode").or(field("server_mode"))) {
            (Mode::Standalone | Mode::Primary, None | Some("standalone")) | (Mode::Cluster, Some("cluster")) => {}
            // A node of a cluster holds some of the keys, and a clear there would remove some.
            (_, Some("cluster")) => return Err("it is a node of a cluster: name the nodes as `cluster`".to_owned()),
            (Mode::Cluster, None | Some("standalone")) => return Err("it is no node of a cluster".to_owned()),
            (_, Some(mode)) => return Err(format!("it runs in `{mode}` mode and keeps no keys")),
        }
        if expected == Mode::Primary && field("role") != Some("master") {
            return Err("it is not the primary, whatever the sentinels say".to_owned());
        }
        Ok(Self { kind, version })
    }

    /// How a server of this version compares and sets, as far as its version tells.
    pub(in crate::valkey) fn compare(&self) -> Compare {
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
        assert_eq!(
            Identity::from_info(valkey, Mode::Standalone),
            Ok(Identity { kind: ServerKind::Valkey, version: Version(8, 0, 1) })
        );
        let redis = "# Server\r\nredis_version:7.0.15\r\n";
        assert_eq!(
            Identity::from_info(redis, Mode::Standalone),
            Ok(Identity { kind: ServerKind::Redis, version: Version(7, 0, 15) })
        );
    }

    #[test]
    fn a_server_too_old_is_named_with_what_is_needed() {
        assert_eq!(
            Identity::from_info("redis_version:6.2.14\r\n", Mode::Standalone),
            Err("Redis 6.2.14 is too old: 7.0.0 or later is needed".to_owned())
        );
        assert!(Identity::from_info("redis_version:7.0\r\n", Mode::Standalone).is_ok());
    }

    #[test]
    fn a_server_in_another_mode_than_expected_is_refused() {
        let standalone = "valkey_version:8.0.1
server_mode:standalone
role:slave
";
        let cluster = "redis_version:7.0.15
redis_mode:cluster
role:master
";
        let sentinel = "valkey_version:8.0.1
server_mode:sentinel
";
        let refusal = |info: &str, mode| Identity::from_info(info, mode).unwrap_err();
        assert!(Identity::from_info(standalone, Mode::Standalone).is_ok());
        assert!(refusal(cluster, Mode::Standalone).contains("name the nodes as `cluster`"));
        assert!(refusal(sentinel, Mode::Standalone).contains("`sentinel`"));
        assert!(Identity::from_info(cluster, Mode::Cluster).is_ok());
        assert!(refusal(standalone, Mode::Cluster).contains("no node of a cluster"));
        assert!(refusal(sentinel, Mode::Cluster).contains("`sentinel`"));
        assert!(refusal(standalone, Mode::Primary).contains("not the primary"));
        assert!(Identity::from_info(&standalone.replace("slave", "master"), Mode::Primary).is_ok());
    }

    #[test]
    fn an_answer_without_a_version_is_refused() {
        assert!(Identity::from_info("", Mode::Standalone).is_err());
        assert!(Identity::from_info("redis_version:unstable\r\n", Mode::Standalone).is_err());
        assert!(Identity::from_info("redis_version:99999999.0.0\r\n", Mode::Standalone).is_err());
    }
}
