//! Which cores the host and the load generator run on.

use std::process::Command;
use std::time::Duration;

/// A distribution of the cores of this machine. Lists of cores are as `taskset` takes them.
#[derive(Debug, Clone)]
pub(crate) struct Cores {
    /// The number of cores of the host.
    pub(crate) count: usize,
    pub(crate) host: String,
    pub(crate) generator: String,
    /// True if the load generator runs on cores of the host.
    pub(crate) are_shared: bool,
}

impl Cores {
    /// One core for the host, and another for the generator if there is one.
    pub(crate) fn one() -> Self {
        let all = allowed();
        let [first, .., last] = all.as_slice() else { return Self::all() };
        Self { count: 1, host: first.to_string(), generator: last.to_string(), are_shared: false }
    }

    /// All cores for the host, except the last one of more than two. The generator of two cores runs on both.
    pub(crate) fn all() -> Self {
        let all = allowed();
        let list = |cores: &[usize]| cores.iter().map(usize::to_string).collect::<Vec<_>>().join(",");
        match all.as_slice() {
            [host @ .., last] if host.len() > 1 => {
                Self { count: host.len(), host: list(host), generator: last.to_string(), are_shared: false }
            }
            all => Self { count: all.len(), host: list(all), generator: list(all), are_shared: true },
        }
    }

    /// "1 core", or "2 cores, shared".
    pub(crate) fn name(&self) -> String {
        let plural = if self.count == 1 { "" } else { "s" };
        let shared = if self.are_shared { ", shared" } else { "" };
        format!("{} core{plural}{shared}", self.count)
    }

    /// A command that runs the program on the host's cores, under the same process id.
    pub(crate) fn on_host(&self, program: impl AsRef<std::ffi::OsStr>) -> Command {
        let mut command = Command::new("taskset");
        command.args(["-c", &self.host]).arg(program);
        command
    }
}

/// The cores that this process may use.
fn allowed() -> Vec<usize> {
    let status = std::fs::read_to_string("/proc/self/status").expect("Linux has this file");
    let list = status.lines().find_map(|line| line.strip_prefix("Cpus_allowed_list:")).expect("a list of cores").trim();
    let number = |text: &str| text.parse::<usize>().expect("the number of a core");
    list.split(',')
        .flat_map(|range| {
            let (first, last) = range.split_once('-').unwrap_or((range, range));
            number(first)..=number(last)
        })
        .collect()
}

/// Restricts this thread, and none that other threads have started, to these cores.
pub(crate) fn pin_this_thread(cores: &str) {
    let thread = std::fs::read_link("/proc/thread-self").expect("Linux has this link");
    let id = thread.file_name().expect("the last part of the link is the thread's id");
    let output = Command::new("taskset").args(["-cp", cores]).arg(id).output().expect("`taskset` of util-linux runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

/// The processor time of this thread.
pub(crate) fn time_of_this_thread() -> Duration {
    let text = std::fs::read_to_string("/proc/thread-self/schedstat").expect("Linux has this file");
    Duration::from_nanos(text.split(' ').next().and_then(|time| time.parse().ok()).expect("a time in nanoseconds"))
}
