//! Instances of WASI 0.3, each of which answers many requests at the same time.

// Decision: docs/decisions/0095-an-instance-of-wasi-0-3-answers-requests-at-the-same-time.md

mod crew;
mod job;
mod requests;
mod worker;

pub(super) use crew::Crew;
pub(super) use job::{Job, Waiting};
