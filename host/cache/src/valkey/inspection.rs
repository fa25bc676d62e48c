//! Inspection: what the servers of a cache are, and which commands they allow its user.

mod probe;
pub(in crate::valkey) mod report;

use std::collections::BTreeSet;

use futures_util::future::join_all;
use redis::{ProtocolVersion, RedisConnectionInfo, RedisResult, Value};

use crate::tcp::TimeLimit;
use crate::text::short_line;
use crate::valkey::connection::client::Client;
use crate::valkey::connection::handshake::Access;
use crate::valkey::connection::reply_limit::ReplyLimits;
use crate::valkey::connection::stream::Network;
use crate::valkey::inspection::report::{Inspection, SentinelReport, ServerReport};
use crate::valkey::options::{Deployment, Endpoint, Sentinels, ServerOptions};
use crate::valkey::topology::{sentinel, slots};

/// The slots of a large cluster and what a server reports about itself are shorter.
const LIMITS: ReplyLimits = ReplyLimits { string: 1 << 20, reply: 4 << 20 };

/// Connects to the servers of a cache and asks each what it is, and for each command of
/// [`COMMANDS`](crate::valkey::COMMANDS) whether the cache's user may call it, by a call that changes nothing. The
/// connections are closed at the end.
///
/// Each step takes at most the longer one of `connect_timeout` and `timeout`. A server that cannot be reached is part of
/// the report.
pub async fn inspect(options: &ServerOptions) -> Inspection {
    match &options.deployment {
        Deployment::Server(endpoint) => inspect_all(options, [endpoint.clone()].into()).await,
        Deployment::Cluster(seeds) => inspect_all(options, primaries(options, seeds).await).await,
        Deployment::Sentinel(sentinels) => {
            let sentinels = ask_sentinels(options, sentinels).await;
            let primary: BTreeSet<Endpoint> =
                sentinels.iter().find_map(|sentinel| sentinel.primary.clone()).into_iter().collect();
            Inspection { sentinels, ..inspect_all(options, primary).await }
        }
    }
}

async fn inspect_all(options: &ServerOptions, endpoints: BTreeSet<Endpoint>) -> Inspection {
    let reports = endpoints.into_iter().map(|endpoint| async move {
        match connect(options, &endpoint).await {
            Ok(client) => {
                let mut report = ServerReport::new(endpoint);
                probe::probe(client, options, &mut report).await;
                report
            }
            Err(reason) => ServerReport { unreachable: Some(reason), ..ServerReport::new(endpoint) },
        }
    });
    Inspection { servers: join_all(reports).await, sentinels: Vec::new() }
}

/// Logs in. Does not select the database, for which the user may lack the right.
async fn connect(options: &ServerOptions, endpoint: &Endpoint) -> Result<Client, String> {
    let login = RedisConnectionInfo::default().set_protocol(ProtocolVersion::RESP3);
    let network = Network::new(options.resolver.clone());
    let access = Access::to_servers(options, &network);
    let time = TimeLimit::new(probe::deadline(options));
    let client = access.connect(endpoint, login, LIMITS, |_event| {}, time);
    match tokio::time::timeout_at(time.deadline(), client).await {
        Ok(client) => client.map_err(|error| short_line(&error.to_string())),
        Err(_elapsed) => Err(format!("no answer within {:?}", time.limit())),
    }
}

/// The primaries of a cluster, as the first seed that answers reports them; else that seed, else all seeds.
async fn primaries(options: &ServerOptions, seeds: &[Endpoint]) -> BTreeSet<Endpoint> {
    for seed in seeds {
        let Ok(client) = connect(options, seed).await else { continue };
        let mut question = redis::cmd("CLUSTER");
        question.arg("SLOTS");
        let reply: Option<RedisResult<Value>> =
            tokio::time::timeout(probe::deadline(options), question.query_async(&mut client.unlimited())).await.ok();
        let ranges = reply.and_then(Result::ok).map(|reply| slots::read_ranges(reply, &seed.host));
        let primaries: BTreeSet<Endpoint> = ranges.into_iter().flatten().map(|range| range.primary).collect();
        return if primaries.is_empty() { [seed.clone()].into() } else { primaries };
    }
    seeds.iter().cloned().collect()
}

/// Asks each sentinel for the primary.
async fn ask_sentinels(options: &ServerOptions, sentinels: &Sentinels) -> Vec<SentinelReport> {
    let network = &Network::new(options.resolver.clone());
    let asked = sentinels.nodes.iter().map(|node| async move {
        let access = Access::to_sentinels(sentinels, options.tls.as_ref(), network);
        let time = TimeLimit::new(probe::deadline(options));
        let answer = sentinel::ask(node, &sentinels.master, &access, time);
        let answer = tokio::time::timeout_at(time.deadline(), answer).await;
        let (primary, problem) = match answer {
            Ok(Ok(Some(primary))) => (Some(primary), None),
            Ok(Ok(None)) => (None, Some(format!("it knows no master `{}`", sentinels.master))),
            Ok(Err(error)) => (None, Some(short_line(&error.to_string()))),
            Err(_elapsed) => (None, Some(format!("no answer within {:?}", time.limit()))),
        };
        SentinelReport { address: node.clone(), primary, problem }
    });
    join_all(asked).await
}
