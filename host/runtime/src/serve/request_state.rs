//! What the parts of a request share while its plugin runs and its answer is sent.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak};

use super::admission::Admitted;
use super::answer::Answer;

/// A request that a plugin answers. It counts against the maximum until this is dropped: when the plugin has ended, and
/// its answer is taken or given up.
#[derive(Debug)]
pub(super) struct RequestState {
    _admitted: Admitted,
    answer: Weak<Answer>,
    /// The client closed the connection, broke off its request, or took too little of the answer.
    is_client_gone: AtomicBool,
    /// The plugin waits for bytes of the request.
    is_upload_awaited: AtomicBool,
}

impl RequestState {
    pub(super) fn new(admitted: Admitted, answer: &Arc<Answer>) -> Arc<Self> {
        Arc::new(Self {
            _admitted: admitted,
            answer: Arc::downgrade(answer),
            is_client_gone: AtomicBool::new(false),
            is_upload_awaited: AtomicBool::new(false),
        })
    }

    pub(super) fn client_is_gone(&self) {
        self.is_client_gone.store(true, Ordering::Release);
    }

    pub(super) fn set_upload_awaited(&self, is_awaited: bool) {
        self.is_upload_awaited.store(is_awaited, Ordering::Release);
    }

    /// True if the plugin waits for bytes of the request.
    pub(super) fn is_upload_awaited(&self) -> bool {
        self.is_upload_awaited.load(Ordering::Acquire)
    }

    /// True if the client, and not the plugin, may be the reason for a failure: it is gone, or, if the plugin was
    /// stopped for its `timeout`, the plugin waited for it.
    pub(super) fn may_be_the_clients_fault(&self, is_timeout: bool) -> bool {
        let is_waiting = || self.is_upload_awaited() || self.answer.upgrade().is_some_and(|answer| answer.is_untaken());
        self.is_client_gone.load(Ordering::Acquire) || is_timeout && is_waiting()
    }
}
