//! The address and the login of a server: from a URL, from single keys, or from environment variables.

use std::path::{Path, PathBuf};

use serde::Deserialize;

use crate::cache::valkey::{
    ClientCertificate, Deployment, Endpoint, PasswordSource, Secret, Sentinels, ServerKind, TlsOptions,
};
use crate::config::document::{Environment, Fault, Section};
use crate::config::server_address::{ConnectionSettings, DB, NodeAddress, PORT, Url, host_from, port_from};
use crate::config::units::{Db, Password, Port};

/// The default host.
const HOST: &str = "localhost";

/// The keys of a server's table for its address and login, as written.
#[derive(Debug)]
pub(super) struct ConnectionKeys {
    pub(super) url: Option<Url>,
    pub(super) cluster: Option<Vec<NodeAddress>>,
    pub(super) sentinel: Option<RawSentinel>,
    pub(super) host: Option<String>,
    pub(super) port: Option<Port>,
    pub(super) db: Option<Db>,
    pub(super) username: Option<String>,
    pub(super) password: Option<Password>,
    pub(super) password_file: Option<PathBuf>,
    pub(super) tls: Option<bool>,
}

impl ConnectionKeys {
    pub(super) fn read(
        mut self,
        kind: ServerKind,
        section: &Section<'_>,
        directory: &Path,
        environment: Environment<'_>,
    ) -> Result<ConnectionSettings, Fault> {
        let invalid = |key: &str, rule: &str| section.fault(key, rule);
        self.check_together(section)?;
        let password_file = self.password_file.take();
        let (connection, password_key, username_key) = match self.url.take() {
            Some(url) => (url.read().map_err(|rule| invalid("url", &rule))?, "url", "url"),
            None => (self.connection(kind, section, directory, environment)?, "password", "username"),
        };
        let password = match (connection.password, password_file) {
            (Some(_), Some(_)) => {
                return Err(invalid(password_key, "the password is also set by `password_file`; keep one of them"));
            }
            (password, None) => password,
            (None, Some(file)) => Some(password_file_source("password_file", &file, section, directory)?),
        };
        if connection.username.is_some() && password.is_none() {
            let more = match username_key {
                "url" => "; a password alone is written `://:password@`",
                _ => "",
            };
            return Err(invalid(username_key, &format!("a user name needs a `password` or `password_file`{more}")));
        }
        Ok(ConnectionSettings { password, ..connection })
    }

    /// Refuses keys that exclude each other.
    fn check_together(&self, section: &Section<'_>) -> Result<(), Fault> {
        let written =
            |keys: &[(&'static str, bool)]| keys.iter().find(|(_, is_written)| *is_written).map(|(key, _)| *key);
        let address = [("host", self.host.is_some()), ("port", self.port.is_some())];
        let sentinel = ("sentinel", self.sentinel.is_some());
        let cluster = ("cluster", self.cluster.is_some());
        let rest = [
            ("db", self.db.is_some()),
            ("username", self.username.is_some()),
            ("password", self.password.is_some()),
            ("tls", self.tls.is_some()),
        ];
        let (first, second) = if self.url.is_some() {
            ("url", written(&address).or(written(&[cluster, sentinel])).or(written(&rest)))
        } else if cluster.1 {
            ("cluster", written(&address).or(written(&[sentinel])))
        } else if sentinel.1 {
            ("sentinel", written(&address))
        } else {
            return Ok(());
        };
        match second {
            Some(key) => Err(section.fault(key, &format!("cannot be combined with `{first}`; keep one of them"))),
            None => Ok(()),
        }
    }

    /// Reads the keys other than `url`.
    fn connection(
        self,
        kind: ServerKind,
        section: &Section<'_>,
        directory: &Path,
        environment: Environment<'_>,
    ) -> Result<ConnectionSettings, Fault> {
        let Self { cluster, sentinel, host, port, db, username, password, tls, .. } = self;
        let db = db.map_or(DB, |db| db.0);
        let nodes = |nodes: Vec<NodeAddress>, key: &str| match nodes.as_slice() {
            [] => Err(section.fault(key, "must name at least one node")),
            _ => Ok(nodes.into_iter().map(|node| node.0).collect()),
        };
        let deployment = match (cluster, sentinel) {
            (Some(_), _) if db != 0 => return Err(section.fault("db", "must be 0: a cluster has one database")),
            (Some(cluster), _) => Deployment::Cluster(nodes(cluster, "cluster")?),
            (None, Some(RawSentinel { master, nodes: sentinels, username, password, password_file })) => {
                if master.is_empty() || master.chars().any(|character| character.is_whitespace()) {
                    return Err(
                        section.fault("sentinel", "`master` must be the name by which the sentinels know the primary")
                    );
                }
                let mut sentinels = Sentinels::new(master, nodes(sentinels, "sentinel")?);
                sentinels.username = username;
                sentinels.password = match (password, password_file) {
                    (Some(_), Some(_)) => {
                        let rule = "the password is also set by its `password_file`; keep one of them";
                        return Err(section.fault("sentinel", rule));
                    }
                    (Some(password), None) => Some(Secret::new(password.0).into()),
                    (None, Some(file)) => Some(password_file_source("sentinel", &file, section, directory)?),
                    (None, None) => None,
                };
                Deployment::Sentinel(sentinels)
            }
            (None, None) => Deployment::Server(address(host, port, kind, section, environment)?),
        };
        let password = password.map(|password| Secret::new(password.0).into());
        Ok(ConnectionSettings { deployment, db, username, password, tls: tls.unwrap_or_default() })
    }
}

/// The password in a file, which must be readable at the start: a wrong name is a mistake of the configuration. The file
/// is read again for each connection.
fn password_file_source(
    key: &str,
    file: &Path,
    section: &Section<'_>,
    directory: &Path,
) -> Result<PasswordSource, Fault> {
    let source = PasswordSource::File(directory.join(file));
    match source.read() {
        Ok(_) => Ok(source),
        Err(error) => Err(section.fault(key, &error.to_string())),
    }
}

/// The server that `host` and `port` name, or the environment variables if the keys are absent.
fn address(
    host: Option<String>,
    port: Option<Port>,
    kind: ServerKind,
    section: &Section<'_>,
    environment: Environment<'_>,
) -> Result<Endpoint, Fault> {
    let host = match (host, from_environment(kind, "HOST", environment)) {
        (Some(host), _) => host_from(&host).map_err(|rule| section.fault("host", &rule))?,
        (None, None) => HOST.to_owned(),
        (None, Some((name, host))) => host_from(&host)
            .map_err(|rule| section.fault("host", &format!("from the environment variable `{name}`: {rule}")))?,
    };
    let port = match (port, from_environment(kind, "PORT", environment)) {
        (Some(port), _) => port.0,
        (None, None) => PORT,
        (None, Some((name, text))) => port_from(&text).map_err(|rule| {
            let hint = match text.starts_with("tcp://") {
                true => "; Kubernetes and Docker set it for a service of that name: set the key `port`",
                false => "",
            };
            section.fault("port", &format!("from the environment variable `{name}`: {rule}{hint}"))
        })?,
    };
    Ok(Endpoint { host, port })
}

/// Sentinels, and the primary that they monitor.
#[derive(Debug, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub(super) struct RawSentinel {
    /// The name by which the sentinels know the primary.
    master: String,
    /// The sentinels, each as `host:port`.
    nodes: Vec<NodeAddress>,
    /// The user to log in to the sentinels as.
    username: Option<String>,
    /// The password to log in to the sentinels with.
    password: Option<Password>,
    /// The file with that password, read for each connection. Cannot be combined with `password`.
    password_file: Option<PathBuf>,
}

/// The TLS keys of a server's table, as written.
#[derive(Debug)]
pub(super) struct TlsKeys {
    pub(super) ca_file: Option<PathBuf>,
    pub(super) cert_file: Option<PathBuf>,
    pub(super) key_file: Option<PathBuf>,
}

impl TlsKeys {
    pub(super) fn read(
        self,
        is_on: bool,
        section: &Section<'_>,
        directory: &Path,
    ) -> Result<Option<TlsOptions>, Fault> {
        let Self { ca_file, cert_file, key_file } = self;
        if !is_on {
            let keys = [("ca_file", &ca_file), ("cert_file", &cert_file), ("key_file", &key_file)];
            return match keys.iter().find(|(_, file)| file.is_some()) {
                Some((key, _)) => Err(section.fault(key, "needs `tls = true`, or a `url` that begins with `rediss:`")),
                None => Ok(None),
            };
        }
        let client = match (cert_file, key_file) {
            (Some(cert_file), Some(key_file)) => {
                Some(ClientCertificate::new(directory.join(cert_file), directory.join(key_file)))
            }
            (None, None) => None,
            (Some(_), None) => return Err(section.fault("cert_file", "needs its `key_file`")),
            (None, Some(_)) => return Err(section.fault("key_file", "needs its `cert_file`")),
        };
        let mut options = TlsOptions::default();
        options.ca_file = ca_file.map(|file| directory.join(file));
        options.client = client;
        Ok(Some(options))
    }
}

/// The name and the value of `VALKEY_HOST` or a similar environment variable, if it is set and not empty.
fn from_environment(kind: ServerKind, what: &str, environment: Environment<'_>) -> Option<(String, String)> {
    let name = match kind {
        ServerKind::Valkey => format!("VALKEY_{what}"),
        ServerKind::Redis => format!("REDIS_{what}"),
    };
    let value = environment(&name).filter(|value| !value.is_empty())?;
    Some((name, value))
}
