//! The file of a plugin.

use std::io::Write;
use std::sync::LazyLock;

use larder_host::runtime::RunOptions;
use larder_host::{Config, Error, Runtime};
use tempfile::NamedTempFile;

use super::tokio_runtime;

/// The functions that the components of the corpus export.
const CALLS: [&str; 2] = ["has-cache()", "f()"];

static HOST: LazyLock<(tokio::runtime::Runtime, Runtime)> = LazyLock::new(|| {
    let tokio = tokio_runtime();
    let bounds =
        "[sandbox]\nmax_memory = \"1MiB\"\nmax_cpu_time = \"20ms\"\ntimeout = \"100ms\"\nmax_output = \"64\"\n";
    let runtime = tokio.block_on(Runtime::new(Config::from_toml(bounds).unwrap())).unwrap();
    (tokio, runtime)
});

/// A file is refused with a reason, or it is a plugin, which runs until it ends or exceeds a limit.
pub fn component(data: &[u8]) {
    let (tokio, host) = &*HOST;
    let mut file = NamedTempFile::new().unwrap();
    file.write_all(data).unwrap();
    let plugin = match host.load(file.path(), Some("fuzzed")) {
        Ok(plugin) => plugin,
        Err(Error::Load { reason, .. }) => {
            assert!(!reason.is_empty());
            return;
        }
        Err(other) => panic!("{other:?}"),
    };
    let options = RunOptions::default();
    let endings = tokio.block_on(async {
        let mut endings = vec![host.run(&plugin, &options).await.map(drop)];
        for call in CALLS {
            endings.push(host.invoke(&plugin, &options, call).await.map(drop));
        }
        endings
    });
    for ending in endings {
        use Error::{Invoke, Load, Stopped, Trap};
        match ending {
            Ok(()) => {}
            Err(Load { reason, .. } | Invoke { reason, .. } | Trap { reason, .. } | Stopped { reason, .. }) => {
                assert!(!reason.is_empty());
            }
            Err(other) => panic!("{other:?}"),
        }
    }
}
