//! The probe of one server: what it reports, and a call of each command.

use std::collections::HashMap;
use std::time::Duration as StdDuration;

use redis::{Cmd, FromRedisValue, RedisError, Value};
use tokio::time::Instant;

use crate::Issuer;
use crate::valkey::commands::compare_and_set::{CompareAndSet, Expiry};
use crate::valkey::connection::client::Client;
use crate::valkey::error::{cannot_serve, is_read_only, server_text};
use crate::valkey::inspection::report::{CommandReport, ServerReport};
use crate::valkey::options::{Deployment, ServerOptions};
use crate::valkey::server::info::ServerInfo;
use crate::valkey::server::rights::{self, COMMANDS, Need, Probe, ServerCommand};

/// The deadline of each step.
pub(in crate::valkey) fn deadline(options: &ServerOptions) -> StdDuration {
    options.connect_timeout.max(options.timeout)
}

/// Why a call failed.
enum CallError {
    /// The server replied with an error.
    Server(RedisError),
    /// No reply in time, or the connection broke.
    Unanswered(String),
}

/// A connection whose calls have a deadline each.
struct Calls {
    client: Client,
    deadline: StdDuration,
}

impl Calls {
    async fn call<T: FromRedisValue>(&mut self, command: &Cmd) -> Result<T, CallError> {
        match tokio::time::timeout(self.deadline, command.query_async(&mut self.client.unlimited())).await {
            Ok(Ok(reply)) => Ok(reply),
            Ok(Err(error)) if error.is_unrecoverable_error() => Err(CallError::Unanswered(server_text(&error))),
            Ok(Err(error)) => Err(CallError::Server(error)),
            Err(_elapsed) => Err(CallError::Unanswered(format!("no answer within {:?}", self.deadline))),
        }
    }
}

/// Asks the server of an open connection, and calls each command that a cache with these options sends to it.
pub(in crate::valkey) async fn probe(client: Client, options: &ServerOptions, report: &mut ServerReport) {
    let mut calls = Calls { client, deadline: deadline(options) };
    let info = ask(&mut calls, report).await;
    let key = rights::probe_key(&options.prefix);
    let ifeq = CompareAndSet::Ifeq.replace(&key, &Issuer::new().issue(), b"", Some(Expiry::Past));
    report.has_ifeq = match calls.call::<Value>(&ifeq).await {
        Ok(_) => true,
        Err(CallError::Server(error)) if error.code() == Some("ERR") => false,
        // The server did not look at the arguments.
        Err(_) => info.is_some_and(|info| info.compare_and_set() == CompareAndSet::Ifeq),
    };
    let probe = Probe::new(&options.prefix, options.db);
    for command in COMMANDS.iter().filter(|command| is_sent(command, options)) {
        let Some(call) = command.call(&probe) else { continue };
        let refusal = match calls.call::<Value>(&call).await {
            Ok(_) => None,
            // The server checks rights before its own state.
            Err(CallError::Server(error)) if is_state(&error) => {
                if !is_read_only(&error) && error.redirect_node().is_none() {
                    report.cannot_serve.get_or_insert_with(|| server_text(&error));
                }
                None
            }
            // It was called with an argument that is no number.
            Err(CallError::Server(error))
                if command.name == "INCRBY" && server_text(&error).contains("not an integer") =>
            {
                None
            }
            // It needs the tracking, which was refused.
            Err(CallError::Server(error)) if command.name == "CLIENT CACHING" && error.code() != Some("NOPERM") => None,
            Err(CallError::Server(error)) => Some(server_text(&error)),
            Err(CallError::Unanswered(reason)) => {
                report.unreachable = Some(format!("it did not answer {}: {reason}", command.name));
                return;
            }
        };
        report.commands.push(CommandReport { command: *command, refusal });
    }
}

/// Asks the server what it is.
async fn ask(calls: &mut Calls, report: &mut ServerReport) -> Option<ServerInfo> {
    let mut info = redis::cmd("INFO");
    info.arg(&["server", "replication", "memory", "persistence"]);
    let info = calls.call::<String>(&info).await.unwrap_or_default();
    report.read_info(&info);
    // Few users have the right.
    let mut save = redis::cmd("CONFIG");
    save.arg("GET").arg("save");
    if let Some(persistence) = &mut report.persistence
        && let Ok(settings) = calls.call::<HashMap<String, String>>(&save).await
    {
        persistence.snapshots = settings.get("save").map(|save| !save.is_empty());
    }
    let start = Instant::now();
    report.round_trip = calls.call::<Value>(&redis::cmd("PING")).await.ok().map(|_pong| start.elapsed());
    ServerInfo::read(&info).ok()
}

/// True if a cache with these options may send the command to its data servers.
fn is_sent(command: &ServerCommand, options: &ServerOptions) -> bool {
    let is_cluster = matches!(options.deployment, Deployment::Cluster(_));
    match command.need {
        Need::Sentinel => false,
        Need::Cluster => is_cluster,
        Need::Single => !is_cluster,
        Need::Database => options.db != 0,
        Need::Login
        | Need::Always
        | Need::Writes
        | Need::Scripts
        | Need::Tracking
        | Need::Increment
        | Need::Information => true,
    }
}

/// True if the error is about the state of the server, or about the node that has a key, and not about the command.
fn is_state(error: &RedisError) -> bool {
    cannot_serve(error) || error.redirect_node().is_some()
}
