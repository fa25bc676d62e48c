//! An instance as a member of its pool: it leaves, and its requests are ended, however its task ends.

use super::pool::{InstancePool, Load};
use crate::error::Error;
use crate::runtime::Failure;
use crate::serve::instance_metrics::EndReason;

/// An instance as a member of the pool, until its task ends.
pub(super) struct Membership<'a> {
    pub(super) pool: &'a InstancePool,
    pub(super) id: u64,
    pub(super) load: &'a Load,
    /// The name of the plugin.
    pub(super) plugin: &'a str,
    /// Why the instance ends.
    pub(super) end: EndReason,
}

impl Membership<'_> {
    /// Ends the requests that the instance has begun. It gets no more.
    pub(super) fn fail(&self, failure: &Failure) {
        self.pool.leave(self.id, EndReason::Stopped, false);
        self.load.requests.fail_begun(|| same(self.plugin, failure));
    }
}

impl Drop for Membership<'_> {
    /// If the task of the instance has panicked, no request is sent to it any more, and none waits for it.
    fn drop(&mut self) {
        self.pool.leave(self.id, EndReason::Stopped, false);
        self.load.requests.fail_all(|| same(self.plugin, &panicked(self.plugin)));
        self.pool.metrics().ended(self.end).increment(1);
    }
}

/// Ends the requests of an instance if its task panics: before its store and the unfinished bodies in it are dropped.
pub(super) struct PanicGuard<'a>(pub(super) &'a Membership<'a>);

impl Drop for PanicGuard<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.0.fail(&panicked(self.0.plugin));
        }
    }
}

fn panicked(plugin: &str) -> Failure {
    Failure::Failed(Error::Trap { plugin: plugin.to_owned(), reason: "its instance ended".to_owned() })
}

/// The error for one of the requests.
pub(super) fn same(plugin: &str, failure: &Failure) -> Error {
    let error = match failure {
        Failure::Exited(status) => {
            let reason = format!("it exited with status {status} during a request");
            return Error::Trap { plugin: plugin.to_owned(), reason };
        }
        Failure::Failed(error) => error,
    };
    match error {
        Error::Stopped { plugin, limit, reason } => {
            Error::Stopped { plugin: plugin.clone(), limit, reason: reason.clone() }
        }
        Error::Trap { plugin, reason } => Error::Trap { plugin: plugin.clone(), reason: reason.clone() },
        other => Error::Trap { plugin: plugin.to_owned(), reason: other.to_string() },
    }
}

#[cfg(test)]
mod tests {
    use std::panic::{AssertUnwindSafe, catch_unwind};

    use super::super::pool::NewInstance;
    use super::super::pool::tests::{job, pool};
    use super::*;

    #[tokio::test]
    async fn an_instance_whose_task_panics_leaves_the_pool_and_fails_its_requests() {
        let pool = pool(1);
        let (first, mut ended) = job();
        let NewInstance { id, tasks: _tasks, load } = pool.assign(first).unwrap();
        let task = AssertUnwindSafe(|| {
            let (plugin, end) = ("plugin", EndReason::Stopped);
            let _member = Membership { pool: &pool, id, load: &load, plugin, end };
            panic!("on purpose");
        });
        assert!(catch_unwind(task).is_err());
        assert!(ended.try_recv().unwrap().is_err());
        assert!(pool.assign(job().0).is_some(), "a new instance");
    }
}
