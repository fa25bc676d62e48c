//! Instances of WASI 0.3, each of which answers many requests at the same time.

// Decision: docs/decisions/0095-an-instance-of-wasi-0-3-answers-requests-at-the-same-time.md

mod answering;
mod burst;
mod job;
mod membership;
mod pool;
mod requests;
mod worker;

pub(super) use job::{Ending, Job, NoResponse, Respond, Waiting};
pub(super) use pool::InstancePool;
