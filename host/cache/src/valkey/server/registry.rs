//! The registry of servers: which server each cache of a host is connected to, so that no two caches share keys.

// Decision: docs/decisions/0069-servers-are-told-apart-by-what-they-report.md

use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use crate::valkey::options::{ServerOptions, prefixes_overlap};
use crate::valkey::server::info::field;

/// The servers that the caches of one host are connected to. A clone is the same registry.
///
/// Two caches whose prefixes overlap must not use one database of one server: a grant of one cache would be a grant of
/// the other. The configuration compares addresses, but a server may have several. The registry compares what servers
/// report about themselves, at each connection.
#[derive(Debug, Clone, Default)]
pub struct ServerRegistry(Arc<Mutex<Claims>>);

/// The caches, and their connections.
#[derive(Debug, Default)]
struct Claims {
    members: Vec<Weak<Identity>>,
    open: Vec<OpenClaim>,
    /// The number of the last member or claim.
    last: u64,
}

#[derive(Debug)]
struct OpenClaim {
    number: u64,
    member: Arc<Identity>,
    server: ServerId,
}

/// One cache of the host.
#[derive(Debug)]
struct Identity {
    number: u64,
    name: String,
    db: u16,
    prefix: String,
    /// Whether it was logged that the cache's server cannot be told apart.
    is_warned: AtomicBool,
}

impl Identity {
    /// True if the two caches share keys if they are on one server.
    fn overlaps(&self, other: &Self) -> bool {
        self.number != other.number && self.db == other.db && prefixes_overlap(&self.prefix, &other.prefix)
    }
}

/// One cache, as the registry knows it.
#[derive(Debug, Clone)]
pub(in crate::valkey) struct Member {
    registry: ServerRegistry,
    cache: Arc<Identity>,
}

/// A connection of a cache to a server, until it is dropped. It is kept after the loss of the connection, until there is
/// another one.
#[derive(Debug)]
pub(in crate::valkey) struct Claim {
    registry: ServerRegistry,
    number: u64,
}

/// What a server reports about itself that no other server reports.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ServerId {
    /// The random number of the server's process. It changes when the server restarts.
    pub run_id: Option<String>,
    /// The random number of the data set, which a primary and its replicas have in common. It changes at a failover.
    pub replication_id: Option<String>,
}

impl ServerId {
    /// Reads the reply to `INFO server replication`.
    pub(in crate::valkey) fn from_info(info: &str) -> Self {
        Self { run_id: id(info, "run_id"), replication_id: id(info, "master_replid") }
    }

    /// True if both are one server, or a primary and its replica, which have the same keys.
    fn is_same(&self, other: &Self) -> bool {
        let same = |a: &Option<String>, b: &Option<String>| a.is_some() && a == b;
        same(&self.run_id, &other.run_id) || same(&self.replication_id, &other.replication_id)
    }

    /// True if the server reports nothing by which it could be told apart.
    pub fn is_unknown(&self) -> bool {
        self.run_id.is_none() && self.replication_id.is_none()
    }
}

impl fmt::Display for ServerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.run_id.as_deref().or(self.replication_id.as_deref()).unwrap_or("unknown"))
    }
}

/// A random number that the server reports. Some managed services report zeros.
fn id(info: &str, name: &str) -> Option<String> {
    field(info, name).filter(|id| id.chars().any(|digit| digit != '0')).map(str::to_owned)
}

impl ServerRegistry {
    /// Adds a cache.
    pub(in crate::valkey) fn join(&self, name: &str, options: &ServerOptions) -> Member {
        let (db, prefix) = (options.db, options.prefix.clone());
        let mut claims = self.lock();
        let number = claims.number();
        let cache = Arc::new(Identity { number, name: name.to_owned(), db, prefix, is_warned: AtomicBool::default() });
        claims.members.retain(|member| member.strong_count() > 0);
        claims.members.push(Arc::downgrade(&cache));
        drop(claims);
        Member { registry: self.clone(), cache }
    }

    fn lock(&self) -> MutexGuard<'_, Claims> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Claims {
    fn number(&mut self) -> u64 {
        self.last = self.last.wrapping_add(1);
        self.last
    }

    /// A cache with an overlapping prefix of which it cannot be said whether it is on this server.
    fn undecided(&self, cache: &Identity, server: &ServerId) -> Option<Arc<Identity>> {
        if server.is_unknown() {
            return self.members.iter().filter_map(Weak::upgrade).find(|member| member.overlaps(cache));
        }
        let unknown = self.open.iter().find(|claim| claim.member.overlaps(cache) && claim.server.is_unknown());
        unknown.map(|claim| Arc::clone(&claim.member))
    }
}

impl Member {
    /// Registers a connection to a server.
    ///
    /// # Errors
    ///
    /// The reason why the cache must not use the server, for the operator: a cache with an overlapping prefix is
    /// connected to it.
    pub(in crate::valkey) fn claim(&self, server: ServerId) -> Result<Claim, String> {
        let mut claims = self.registry.lock();
        let is_taken = |claim: &&OpenClaim| claim.member.overlaps(&self.cache) && claim.server.is_same(&server);
        if let Some(OpenClaim { member, .. }) = claims.open.iter().find(is_taken) {
            let Identity { name, prefix, db, .. } = &**member;
            let own = &self.cache.prefix;
            return Err(format!(
                "it has the keys of cache `{name}`, whose prefix `{prefix}` overlaps with `{own}` in database {db}: the \
                 two caches are on the same server, or on a primary and its replica (it reports the run_id {server})"
            ));
        }
        if let Some(other) = claims.undecided(&self.cache, &server)
            && !self.cache.is_warned.swap(true, Ordering::Relaxed)
        {
            let (cache, other) = (&self.cache.name, &other.name);
            tracing::warn!(
                "a server reports no run_id, so Larder cannot check that the caches `{cache}` and `{other}`, whose \
                 prefixes overlap, are on different servers"
            );
        }
        let number = claims.number();
        claims.open.push(OpenClaim { number, member: Arc::clone(&self.cache), server });
        drop(claims);
        Ok(Claim { registry: self.registry.clone(), number })
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        self.registry.lock().open.retain(|claim| claim.number != self.number);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::valkey::server::info::ServerKind;

    fn join(registry: &ServerRegistry, name: &str, prefix: &str, db: u16) -> Member {
        let mut options = ServerOptions::new(ServerKind::Valkey);
        options.prefix = prefix.to_owned();
        options.db = db;
        registry.join(name, &options)
    }

    fn server(run_id: &str, replication_id: &str) -> ServerId {
        ServerId::from_info(&format!("run_id:{run_id}\r\nrole:master\r\nmaster_replid:{replication_id}\r\n"))
    }

    #[test]
    fn a_server_is_refused_to_a_cache_whose_prefix_overlaps_with_that_of_another_one_on_it() {
        let registry = ServerRegistry::default();
        let open = join(&registry, "open", "app:", 0).claim(server("a1", "d1")).unwrap();
        let secret = join(&registry, "secret", "app:secret:", 0);
        let reason = secret.claim(server("a1", "d1")).unwrap_err();
        assert!(reason.contains("cache `open`") && reason.contains("`app:`") && reason.contains("a1"), "{reason}");
        // A replica, and the same process after it became the primary.
        assert!(secret.claim(server("a2", "d1")).is_err() && secret.claim(server("a1", "d2")).is_err());
        let other = secret.claim(server("a2", "d2")).unwrap();
        assert!(join(&registry, "open again", "app:", 0).claim(server("a2", "d3")).is_err());
        drop(open);
        secret.claim(server("a1", "d1")).unwrap();
        drop(other);
        assert_eq!(registry.lock().open.len(), 0);
    }

    #[test]
    fn other_databases_other_prefixes_and_connections_of_the_same_cache_are_accepted() {
        let registry = ServerRegistry::default();
        let first = join(&registry, "c", "app:", 0);
        let _claims = [first.claim(server("a1", "d1")).unwrap(), first.clone().claim(server("a1", "d1")).unwrap()];
        join(&registry, "c", "app:", 1).claim(server("a1", "d1")).unwrap();
        join(&registry, "d", "apps:", 0).claim(server("a1", "d1")).unwrap();
        assert!(join(&registry, "c", "app:", 0).claim(server("a1", "d1")).is_err(), "names do not matter");
    }

    #[test]
    fn a_server_that_reports_nothing_is_accepted_and_undecided_beside_an_overlapping_prefix() {
        let registry = ServerRegistry::default();
        let silent = ServerId::default();
        let (open, secret) = (join(&registry, "open", "app:", 0), join(&registry, "secret", "app:secret:", 0));
        let other = join(&registry, "other", "other:", 0);
        let undecided = |member: &Member, server: &ServerId| {
            registry.lock().undecided(&member.cache, server).map(|other| other.name.clone())
        };
        assert_eq!(undecided(&open, &silent).as_deref(), Some("secret"));
        assert_eq!(undecided(&other, &silent), None);
        let _claim = open.claim(silent.clone()).unwrap();
        assert!(open.cache.is_warned.load(Ordering::Relaxed));
        assert_eq!(undecided(&secret, &server("a1", "d1")).as_deref(), Some("open"));
        secret.claim(silent).unwrap();
        drop(open);
        drop(_claim);
        assert_eq!(undecided(&secret, &ServerId::default()), None);
    }

    #[test]
    fn servers_that_report_nothing_or_zeros_are_not_taken_for_one_server() {
        for info in ["", "run_id:\r\nmaster_replid:\r\n", "run_id:0000\r\nmaster_replid:0000\r\n"] {
            let id = ServerId::from_info(info);
            assert!(id.is_unknown() && !id.is_same(&id), "{info}");
        }
        let id = ServerId::from_info("run_id:0a00\r\n");
        assert!(!id.is_unknown() && id.is_same(&id) && id.replication_id.is_none());
    }
}
