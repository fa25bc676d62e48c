//! The optional features of a server, probed when a connection is opened.

use redis::{Pipeline, RedisError, RedisResult, Value};

use crate::Issuer;
use crate::valkey::commands::compare_and_set::{CompareAndSet, Expiry};
use crate::valkey::connection::client::Client;
use crate::valkey::error::cannot_serve;
use crate::valkey::server::info::ServerInfo;

/// The optional features that get-or-set uses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::valkey) struct Capabilities {
    pub(in crate::valkey) compare_and_set: CompareAndSet,
    /// Whether the server reports changes of keys on this connection (client tracking). Otherwise keys are polled.
    pub(in crate::valkey) tracking: bool,
}

impl Capabilities {
    /// Asks the server, in one round trip. `probe` is a key that does not exist and that this user may write.
    ///
    /// # Errors
    ///
    /// The inner error is the reason why the server cannot be used: it has neither form of compare-and-set, so it could
    /// not refuse an outdated fill.
    pub(in crate::valkey) async fn probe(
        client: &Client,
        info: &ServerInfo,
        probe: &str,
    ) -> RedisResult<Result<Self, String>> {
        // Stores nothing, because no key holds this lease.
        let unused = Issuer::new().issue();
        let mut pipeline = Pipeline::with_capacity(4);
        for compare_and_set in [CompareAndSet::Ifeq, CompareAndSet::Script] {
            pipeline.add_command(compare_and_set.replace(probe, &unused, b"", Some(Expiry::Past)));
        }
        pipeline.cmd("CLIENT").arg("TRACKING").arg("ON").arg("OPTIN").cmd("CLIENT").arg("CACHING").arg("YES");
        let replies: Vec<RedisResult<Value>> = pipeline.ignore_errors().query_async(&mut client.unlimited()).await?;
        let mut replies = replies.into_iter();
        let mut next =
            || replies.next().unwrap_or_else(|| Err(RedisError::from((redis::ErrorKind::Client, "missing reply"))));
        let (ifeq, script, tracking, caching) = (next(), next(), next(), next());
        let compare_and_set = match (ifeq, script) {
            (Ok(_), _) => CompareAndSet::Ifeq,
            // The server cannot serve now, so only its version is known.
            (Err(error), _) if cannot_serve(&error) => info.compare_and_set(),
            // Another node of the cluster has the slot of the probe.
            (Err(error), _) if error.redirect_node().is_some() => info.compare_and_set(),
            // A user without write access needs neither form.
            (Err(error), _) if error.code() == Some("NOPERM") => CompareAndSet::Script,
            (Err(_), Ok(_)) => CompareAndSet::Script,
            (Err(_), Err(error)) if cannot_serve(&error) => CompareAndSet::Script,
            (Err(_), Err(error)) => {
                return Ok(Err(format!(
                    "it has neither `SET … IFEQ` (Valkey 8.1) nor scripts that this user may run: {error}"
                )));
            }
        };
        Ok(Ok(Self { compare_and_set, tracking: tracking.is_ok() && caching.is_ok() }))
    }

    /// The names of the features, for the operator.
    pub(in crate::valkey) fn names(self) -> Vec<&'static str> {
        let compare_and_set = match self.compare_and_set {
            CompareAndSet::Ifeq => "IFEQ",
            CompareAndSet::Script => "scripts",
        };
        std::iter::once(compare_and_set).chain(self.tracking.then_some("tracking")).collect()
    }
}
