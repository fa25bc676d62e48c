//! A plugin that is a command: it exports `wasi:cli/run`.

use std::future::poll_fn;
use std::pin::pin;
use std::task::Poll;

use wasmtime::Store;
use wasmtime_wasi::{p2, p3};

use crate::plugin::Plugin;
use crate::plugin_state::PluginState;

/// A command, by the version of WASI whose `wasi:cli/run` it exports.
pub(crate) enum Command {
    Sequential(p2::bindings::CommandPre<PluginState>),
    Concurrent(p3::bindings::CommandPre<PluginState>),
}

impl Command {
    /// The command that the plugin exports, if it is one. Of two versions the later one is taken.
    pub(crate) fn of(plugin: &Plugin) -> Option<Self> {
        if plugin.kind().is_concurrent
            && let Ok(command) = p3::bindings::CommandPre::new(plugin.pre().clone())
        {
            return Some(Self::Concurrent(command));
        }
        p2::bindings::CommandPre::new(plugin.pre().clone()).ok().map(Self::Sequential)
    }

    /// Runs the command in a new store until all its tasks have ended.
    pub(crate) async fn run(&self, store: &mut Store<PluginState>) -> wasmtime::Result<Result<(), ()>> {
        match self {
            Self::Sequential(command) => {
                let command = command.instantiate_async(&mut *store).await?;
                command.wasi_cli_run().call_run(store).await
            }
            Self::Concurrent(command) => {
                let command = command.instantiate_async(&mut *store).await?;
                let running = store.run_concurrent(async |accessor| {
                    let mut running = pin!(async {
                        let returned = command.wasi_cli_run().call_run(accessor).await?;
                        // Tasks may go on when the call has returned.
                        poll_fn(|context| accessor.poll_no_interesting_tasks(context)).await;
                        Ok(returned)
                    });
                    poll_fn(|context| {
                        // The plugin only gets an error, and could go on.
                        if accessor.with(|mut access| access.data_mut().output.is_exceeded()) {
                            return Poll::Ready(Err(wasmtime::Error::msg("the plugin exceeded its output limit")));
                        }
                        running.as_mut().poll(context)
                    })
                    .await
                });
                running.await?
            }
        }
    }
}
