//! Why a plugin's file is not loaded.

use crate::cache::text::one_line;

/// The longest reason, in characters: names in a plugin's file are part of some, and may have 100,000 bytes.
const MAX_REASON: usize = 1_000;

/// Why a plugin's file is not loaded.
#[derive(Debug)]
pub(crate) struct Refusal {
    /// The label `outcome` of `larder_plugin_loads_total`.
    pub(crate) outcome: &'static str,
    /// One line for the operator.
    pub(crate) reason: String,
}

impl Refusal {
    pub(crate) fn new(outcome: &'static str, reason: &str) -> Self {
        let mut reason = one_line(reason);
        if let Some((end, _)) = reason.char_indices().nth(MAX_REASON) {
            reason.truncate(end);
            reason.push('…');
        }
        Self { outcome, reason }
    }

    /// The file cannot be read, or is no regular file.
    pub(crate) fn unreadable(reason: &str) -> Self {
        Self::new("unreadable", reason)
    }

    /// The file is no component that this host can run.
    pub(crate) fn invalid(reason: &str) -> Self {
        Self::new("invalid", reason)
    }

    /// The compiler's error.
    pub(crate) fn not_a_component(error: &str) -> Self {
        Self::invalid(&format!("this is not a valid component: {error}"))
    }
}
