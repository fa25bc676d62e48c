//! What is wrong with the servers of a cache, and what could be better.

use larder_host::cache::Policy;
use larder_host::cache::valkey::{CommandReport, Inspection, Memory, Need, Persistence, Role, ServerReport};

use super::CheckedCache;

/// What a plugin that only reads needs for functions of other interfaces: `exists`, lists of keys, and the version of a key.
const OTHER_READS: [&str; 4] = ["GETRANGE", "PTTL", "PEXPIRETIME", "SCAN"];

/// Something that is wrong, or could be better.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Finding {
    /// The address of the server, if it is about one.
    pub(super) server: Option<String>,
    /// The command, if it is about one.
    pub(super) command: Option<&'static str>,
    pub(super) text: String,
}

impl Finding {
    pub(super) fn of_cache(text: String) -> Self {
        Self { server: None, command: None, text }
    }

    fn of_server(server: &ServerReport, text: String) -> Self {
        Self { server: Some(server.address.to_string()), command: None, text }
    }

    /// One line for the operator.
    pub(super) fn line(&self, cache: &str) -> String {
        let server = self.server.as_ref().map(|server| format!("the server at `{server}`: ")).unwrap_or_default();
        format!("cache `{cache}`: {server}{}", self.text)
    }
}

/// Adds the findings of the inspection.
pub(super) fn add(cache: &mut CheckedCache<'_>) {
    let Some(inspection) = cache.inspection.take() else { return };
    for server in &inspection.servers {
        let (problems, advice) = of_server(server, cache);
        cache.problems.extend(problems);
        cache.advice.extend(advice);
    }
    cache.advice.extend(of_sentinels(&inspection));
    cache.inspection = Some(inspection);
}

fn of_server(server: &ServerReport, cache: &CheckedCache<'_>) -> (Vec<Finding>, Vec<Finding>) {
    let (mut problems, mut advice) = (Vec::new(), Vec::new());
    let finding = |text: String| Finding::of_server(server, text);
    // A host that cannot connect has said why.
    if let (Some(reason), Some(_)) = (&server.unreachable, &cache.health) {
        problems.push(finding(reason.clone()));
    }
    if let Some(Role::Replica { primary, is_connected }) = &server.role {
        let link = if *is_connected { "" } else { ", to which it has no connection" };
        let text = format!("it is a replica of `{primary}`{link}, and takes no writes");
        if cache.has_writers {
            problems.push(finding(format!("{text}: use the address of the primary")));
        } else {
            advice.push(finding(text));
        }
    }
    problems.extend(server.cannot_serve.as_ref().map(|reason| finding(format!("it cannot serve: {reason}"))));
    for CommandReport { command, refusal, .. } in &server.commands {
        let Some(refusal) = refusal else { continue };
        let (is_needed, why) = match command.need {
            _ if cache.near().is_some() && command.is_for_near() => (true, "; without it nothing is kept near"),
            Need::Writes if !cache.has_writers && OTHER_READS.contains(&command.name) => {
                (false, "; no plugin of the configuration writes, and only reads by other interfaces need it")
            }
            Need::Writes if !cache.has_writers => (false, "; no plugin of the configuration writes"),
            Need::Scripts if server.has_ifeq => (false, "; only while the server is full"),
            Need::Scripts if !cache.has_writers => (false, "; no plugin of the configuration writes"),
            Need::Tracking => (false, "; without it they poll"),
            Need::Increment => (false, "; no other interface needs it"),
            _ => (true, ""),
        };
        let text = format!("it refuses {} (used for {}{why}): {refusal}", command.name, command.purpose);
        let finding = Finding { command: Some(command.name), ..finding(text) };
        if is_needed { problems.push(finding) } else { advice.push(finding) }
    }
    advice.extend(server.memory.as_ref().and_then(|memory| of_memory(memory, &cache.config.policy)).map(finding));
    advice.extend(server.persistence.as_ref().into_iter().flat_map(of_persistence).map(finding));
    (problems, advice)
}

fn of_memory(memory: &Memory, policy: &Policy) -> Option<String> {
    let text = match (memory.max, memory.policy.as_str()) {
        (None, _) => {
            "`maxmemory` is not set, so it grows until its machine is full: set it, with `maxmemory-policy \
                      allkeys-lru`"
        }
        (_, "noeviction") => {
            "`maxmemory-policy` is `noeviction`, so it refuses to store when it is full: set \
                              `allkeys-lru`"
        }
        (_, "volatile-ttl") => {
            "`maxmemory-policy` is `volatile-ttl`, which evicts first what expires soonest, and so \
                                leases: set `allkeys-lru`"
        }
        (_, volatile) if volatile.starts_with("volatile-") && policy.max_expire.is_none() => {
            "`maxmemory-policy` evicts only values that expire: set `allkeys-lru`, or `max_expire` of the cache"
        }
        _ => return None,
    };
    Some(text.to_owned())
}

fn of_persistence(persistence: &Persistence) -> Vec<String> {
    let mut advice = Vec::new();
    if persistence.snapshots == Some(true) && !persistence.append_only {
        let text = "after a crash it starts from its last snapshot, with values that were cleared since: turn snapshots \
                    off (`save \"\"`), or use `appendonly yes`";
        advice.push(text.to_owned());
    }
    if !persistence.last_write_succeeded {
        advice.push("its last write to disk failed, so it may refuse to store: check its log and its disk".to_owned());
    }
    advice
}

fn of_sentinels(inspection: &Inspection) -> Vec<Finding> {
    let mut advice = Vec::new();
    let first = inspection.sentinels.iter().find_map(|sentinel| sentinel.primary.as_ref());
    for sentinel in &inspection.sentinels {
        let text = match (&sentinel.problem, &sentinel.primary) {
            (Some(problem), _) => problem.clone(),
            (None, Some(primary)) if Some(primary) != first => {
                format!("it names `{primary}` as the primary, and another sentinel a different server")
            }
            _ => continue,
        };
        advice.push(Finding::of_cache(format!("the sentinel at `{}`: {text}", sentinel.address)));
    }
    advice
}

/// A server of the cache that does not say which server it is, beside a cache whose prefix overlaps.
pub(super) fn undecided(cache: &CheckedCache<'_>, all: &[CheckedCache<'_>]) -> Option<Finding> {
    let options = cache.options()?;
    let other = all.iter().find(|other| {
        other.name != cache.name && other.options().is_some_and(|other| other.shares_keys_with(options))
    })?;
    let is_unknown = |server: &&ServerReport| server.unreachable.is_none() && server.id.is_unknown();
    let server = cache.inspection.as_ref()?.servers.iter().find(is_unknown)?;
    let text = format!(
        "it reports no run_id, so Larder cannot check that the cache `{}`, whose prefix overlaps, is on another server",
        other.name
    );
    Some(Finding::of_server(server, text))
}
