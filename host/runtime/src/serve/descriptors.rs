//! The file descriptors that the process may have, and how many of them connections get.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// What is kept back of all descriptors for the metrics port, the caches, plugin files and the log.
const RESERVED: u64 = 64;

/// The default of `max_connections` with enough descriptors.
const MAX_CONNECTIONS: u64 = 10_000;

/// The fewest connections of a default.
const MIN_CONNECTIONS: u64 = 16;

/// More descriptors than this are of no use to a server. Some programs close each of them one by one.
const USEFUL: u64 = 65_536;

/// Raises the number of file descriptors that the process may have to what the system allows it, at most to 65,536.
/// Call it before [`Server::run`](super::Server::run), which derives the default of `max_connections` from it. Does
/// nothing if the system refuses.
pub fn raise_descriptor_limit() {
    let limit = getrlimit(Resource::Nofile);
    let wanted = limit.maximum.unwrap_or(USEFUL).min(USEFUL);
    if limit.current.is_some_and(|current| current < wanted) {
        let raised = Rlimit { current: Some(wanted), maximum: limit.maximum };
        if let Err(error) = setrlimit(Resource::Nofile, raised) {
            tracing::debug!("cannot raise the number of file descriptors to {wanted}: {error}");
        }
    }
}

/// The descriptors that connections may have: those of the process without the reserved ones.
fn available() -> u64 {
    getrlimit(Resource::Nofile).current.unwrap_or(USEFUL).saturating_sub(RESERVED)
}

/// Three quarters of the descriptors that are not reserved, at most 10,000. The rest is for the plugins' own requests.
fn default_of(available: u64) -> u64 {
    (available / 4).saturating_mul(3).clamp(MIN_CONNECTIONS, MAX_CONNECTIONS)
}

/// The maximum number of connections. Logs a warning if the process has too few descriptors for the configured one.
pub(super) fn max_connections(configured: Option<usize>) -> usize {
    let available = available();
    match configured {
        Some(max) => {
            if u64::try_from(max).unwrap_or(u64::MAX) > available {
                tracing::warn!(
                    "`max_connections` of `[serve]` is {max}, but the process has file descriptors for {available} \
                     connections: lower it, or raise the limit (`ulimit -n`, `LimitNOFILE`)"
                );
            }
            max
        }
        None => usize::try_from(default_of(available)).unwrap_or(usize::MAX),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn connections_get_three_quarters_of_the_descriptors_that_are_not_reserved() {
        for (descriptors, connections) in [(20, 16), (256, 144), (1024, 720), (65_536, 10_000)] {
            assert_eq!(default_of(u64::saturating_sub(descriptors, RESERVED)), connections, "{descriptors}");
        }
    }
}
