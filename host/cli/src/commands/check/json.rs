//! The JSON of `larder check --json`. `docs/command-line.md` lists its keys.

use larder_host::cache::NearOptions;
use larder_host::cache::valkey::{CommandReport, Deployment, Memory, Persistence, Role, SentinelReport, ServerReport};
use larder_host::config::{BackendConfig, Config, Grant, Reuse};
use serde_json::{Value, json};

use super::CheckedCache;
use super::findings::Finding;
use super::table::{address, has_tracking};
use crate::json::SCHEMA;

/// The whole output.
pub(super) fn object(caches: &[CheckedCache<'_>], config: &Config) -> Value {
    json!({
        "schema": SCHEMA,
        "ok": caches.iter().all(CheckedCache::is_ok),
        "caches": caches.iter().map(cache).collect::<Vec<_>>(),
        "plugins": config.plugins.iter().map(plugin).collect::<Vec<_>>(),
    })
}

fn plugin((name, grant): (&String, &Grant)) -> Value {
    json!({ "name": name, "reuse": grant.reuse.as_ref().map(reuse) })
}

fn reuse(reuse: &Reuse) -> Value {
    json!({
        "requests": reuse.requests,
        "concurrent": reuse.concurrent,
        "idle_seconds": reuse.idle.as_secs_f64(),
        "max_age_seconds": reuse.max_age.as_secs_f64(),
    })
}

fn cache(cache: &CheckedCache<'_>) -> Value {
    let options = cache.options();
    let max_bytes = match &cache.config.backend {
        BackendConfig::Ram { max_bytes, .. } => Some(max_bytes),
        _ => None,
    };
    let health = cache.health.as_ref();
    let inspection = cache.inspection.as_ref();
    json!({
        "name": cache.name,
        "default": cache.is_default,
        "type": cache.type_name(),
        "address": address(cache),
        "max_bytes": max_bytes,
        "deployment": options.map(|options| match options.deployment {
            Deployment::Cluster(_) => "cluster",
            Deployment::Sentinel(_) => "sentinel",
            _ => "server",
        }),
        "db": options.map(|options| options.db),
        "prefix": options.map(|options| &options.prefix),
        "user": options.map(|options| options.username.as_deref().unwrap_or("default")),
        "tls": options.map(|options| options.tls.is_some()),
        "ok": cache.is_ok(),
        "round_trip_ms": health.and_then(|health| health.round_trip).map(|time| time.as_secs_f64() * 1e3),
        "supports": health.map(|health| health.supports.clone()).unwrap_or_default(),
        "near": cache.near().map(|near| self::near(near, cache)),
        "servers": inspection.iter().flat_map(|found| &found.servers).map(server).collect::<Vec<_>>(),
        "sentinels": inspection.iter().flat_map(|found| &found.sentinels).map(sentinel).collect::<Vec<_>>(),
        "problems": cache.problems.iter().map(finding).collect::<Vec<_>>(),
        "advice": cache.advice.iter().map(finding).collect::<Vec<_>>(),
    })
}

fn near(near: &NearOptions, cache: &CheckedCache<'_>) -> Value {
    json!({
        "max_bytes": near.max_bytes,
        "max_staleness_seconds": near.max_staleness.as_secs_f64(),
        "max_value_bytes": near.max_value_bytes,
        "max_expire_seconds": near.max_expire.map(|expire| expire.as_secs_f64()),
        "tracking": cache.is_kept_near().then_some("by-key"),
    })
}

fn server(server: &ServerReport) -> Value {
    let (role, primary) = match &server.role {
        Some(Role::Primary) => (Some("primary"), None),
        Some(Role::Replica { primary, .. }) => (Some("replica"), Some(primary)),
        _ => (None, None),
    };
    json!({
        "address": server.address.to_string(),
        "error": server.unreachable,
        "product": server.kind.map(|kind| kind.type_name()),
        "version": server.version,
        "mode": server.mode,
        "role": role,
        "replica_of": primary,
        "run_id": server.id.run_id,
        "replication_id": server.id.replication_id,
        "round_trip_ms": server.round_trip.map(|time| time.as_secs_f64() * 1e3),
        "tracking": has_tracking(server),
        "ifeq": server.has_ifeq,
        "memory": server.memory.as_ref().map(memory),
        "persistence": server.persistence.as_ref().map(persistence),
        "commands": server.commands.iter().map(command).collect::<Vec<_>>(),
    })
}

fn memory(memory: &Memory) -> Value {
    json!({ "used_bytes": memory.used, "max_bytes": memory.max, "policy": memory.policy })
}

fn persistence(persistence: &Persistence) -> Value {
    json!({
        "snapshots": persistence.snapshots,
        "append_only": persistence.append_only,
        "last_write_succeeded": persistence.last_write_succeeded,
    })
}

fn command(report: &CommandReport) -> Value {
    let command = &report.command;
    json!({
        "name": command.name,
        "need": command.need.name(),
        "allowed": report.refusal.is_none(),
        "refusal": report.refusal,
    })
}

fn sentinel(sentinel: &SentinelReport) -> Value {
    let primary = sentinel.primary.as_ref().map(ToString::to_string);
    json!({ "address": sentinel.address.to_string(), "primary": primary, "error": sentinel.problem })
}

fn finding(finding: &Finding) -> Value {
    json!({ "server": finding.server, "command": finding.command, "text": finding.text })
}
