//! Sequences of calls against the linker.

use std::sync::LazyLock;

use larder_host::Runtime;
use larder_host::runtime::Plugin;

use super::tokio_runtime;
use crate::attack::{HOSTILE_PLUGINS, HOSTILE_RAM, assert_no_lease_is_left, attack, clear_all, hostile_host};
use crate::guest;

struct Host {
    tokio: tokio::runtime::Runtime,
    runtime: Runtime,
    plugins: Vec<Plugin>,
}

static HOST: LazyLock<Host> = LazyLock::new(|| {
    let tokio = tokio_runtime();
    let runtime = tokio.block_on(hostile_host(HOSTILE_RAM));
    let plugins = HOSTILE_PLUGINS.map(|name| runtime.load(&guest("attack"), Some(name)).unwrap()).into();
    Host { tokio, runtime, plugins }
});

/// The input selects a plugin and its calls. Each call returns a result or an error of the interface, and no lease is
/// left.
pub fn calls(data: &[u8]) {
    let Some((which, calls)) = data.split_first() else { return };
    let Host { tokio, runtime, plugins } = &*HOST;
    tokio.block_on(async {
        // The input alone must decide the result.
        clear_all(runtime).await;
        attack(runtime, &plugins[usize::from(*which) % plugins.len()], calls).await;
        assert_no_lease_is_left(runtime).await;
        // Calls on RAM never wait, so the task that releases a lease would otherwise never run.
        tokio::task::yield_now().await;
    });
}
