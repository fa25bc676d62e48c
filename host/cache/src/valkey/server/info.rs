//! The kind, version and mode of a server, and whether Larder can use it.

// Decision: docs/decisions/0019-a-server-that-contradicts-the-configured-deployment-is-refused.md

use std::fmt;

use crate::valkey::commands::compare_and_set::CompareAndSet;

/// Valkey or Redis: the `type` in the configuration, or what the server reports. It changes no command.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ServerKind {
    /// Valkey 7.2 or later.
    Valkey,
    /// Redis 7.0 or later.
    Redis,
}

impl ServerKind {
    /// The product name, for messages: `Valkey` or `Redis`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Valkey => "Valkey",
            Self::Redis => "Redis",
        }
    }

    /// The value of `type` in a configuration: `valkey` or `redis`.
    pub fn type_name(self) -> &'static str {
        match self {
            Self::Valkey => "valkey",
            Self::Redis => "redis",
        }
    }

    fn oldest_supported(self) -> Version {
        match self {
            Self::Valkey => Version(7, 2, 0),
            Self::Redis => Version(7, 0, 0),
        }
    }
}

/// The mode that a server must run in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::valkey) enum Mode {
    /// A single server, which has all keys.
    Standalone,
    /// A single server that is a primary, and so takes writes.
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

/// The value of a field in the reply to `INFO`.
pub(in crate::valkey) fn field<'a>(info: &'a str, name: &str) -> Option<&'a str> {
    info.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':')).map(str::trim_end)
}

/// What a server reports in `INFO`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::valkey) struct ServerInfo {
    pub(in crate::valkey) kind: ServerKind,
    pub(in crate::valkey) version: Version,
}

/// The product and its version as text. Valkey also reports a `redis_version`, for clients that require it.
pub(in crate::valkey) fn reported_version(info: &str) -> Option<(ServerKind, &str)> {
    match (field(info, "valkey_version"), field(info, "redis_version")) {
        (Some(version), _) => Some((ServerKind::Valkey, version)),
        (None, Some(version)) => Some((ServerKind::Redis, version)),
        (None, None) => None,
    }
}

impl ServerInfo {
    /// Reads the reply to `INFO server` of any server.
    ///
    /// # Errors
    ///
    /// The reason why the version is unknown, for the operator.
    pub(in crate::valkey) fn read(info: &str) -> Result<Self, String> {
        let Some((kind, text)) = reported_version(info) else {
            return Err("the server reports no version in `INFO server`".to_owned());
        };
        let version = Version::parse(text).ok_or_else(|| format!("cannot read the server's version `{text}`"))?;
        Ok(Self { kind, version })
    }

    /// Reads the reply to `INFO server replication` of a server that should run in the `expected` mode.
    ///
    /// # Errors
    ///
    /// The reason why the server cannot be used, for the operator: it is too old, reports no version, or runs in
    /// another mode.
    pub(in crate::valkey) fn from_info(info: &str, expected: Mode) -> Result<Self, String> {
        let Self { kind, version } = Self::read(info)?;
        let field = |name: &str| field(info, name);
        if version < kind.oldest_supported() {
            return Err(format!(
                "{} {version} is too old: {} or later is needed",
                kind.name(),
                kind.oldest_supported()
            ));
        }
        match (expected, field("redis_mode").or(field("server_mode"))) {
            (Mode::Standalone | Mode::Primary, None | Some("standalone")) | (Mode::Cluster, Some("cluster")) => {}
            // A node of a cluster has only some of the keys, so a clear would miss the others.
            (_, Some("cluster")) => return Err("it is a node of a cluster: name the nodes as `cluster`".to_owned()),
            (Mode::Cluster, None | Some("standalone")) => return Err("it is no node of a cluster".to_owned()),
            (_, Some(mode)) => return Err(format!("it runs in `{mode}` mode and stores no keys")),
        }
        if expected == Mode::Primary && field("role") != Some("master") {
            return Err("the sentinels name it as the primary, but it is not the primary".to_owned());
        }
        Ok(Self { kind, version })
    }

    /// How a server of this version compares and sets. The probe of its capabilities is more reliable.
    pub(in crate::valkey) fn compare_and_set(&self) -> CompareAndSet {
        if self.kind == ServerKind::Valkey && self.version >= Version(8, 1, 0) {
            CompareAndSet::Ifeq
        } else {
            CompareAndSet::Script
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn valkey_and_redis_are_distinguished() {
        let valkey = "# Server\r\nredis_version:7.2.4\r\nserver_name:valkey\r\nvalkey_version:8.0.1\r\n";
        assert_eq!(
            ServerInfo::from_info(valkey, Mode::Standalone),
            Ok(ServerInfo { kind: ServerKind::Valkey, version: Version(8, 0, 1) })
        );
        let redis = "# Server\r\nredis_version:7.0.15\r\n";
        assert_eq!(
            ServerInfo::from_info(redis, Mode::Standalone),
            Ok(ServerInfo { kind: ServerKind::Redis, version: Version(7, 0, 15) })
        );
    }

    #[test]
    fn the_error_for_an_old_server_names_its_version_and_the_oldest_supported_one() {
        assert_eq!(
            ServerInfo::from_info("redis_version:6.2.14\r\n", Mode::Standalone),
            Err("Redis 6.2.14 is too old: 7.0.0 or later is needed".to_owned())
        );
        assert!(ServerInfo::from_info("redis_version:7.0\r\n", Mode::Standalone).is_ok());
    }

    #[test]
    fn a_server_in_an_unexpected_mode_is_refused() {
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
        let reason = |info: &str, mode| ServerInfo::from_info(info, mode).unwrap_err();
        assert!(ServerInfo::from_info(standalone, Mode::Standalone).is_ok());
        assert!(reason(cluster, Mode::Standalone).contains("name the nodes as `cluster`"));
        assert!(reason(sentinel, Mode::Standalone).contains("`sentinel`"));
        assert!(ServerInfo::from_info(cluster, Mode::Cluster).is_ok());
        assert!(reason(standalone, Mode::Cluster).contains("no node of a cluster"));
        assert!(reason(sentinel, Mode::Cluster).contains("`sentinel`"));
        assert!(reason(standalone, Mode::Primary).contains("not the primary"));
        assert!(ServerInfo::from_info(&standalone.replace("slave", "master"), Mode::Primary).is_ok());
    }

    #[test]
    fn a_reply_without_a_version_is_refused() {
        assert!(ServerInfo::from_info("", Mode::Standalone).is_err());
        assert!(ServerInfo::from_info("redis_version:unstable\r\n", Mode::Standalone).is_err());
        assert!(ServerInfo::from_info("redis_version:99999999.0.0\r\n", Mode::Standalone).is_err());
    }
}
