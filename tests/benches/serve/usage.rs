//! What a process has used, from `/proc`.

use std::iter::Sum;
use std::ops::{Add, Sub};

/// The clock ticks of `/proc/<pid>/stat` in a second: Linux has this value on each of its platforms.
const TICKS: f64 = 100.0;

/// The resources that a process has used since its start, or in a part of its time.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Usage {
    /// The processor time outside of the kernel, in seconds.
    pub(crate) user: f64,
    /// The processor time in the kernel, in seconds.
    pub(crate) kernel: f64,
    /// Page faults that read no file.
    pub(crate) faults: f64,
    /// How often a thread gave up its core to wait.
    pub(crate) waits: f64,
    /// How often the kernel took the core from a thread.
    pub(crate) preemptions: f64,
    /// TLB shootdowns of all processes of the machine: a core told others to forget pages.
    pub(crate) shootdowns: f64,
}

impl Usage {
    /// Reads the usage of a process up to now.
    pub(crate) fn of(process: u32) -> Self {
        let stat = read(&format!("/proc/{process}/stat"));
        // The name of the program, in brackets, may contain spaces.
        let (_, fields) = stat.rsplit_once(") ").expect("a name in brackets");
        let fields: Vec<&str> = fields.split(' ').collect();
        // proc(5) counts from 1, and the name is the second field.
        let field = |number: usize| fields[number - 3].parse::<f64>().expect("a number");
        let switches = |name: &str| {
            let threads = std::fs::read_dir(format!("/proc/{process}/task")).expect("the process runs");
            // A thread may end meanwhile.
            let status = threads.filter_map(|thread| std::fs::read_to_string(thread.ok()?.path().join("status")).ok());
            status.map(|status| number_of(&status, name)).sum()
        };
        let interrupts = read("/proc/interrupts");
        let shootdowns = interrupts.lines().find_map(|line| line.trim_start().strip_prefix("TLB:"));
        Self {
            user: field(14) / TICKS,
            kernel: field(15) / TICKS,
            faults: field(10),
            waits: switches("voluntary_ctxt_switches:"),
            preemptions: switches("nonvoluntary_ctxt_switches:"),
            shootdowns: shootdowns.unwrap_or_default().split_whitespace().map_while(|n| n.parse::<f64>().ok()).sum(),
        }
    }

    /// The processor time, in seconds.
    pub(crate) fn time(&self) -> f64 {
        self.user + self.kernel
    }
}

impl Sub for Usage {
    type Output = Self;

    fn sub(self, before: Self) -> Self {
        Self {
            user: self.user - before.user,
            kernel: self.kernel - before.kernel,
            faults: self.faults - before.faults,
            waits: self.waits - before.waits,
            preemptions: self.preemptions - before.preemptions,
            shootdowns: self.shootdowns - before.shootdowns,
        }
    }
}

impl Add for Usage {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        Self {
            user: self.user + other.user,
            kernel: self.kernel + other.kernel,
            faults: self.faults + other.faults,
            waits: self.waits + other.waits,
            preemptions: self.preemptions + other.preemptions,
            shootdowns: self.shootdowns + other.shootdowns,
        }
    }
}

impl Sum for Usage {
    fn sum<I: Iterator<Item = Self>>(parts: I) -> Self {
        parts.fold(Self::default(), Add::add)
    }
}

/// The resident memory of a process, in bytes.
pub(crate) fn resident(process: u32) -> f64 {
    number_of(&read(&format!("/proc/{process}/status")), "VmRSS:") * 1024.0
}

fn read(file: &str) -> String {
    std::fs::read_to_string(file).unwrap_or_else(|error| panic!("{file}: {error}"))
}

/// The number after a name at the start of a line.
fn number_of(text: &str, name: &str) -> f64 {
    let rest = text.lines().find_map(|line| line.strip_prefix(name)).unwrap_or_else(|| panic!("no `{name}` in {text}"));
    rest.split_whitespace().next().and_then(|number| number.parse().ok()).expect("a number")
}
