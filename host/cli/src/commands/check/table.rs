//! The tables of `larder check`, and its advice.

use bytesize::ByteSize;
use comfy_table::{Table, presets};
use larder_host::cache::valkey::{Memory, Need, Persistence, Role, ServerReport};
use larder_host::config::{BackendConfig, Config};

use super::{Checked, CheckedCache, plugins};

/// A cell for what is not known or does not apply.
const NONE: &str = "-";

/// The configuration's file, the tables of all caches, of their servers, of their near tiers, of the plugins, and of those
/// with a `reuse`, and the advice, with an empty line between.
pub(super) fn tables(checked: &Checked<'_>) -> String {
    let Checked { config, caches, plugins, .. } = checked;
    let mut parts = vec![of_file(checked), of_caches(caches)];
    parts.extend(of_servers(caches));
    parts.extend(of_near_tiers(caches));
    parts.extend(plugins::rows(plugins, config));
    parts.extend(of_reuse(config));
    let advice = caches
        .iter()
        .flat_map(|cache| cache.advice.iter().map(|advice| format!("advice: {}", advice.line(cache.name))));
    let advice: Vec<String> = advice.collect();
    if !advice.is_empty() {
        parts.push(advice.join("\n"));
    }
    parts.join("\n\n")
}

fn of_file(checked: &Checked<'_>) -> String {
    match checked.file {
        Some(file) => format!("configuration: {}", file.display()),
        None => {
            let default = Config::DEFAULT_PATH;
            format!(
                "configuration: no file, so there is one RAM cache (searched for: --config, LARDER_CONFIG, {default})"
            )
        }
    }
}

fn of_caches(caches: &[CheckedCache<'_>]) -> String {
    let rows = caches.iter().map(|cache| {
        let label = if cache.is_default { format!("{} (default)", cache.name) } else { cache.name.to_owned() };
        let health = cache.health.as_ref();
        let server = health.map(|health| format!("{} {}", health.kind, health.version).trim_end().to_owned());
        let round_trip = health.and_then(|health| health.round_trip);
        let supports = health.map(|health| health.supports.join(", ")).filter(|supports| !supports.is_empty());
        [
            label,
            cache.type_name().to_owned(),
            address(cache),
            server.unwrap_or_else(none),
            round_trip.map_or_else(none, |time| format!("{:.2} ms", time.as_secs_f64() * 1e3)),
            supports.unwrap_or_else(none),
            if cache.is_ok() { "ok" } else { "failed" }.to_owned(),
        ]
    });
    table(["NAME", "TYPE", "ADDRESS", "SERVER", "ROUND TRIP", "SUPPORTS", "STATUS"], rows)
}

/// The servers that could be inspected, if there are any.
fn of_servers(caches: &[CheckedCache<'_>]) -> Option<String> {
    let servers = caches.iter().flat_map(|cache| {
        let servers = cache.inspection.iter().flat_map(|inspection| &inspection.servers);
        servers.filter(|server| !server.commands.is_empty()).map(|server| (cache.name, server))
    });
    let rows: Vec<_> = servers.map(|(name, server)| row(name, server)).collect();
    let head = ["CACHE", "SERVER", "ROLE", "MEMORY", "EVICTION", "PERSISTENCE", "TRACKING", "COMMANDS"];
    (!rows.is_empty()).then(|| table(head, rows.into_iter()))
}

/// The near tiers, if there are any.
fn of_near_tiers(caches: &[CheckedCache<'_>]) -> Option<String> {
    let rows: Vec<_> = caches
        .iter()
        .filter_map(|cache| Some((cache, cache.near()?)))
        .map(|(cache, near)| {
            let time = |time| humantime::format_duration(time).to_string();
            [
                cache.name.to_owned(),
                ByteSize(near.max_bytes).to_string(),
                time(near.max_staleness),
                ByteSize(near.max_value_bytes.try_into().unwrap_or(u64::MAX)).to_string(),
                near.max_expire.map_or_else(none, time),
                if cache.is_kept_near() { "by key" } else { "no" }.to_owned(),
            ]
        })
        .collect();
    let head = ["NEAR", "MAX BYTES", "MAX STALENESS", "MAX VALUE", "MAX EXPIRE", "TRACKING"];
    (!rows.is_empty()).then(|| table(head, rows.into_iter()))
}

/// The plugins whose instances answer many requests, if there are any.
fn of_reuse(config: &Config) -> Option<String> {
    let reused = config.plugins.iter().filter_map(|(name, grant)| Some((name, grant.reuse?)));
    let rows: Vec<_> = reused
        .map(|(name, reuse)| {
            let [idle, max_age] = [reuse.idle, reuse.max_age].map(|time| humantime::format_duration(time).to_string());
            [name.clone(), reuse.requests.to_string(), idle, max_age]
        })
        .collect();
    (!rows.is_empty()).then(|| table(["PLUGIN", "REUSE", "IDLE", "MAX AGE"], rows.into_iter()))
}

fn row(cache: &str, server: &ServerReport) -> [String; 8] {
    let role = match &server.role {
        Some(Role::Primary) => "primary".to_owned(),
        Some(Role::Replica { .. }) => "replica".to_owned(),
        _ => none(),
    };
    let allowed = server.commands.iter().filter(|report| report.refusal.is_none()).count();
    [
        cache.to_owned(),
        server.address.to_string(),
        role,
        server.memory.as_ref().map_or_else(none, used),
        server.memory.as_ref().map(|memory| memory.policy.clone()).filter(|name| !name.is_empty()).unwrap_or_else(none),
        server.persistence.as_ref().map_or_else(none, kept),
        if has_tracking(server) { "yes" } else { "no" }.to_owned(),
        format!("{allowed} of {}", server.commands.len()),
    ]
}

fn used(memory: &Memory) -> String {
    let used = ByteSize(memory.used);
    memory.max.map_or(format!("{used}, no limit"), |max| format!("{used} of {}", ByteSize(max)))
}

fn kept(persistence: &Persistence) -> String {
    match (persistence.snapshots, persistence.append_only) {
        (Some(true), true) => "snapshots, log".to_owned(),
        (Some(true), false) => "snapshots".to_owned(),
        (_, true) => "log".to_owned(),
        (Some(false), false) => "none".to_owned(),
        (None, false) => none(),
    }
}

/// True if the server reports changes of keys.
pub(super) fn has_tracking(server: &ServerReport) -> bool {
    let mut tracking = server.commands.iter().filter(|report| report.command.need == Need::Tracking).peekable();
    tracking.peek().is_some() && tracking.all(|report| report.refusal.is_none())
}

/// The address of a cache, without secrets.
pub(super) fn address(cache: &CheckedCache<'_>) -> String {
    match &cache.config.backend {
        BackendConfig::Ram { max_bytes, .. } => format!("{} in this process", ByteSize(*max_bytes)),
        BackendConfig::Server(options) => {
            let tls = if options.tls.is_some() { " (TLS)" } else { "" };
            format!("{}/{} {}{tls}", options.deployment, options.db, options.prefix)
        }
        _ => none(),
    }
}

pub(super) fn none() -> String {
    NONE.to_owned()
}

pub(super) fn table<const N: usize>(head: [&str; N], rows: impl Iterator<Item = [String; N]>) -> String {
    let mut table = Table::new();
    table.load_style(presets::NOTHING).set_header(head);
    rows.for_each(|row| {
        table.add_row(row);
    });
    for column in table.column_iter_mut() {
        column.set_padding((0, 2));
    }
    table.trim_fmt()
}
