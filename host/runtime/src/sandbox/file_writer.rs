//! What writes a stream of WASI 0.3 to a file.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use tokio::sync::oneshot;
use wasmtime::StoreContextMut;
use wasmtime::component::{Source, StreamConsumer, StreamResult};
use wasmtime_wasi::p2::{OutputStream as _, Pollable as _, StreamError};
use wasmtime_wasi::p3::bindings::filesystem::types::ErrorCode;

use super::FileOutput;

/// Writes what the plugin sends to a file, and then reports the outcome.
pub(crate) struct FileWriter {
    file: FileOutput,
    /// The bytes that are being written.
    writing: Option<usize>,
    outcome: Option<oneshot::Sender<Result<(), ErrorCode>>>,
}

impl FileWriter {
    pub(crate) fn new(file: FileOutput, outcome: oneshot::Sender<Result<(), ErrorCode>>) -> Self {
        Self { file, writing: None, outcome: Some(outcome) }
    }

    fn report(&mut self, outcome: Result<(), ErrorCode>) {
        if let Some(sender) = self.outcome.take() {
            // A plugin that has dropped the future does not want to know.
            let _dropped = sender.send(outcome);
        }
    }

    /// Ends the stream after a failed write.
    fn fail(&mut self, error: StreamError) -> wasmtime::Result<StreamResult> {
        let code = match error {
            StreamError::LastOperationFailed(error) => {
                error.downcast_ref::<io::Error>().map_or(ErrorCode::Io, ErrorCode::from)
            }
            StreamError::Closed => ErrorCode::Io,
            StreamError::Trap(trap) => return Err(trap),
        };
        self.report(Err(code));
        Ok(StreamResult::Dropped)
    }
}

impl<D> StreamConsumer<D> for FileWriter {
    type Item = u8;

    /// A write that has begun is not cancelled: it is a call of the operating system, which ends soon.
    fn poll_consume(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        store: StoreContextMut<'_, D>,
        source: Source<'_, u8>,
        _finish: bool,
    ) -> Poll<wasmtime::Result<StreamResult>> {
        let mut source = source.as_direct(store);
        loop {
            let room = match self.file.check_write() {
                Ok(0) => {
                    ready!(self.file.ready().as_mut().poll(cx));
                    continue;
                }
                Ok(room) => room,
                Err(error) => return Poll::Ready(self.fail(error)),
            };
            if let Some(written) = self.writing.take() {
                source.mark_read(written);
                return Poll::Ready(Ok(StreamResult::Completed));
            }
            let bytes = source.remaining();
            let bytes = bytes.get(..room).unwrap_or(bytes);
            if bytes.is_empty() {
                return Poll::Ready(Ok(StreamResult::Completed));
            }
            if let Err(error) = self.file.write(Bytes::copy_from_slice(bytes)) {
                return Poll::Ready(self.fail(error));
            }
            self.writing = Some(bytes.len());
        }
    }
}

impl Drop for FileWriter {
    /// The plugin has ended the stream.
    fn drop(&mut self) {
        self.report(Ok(()));
    }
}
