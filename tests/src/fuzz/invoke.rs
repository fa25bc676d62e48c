//! The argument of `larder run --invoke`.

use std::sync::LazyLock;

use larder_host::runtime::{Outcome, Plugin, RunOptions};
use larder_host::{Config, Error, Runtime};

use super::tokio_runtime;
use crate::guest;

struct Host {
    tokio: tokio::runtime::Runtime,
    runtime: Runtime,
    plugin: Plugin,
}

/// The guest `exports`, whose functions `same-…` return their argument.
static HOST: LazyLock<Host> = LazyLock::new(|| {
    let tokio = tokio_runtime();
    let runtime = tokio.block_on(Runtime::new(Config::default())).unwrap();
    let plugin = runtime.load(&guest("exports"), None).unwrap();
    Host { tokio, runtime, plugin }
});

impl Host {
    fn invoke(&self, call: &str) -> Result<Outcome<Result<String, String>>, Error> {
        self.tokio.block_on(self.runtime.invoke(&self.plugin, &RunOptions::default(), call))
    }
}

/// A call is refused with a reason, or it runs. A result in WAVE, used as an argument, has the same result again.
pub fn invoke(data: &[u8]) {
    let Ok(call) = str::from_utf8(data) else { return };
    match HOST.invoke(call) {
        Ok(Outcome::Returned(Ok(value))) => {
            let name = call.split('(').next().unwrap_or_default().trim();
            if name.starts_with("same-") {
                let again = HOST.invoke(&format!("{name}({value})"));
                assert!(matches!(&again, Ok(Outcome::Returned(Ok(same))) if *same == value), "{value}: {again:?}");
            }
        }
        Ok(Outcome::Returned(Err(_)) | Outcome::Exited(_)) => {}
        Err(Error::Invoke { call: named, reason }) => assert!(named == call && !reason.is_empty(), "{reason}"),
        Err(other) => panic!("{other:?}"),
    }
}
