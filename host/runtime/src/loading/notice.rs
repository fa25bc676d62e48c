//! Tells the program that a compilation takes a while, so that a person does not wait before a silent terminal.

use std::path::Path;
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::thread::Builder;
use std::time::Duration;

use crate::runtime::OnSlowCompilation;

/// A compilation that is shorter is not worth a line.
const SLOW: Duration = Duration::from_millis(500);

/// A compilation that is running. Ends with this value.
pub(super) struct Compiling {
    _ends: Option<Sender<()>>,
}

impl Compiling {
    /// Calls `notice` if this value still exists after [`SLOW`].
    pub(super) fn begin(notice: Option<OnSlowCompilation>, path: &Path, is_kept: bool) -> Self {
        let Some(notice) = notice else { return Self { _ends: None } };
        let (ends, end) = channel::<()>();
        let path = path.to_owned();
        let waiting = Builder::new().name("larder-notice".to_owned()).spawn(move || {
            if end.recv_timeout(SLOW) == Err(RecvTimeoutError::Timeout) {
                notice(&path, is_kept);
            }
        });
        // Without the thread the plugin compiles in silence.
        Self { _ends: waiting.is_ok().then_some(ends) }
    }
}
