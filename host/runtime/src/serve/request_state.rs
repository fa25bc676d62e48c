//! What the parts of a request share while its plugin runs and its answer is sent.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock, Weak};

use super::admission::Admitted;
use super::answer::Answer;
use super::error_response::ErrorResponse;
use super::upload::Upload;
use crate::cache::text::one_line;
use crate::error::Error;

/// A request that a plugin answers. It counts against the maximum until this is dropped: when the plugin has ended, and
/// its answer is taken or given up.
#[derive(Debug)]
pub(super) struct RequestState {
    _admitted: Admitted,
    answer: Weak<Answer>,
    /// The client closed the connection, broke off its request, sent too little of it, or took too little of the answer.
    is_client_gone: AtomicBool,
    /// Absent if the request has no body.
    upload: OnceLock<Arc<Upload>>,
    /// The response to a request whose body failed, if the plugin has none.
    body_failure: OnceLock<ErrorResponse>,
}

impl RequestState {
    pub(super) fn new(admitted: Admitted, answer: &Arc<Answer>) -> Arc<Self> {
        Arc::new(Self {
            _admitted: admitted,
            answer: Arc::downgrade(answer),
            is_client_gone: AtomicBool::new(false),
            upload: OnceLock::new(),
            body_failure: OnceLock::new(),
        })
    }

    pub(super) fn client_is_gone(&self) {
        self.is_client_gone.store(true, Ordering::Release);
    }

    /// The upload of the request. Created at the first call.
    pub(super) fn upload(&self) -> &Arc<Upload> {
        self.upload.get_or_init(|| Arc::new(Upload::new()))
    }

    /// Notes why the plugin did not get the whole body.
    pub(super) fn body_failed(&self, response: ErrorResponse) {
        let _second = self.body_failure.set(response);
    }

    /// The response if the plugin fails: its body did, or else the plugin itself.
    pub(super) fn failure(&self) -> ErrorResponse {
        self.body_failure.get().copied().unwrap_or(ErrorResponse::Failed)
    }

    /// Logs how the plugin failed, and returns the response if there is none yet.
    pub(super) fn failed(&self, error: &Error) -> ErrorResponse {
        let is_timeout = matches!(error, Error::Stopped { limit: "timeout", .. });
        let text = one_line(&error.to_string());
        if self.may_be_the_clients_fault(is_timeout) {
            tracing::warn!("{text} (the client had gone, or did not send or take its part in time)");
        } else {
            tracing::error!("{text}");
        }
        match is_timeout {
            true if self.is_upload_awaited() => ErrorResponse::SlowBody,
            true => ErrorResponse::TimedOut,
            false => self.failure(),
        }
    }

    /// True if the plugin waits for bytes of the request.
    pub(super) fn is_upload_awaited(&self) -> bool {
        self.upload.get().is_some_and(|upload| upload.is_awaited())
    }

    /// True if the client, and not the plugin, may be the reason for a failure: it is gone, or, if the plugin was
    /// stopped for its `timeout`, the plugin waited for it.
    pub(super) fn may_be_the_clients_fault(&self, is_timeout: bool) -> bool {
        let is_waiting = || self.is_upload_awaited() || self.answer.upgrade().is_some_and(|answer| answer.is_untaken());
        self.is_client_gone.load(Ordering::Acquire) || is_timeout && is_waiting()
    }
}
