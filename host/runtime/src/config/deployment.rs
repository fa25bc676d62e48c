//! The address and the login of a server: from a URL, from single keys, or from environment variables.

use std::fmt;
use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use percent_encoding::percent_decode_str;
use serde::{Deserialize, Deserializer};

use crate::cache::valkey::{ClientCertificate, Deployment, Endpoint, Secret, Sentinels, ServerKind, TlsOptions};
use crate::config::document::{Environment, Fault, Section};
use crate::config::units::{Db, Password, Port};

/// The default address.
const HOST: &str = "localhost";
const PORT: u16 = 6379;
const DB: u16 = 0;

/// The longest `password_file`, in bytes.
const MAX_PASSWORD_FILE: u64 = 64 << 10;

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

/// The address and login that the keys result in.
#[derive(Debug)]
pub(super) struct ConnectionSettings {
    pub(super) deployment: Deployment,
    pub(super) db: u16,
    pub(super) username: Option<String>,
    pub(super) password: Option<Secret>,
    pub(super) tls: bool,
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
            None => (self.connection(kind, section, environment)?, "password", "username"),
        };
        let password = match (connection.password, password_file) {
            (Some(_), Some(_)) => {
                return Err(invalid(password_key, "the password is also set by `password_file`; keep one of them"));
            }
            (password, None) => password,
            (None, Some(file)) => {
                let file = directory.join(file);
                let text = read_password_file(&file)
                    .map_err(|error| invalid("password_file", &format!("cannot read `{}`: {error}", file.display())))?;
                Some(Secret::new(text.trim_end_matches(['\r', '\n'])))
            }
        };
        if connection.username.is_some() && password.is_none() {
            return Err(invalid(username_key, "a user name needs a `password` or `password_file`"));
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
            (None, Some(RawSentinel { master, nodes: sentinels, username, password })) => {
                if master.is_empty() || master.chars().any(|character| character.is_whitespace()) {
                    return Err(
                        section.fault("sentinel", "`master` must be the name by which the sentinels know the primary")
                    );
                }
                let mut sentinels = Sentinels::new(master, nodes(sentinels, "sentinel")?);
                sentinels.username = username;
                sentinels.password = password.map(|password| Secret::new(password.0));
                Deployment::Sentinel(sentinels)
            }
            (None, None) => Deployment::Server(address(host, port, kind, section, environment)?),
        };
        let password = password.map(|password| Secret::new(password.0));
        Ok(ConnectionSettings { deployment, db, username, password, tls: tls.unwrap_or_default() })
    }
}

/// Reads a password file. The limit protects against a device such as `/dev/zero`.
fn read_password_file(file: &Path) -> io::Result<String> {
    let mut text = String::new();
    let read = File::open(file)?.take(MAX_PASSWORD_FILE.saturating_add(1)).read_to_string(&mut text)?;
    if u64::try_from(read).unwrap_or(u64::MAX) > MAX_PASSWORD_FILE {
        return Err(io::Error::other(format!("it is longer than {} KiB", MAX_PASSWORD_FILE >> 10)));
    }
    Ok(text)
}

/// The server that `host` and `port` name, or the environment variables if the keys are absent.
fn address(
    host: Option<String>,
    port: Option<Port>,
    kind: ServerKind,
    section: &Section<'_>,
    environment: Environment<'_>,
) -> Result<Endpoint, Fault> {
    let host = host.or_else(|| from_environment(kind, "HOST", environment).map(|(_, host)| host));
    let host = host.unwrap_or_else(|| HOST.to_owned());
    if !is_host(&host) {
        return Err(section.fault("host", "must be a name or an address; use the key `url` for a URL"));
    }
    let port = match (port, from_environment(kind, "PORT", environment)) {
        (Some(port), _) => port.0,
        (None, None) => PORT,
        (None, Some((name, text))) => port_from(&text)
            .map_err(|rule| section.fault("port", &format!("from the environment variable `{name}`: {rule}")))?,
    };
    Ok(Endpoint { host, port })
}

/// `host:port`, with an IPv6 address in brackets.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub(super) struct NodeAddress(Endpoint);

impl TryFrom<String> for NodeAddress {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        let rule = || format!("must be `host:port`, but is `{text}`");
        let (host, port) = text.rsplit_once(':').ok_or_else(rule)?;
        let bare = host.strip_prefix('[').and_then(|host| host.strip_suffix(']'));
        if !is_host(host) || (bare.is_none() && host.contains(':')) {
            return Err(rule());
        }
        Ok(Self(Endpoint { host: bare.unwrap_or(host).to_owned(), port: port_from(port).map_err(|_| rule())? }))
    }
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
    fn read(&self) -> Result<ConnectionSettings, String> {
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
            let text = percent_decode_str(text).decode_utf8().map_err(|_| format!("the {what} is not UTF-8"))?;
            Ok::<_, String>(text.into_owned())
        };
        let host = match url.host() {
            Some(url::Host::Domain(name)) => decoded("host", name)?,
            Some(url::Host::Ipv4(address)) => address.to_string(),
            Some(url::Host::Ipv6(address)) => address.to_string(),
            None => String::new(),
        };
        if !is_host(&host) {
            return Err("must name a host".to_owned());
        }
        let db = match url.path().trim_start_matches('/') {
            "" => DB,
            number => {
                let number = number.parse::<i64>().map_err(|_| "the database must be a number".to_owned())?;
                Db::try_from(number).map_err(|rule| format!("the database {rule}"))?.0
            }
        };
        let username = Some(decoded("user name", url.username())?).filter(|name| !name.is_empty());
        let password = url.password().map(|password| decoded("password", password)).transpose()?;
        let port = url.port().map_or(Ok(PORT), |port| Port::try_from(i64::from(port)).map(|port| port.0));
        let port = port.map_err(|rule| format!("the port {rule}"))?;
        let deployment = Deployment::Server(Endpoint { host, port });
        Ok(ConnectionSettings { deployment, db, username, password: password.map(Secret::new), tls })
    }
}

/// True for a host name or address. A URL is refused, because messages show the host and a URL may contain a password.
fn is_host(host: &str) -> bool {
    !host.is_empty()
        && !host
            .contains(|character: char| character.is_whitespace() || character.is_control() || "/@".contains(character))
}

fn port_from(text: &str) -> Result<u16, String> {
    let number = text.parse::<i64>().map_err(|_| format!("`{text}` is not a port"))?;
    Port::try_from(number).map(|port| port.0)
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
