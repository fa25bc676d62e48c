//! A sequence of calls that a plugin makes up, through a real component: the guest `attack`.

use std::fmt::Write;

use larder_host::runtime::{Ending, Plugin, RunOptions};
use larder_host::{Error, Runtime};

/// How a sequence ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Attack {
    /// The plugin made all its calls: so many had a result, so many an error of the interface.
    Finished(u32, u32),
    /// It used a handle that it does not hold, or brought in too much, and was ended.
    Trapped,
}

/// Makes a sequence of calls, in an instance of its own. Panics where the host ends it in any other way.
pub async fn attack(host: &Runtime, plugin: &Plugin, calls: &[u8]) -> Attack {
    let mut text = String::with_capacity(calls.len() * 4 + 10);
    text.push_str("attack([");
    for byte in calls {
        write!(text, "{byte},").unwrap();
    }
    text.push_str("])");
    match host.invoke(plugin, &RunOptions::default(), &text).await {
        Ok(Ending::Returned(Ok(counts))) => {
            let mut counts = counts.trim_matches(['(', ')']).split(", ").map(|count| count.parse().unwrap());
            Attack::Finished(counts.next().unwrap(), counts.next().unwrap())
        }
        // An `unreachable` is the guest's own assertion.
        Err(Error::Trap { reason, .. }) if !reason.contains("unreachable") => Attack::Trapped,
        other => panic!("{other:?} after {calls:?}"),
    }
}
