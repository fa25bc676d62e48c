//! Optional features of a server, probed when the connection is made.

use redis::aio::MultiplexedConnection;
use redis::{Pipeline, RedisError, RedisResult, Value};

use crate::Issuer;
use crate::valkey::commands::leases::{self, Compare};
use crate::valkey::connection::managed::is_a_state;
use crate::valkey::server::info::Identity;

/// What get-or-set makes use of on a server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::valkey) struct Support {
    pub(in crate::valkey) compare: Compare,
    /// Whether the server tells this connection of changes. Else it is asked now and then.
    pub(in crate::valkey) tracking: bool,
}

impl Support {
    /// Asks the server, in one round trip. `probe` is a key that nobody has, and where we may write.
    ///
    /// # Errors
    ///
    /// Why a fill could not be told from an outdated one: the server has neither form of compare-and-set.
    pub(in crate::valkey) async fn probe(
        connection: &mut MultiplexedConnection,
        identity: &Identity,
        probe: &str,
    ) -> RedisResult<Result<Self, String>> {
        // Nothing is stored: the key would have to hold the lease.
        let nobodys = Issuer::new().issue();
        let mut pipeline = Pipeline::with_capacity(4);
        for compare in [Compare::Ifeq, Compare::Script] {
            pipeline.add_command(leases::replace(compare, probe, &nobodys, b"", Some(leases::End::At(1))));
        }
        pipeline.cmd("CLIENT").arg("TRACKING").arg("ON").arg("OPTIN").cmd("CLIENT").arg("CACHING").arg("YES");
        let answers: Vec<RedisResult<Value>> = pipeline.ignore_errors().query_async(connection).await?;
        let mut answers = answers.into_iter();
        let mut next =
            || answers.next().unwrap_or_else(|| Err(RedisError::from((redis::ErrorKind::Client, "no answer"))));
        let (ifeq, script, tracking, caching) = (next(), next(), next(), next());
        let compare = match (ifeq, script) {
            (Ok(_), _) => Compare::Ifeq,
            // It cannot serve now, so nothing can be learned from it but its version.
            (Err(error), _) if is_a_state(&error) => identity.compare(),
            // The key would be on another node of the cluster.
            (Err(error), _) if error.redirect_node().is_some() => identity.compare(),
            // A user who may not write needs neither.
            (Err(error), _) if error.code() == Some("NOPERM") => Compare::Script,
            (Err(_), Ok(_)) => Compare::Script,
            (Err(_), Err(error)) if is_a_state(&error) => Compare::Script,
            (Err(_), Err(error)) => {
                return Ok(Err(format!("it has neither `SET … IFEQ` (Valkey 8.1) nor scripts for us: {error}")));
            }
        };
        Ok(Ok(Self { compare, tracking: tracking.is_ok() && caching.is_ok() }))
    }

    /// For the operator.
    pub(in crate::valkey) fn names(self) -> Vec<&'static str> {
        let compare = match self.compare {
            Compare::Ifeq => "IFEQ",
            Compare::Script => "scripts",
        };
        std::iter::once(compare).chain(self.tracking.then_some("tracking")).collect()
    }
}
