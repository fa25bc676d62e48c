//! What bodies have in common that plugins write: the end of one that its plugin did not finish is no end.

// Decision: docs/decisions/0031-a-response-body-is-complete-only-if-the-plugin-is.md

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use http_body_util::BodyExt;
use tokio::runtime::Handle;
use wasmtime_wasi_http::WasiBody;

/// Whether a plugin failed, for those who send what it writes: its body alone ends then as if it were whole.
#[derive(Debug, Clone, Default)]
pub(crate) struct Failure(Arc<AtomicBool>);

impl Failure {
    pub(crate) fn set(&self) {
        self.0.store(true, Ordering::Release);
    }

    pub(crate) fn is_set(&self) -> bool {
        self.0.load(Ordering::Acquire)
    }
}

/// Takes what is left of a body, until whoever writes it ends or goes.
pub(crate) fn read_away(mut body: WasiBody) {
    // Outside of a runtime nobody writes any longer.
    if let Ok(runtime) = Handle::try_current() {
        runtime.spawn(async move { while let Some(Ok(_)) = body.frame().await {} });
    }
}
