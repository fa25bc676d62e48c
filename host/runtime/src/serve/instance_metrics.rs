//! Metrics of instances that answer many requests.

use metrics::{Counter, Gauge, counter, gauge};

use crate::metrics::{CREATED_INSTANCES, ENDED_INSTANCES, IDLE_INSTANCES, REUSED_INSTANCES};

/// Why an instance answers no more requests: the label `reason` of [`ENDED_INSTANCES`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum EndReason {
    /// It has answered `requests`.
    Requests,
    /// It has waited for `idle`.
    Idle,
    /// It has reached `max_age`.
    MaxAge,
    /// It has nearly reached a bound that holds for the instance.
    Full,
    /// It still holds an HTTP message that is not finished.
    Open,
    /// Its place was needed.
    Displaced,
    /// The plugin was reloaded, or the host shuts down.
    Closed,
    /// It trapped, exited, reached a bound of the request, or was cut off.
    Stopped,
}

impl EndReason {
    const ALL: [Self; 8] = [
        Self::Requests,
        Self::Idle,
        Self::MaxAge,
        Self::Full,
        Self::Open,
        Self::Displaced,
        Self::Closed,
        Self::Stopped,
    ];

    fn label(self) -> &'static str {
        match self {
            Self::Requests => "requests",
            Self::Idle => "idle",
            Self::MaxAge => "max_age",
            Self::Full => "full",
            Self::Open => "open",
            Self::Displaced => "displaced",
            Self::Closed => "closed",
            Self::Stopped => "stopped",
        }
    }
}

/// The metrics of the instances of one plugin.
#[derive(Debug)]
pub(super) struct InstanceMetrics {
    plugin: String,
    pub(super) created: Counter,
    pub(super) reused: Counter,
    pub(super) idle: Gauge,
}

impl InstanceMetrics {
    pub(super) fn new(plugin: &str) -> Self {
        let label = || plugin.to_owned();
        let metrics = Self {
            plugin: label(),
            created: counter!(CREATED_INSTANCES.name, "plugin" => label()),
            reused: counter!(REUSED_INSTANCES.name, "plugin" => label()),
            idle: gauge!(IDLE_INSTANCES.name, "plugin" => label()),
        };
        // The series of all reasons exist from the start, so that a rate sees the first end.
        EndReason::ALL.iter().for_each(|reason| metrics.ended(*reason).increment(0));
        metrics
    }

    pub(super) fn ended(&self, reason: EndReason) -> Counter {
        counter!(ENDED_INSTANCES.name, "plugin" => self.plugin.clone(), "reason" => reason.label())
    }
}
