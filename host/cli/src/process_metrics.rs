//! The `process_*` metrics: memory, file descriptors, threads and processor time of this process, read from `/proc` at each
//! scrape.
//!
//! The client libraries of Prometheus export them under the same names. They are written by hand: the recorder counts
//! in whole numbers, and processor time is not one. Where there is no `/proc`, only the start time is exported.

use std::fmt::Write;
use std::fs::{self, File};
use std::io::Read;
use std::time::{SystemTime, UNIX_EPOCH};

use larder_host::metrics::{
    Metric, PROCESS_CPU_SECONDS, PROCESS_MAX_FDS, PROCESS_OPEN_FDS, PROCESS_RESIDENT_MEMORY, PROCESS_START_TIME,
    PROCESS_THREADS, PROCESS_VIRTUAL_MEMORY,
};

/// The most that is read of one file, in bytes. Each has 2 KB or less.
const MAX_FILE: u64 = 16 * 1024;

/// The most file descriptors that are counted one by one. Counting takes less than a microsecond each.
const MAX_COUNTED: usize = 65_536;

/// Clock ticks per second in `/proc`, on every architecture that Larder is built for.
const TICKS_PER_SECOND: f64 = 100.0;

/// Reads the metrics of this process.
#[derive(Debug, Clone, Copy)]
pub(crate) struct ProcessMetrics {
    /// In seconds since the Unix epoch.
    started: f64,
}

impl ProcessMetrics {
    /// Takes the start time, so call it when the process starts.
    pub(crate) fn new() -> Self {
        let started = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Self { started: started.as_secs_f64() }
    }

    /// The metrics in the Prometheus text format. What cannot be read is left out.
    pub(crate) fn render(self) -> String {
        let stat = read("/proc/self/stat");
        let status = read("/proc/self/status");
        let values = [
            (PROCESS_CPU_SECONDS, cpu_seconds(&stat)),
            (PROCESS_RESIDENT_MEMORY, status_bytes(&status, "VmRSS:")),
            (PROCESS_VIRTUAL_MEMORY, status_bytes(&status, "VmSize:")),
            (PROCESS_OPEN_FDS, open_fds()),
            (PROCESS_MAX_FDS, max_fds(&read("/proc/self/limits"))),
            (PROCESS_THREADS, status_number(&status, "Threads:")),
            (PROCESS_START_TIME, Some(self.started)),
        ];
        let mut text = String::new();
        for (Metric { name, kind, help, .. }, value) in values {
            let Some(value) = value else { continue };
            let value = if value == f64::INFINITY { "+Inf".to_owned() } else { value.to_string() };
            let written = write!(text, "# HELP {name} {help}\n# TYPE {name} {}\n{name} {value}\n\n", kind.name());
            debug_assert!(written.is_ok(), "a string takes all that is written");
        }
        text
    }
}

/// A file of `/proc`, or nothing.
fn read(path: &str) -> String {
    let mut text = String::new();
    match File::open(path).and_then(|file| file.take(MAX_FILE).read_to_string(&mut text)) {
        Ok(_) => text,
        Err(_) => String::new(),
    }
}

/// Processor time in user and system mode. The name of the program, in parentheses, may contain anything.
fn cpu_seconds(stat: &str) -> Option<f64> {
    let (_, fields) = stat.rsplit_once(") ")?;
    let mut times = fields.split(' ').skip(11).map(str::parse::<f64>);
    let (user, system) = (times.next()?.ok()?, times.next()?.ok()?);
    Some((user + system) / TICKS_PER_SECOND)
}

fn status_number(status: &str, name: &str) -> Option<f64> {
    let line = status.lines().find_map(|line| line.strip_prefix(name))?;
    line.split_whitespace().next()?.parse().ok()
}

/// A size in `status`, which has them in KiB.
fn status_bytes(status: &str, name: &str) -> Option<f64> {
    Some(status_number(status, name)? * 1024.0)
}

/// The soft limit of descriptors, or infinity.
fn max_fds(limits: &str) -> Option<f64> {
    let line = limits.lines().find_map(|line| line.strip_prefix("Max open files"))?;
    match line.split_whitespace().next()? {
        "unlimited" => Some(f64::INFINITY),
        limit => limit.parse().ok(),
    }
}

/// The open descriptors. Linux 6.2 and later says how many there are; before, they are counted.
fn open_fds() -> Option<f64> {
    const FOLDER: &str = "/proc/self/fd";
    match fs::metadata(FOLDER).ok()?.len() {
        // One of them is the open folder itself.
        0 => Some(fs::read_dir(FOLDER).ok()?.take(MAX_COUNTED).count().saturating_sub(1) as f64),
        open => Some(open as f64),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn processor_time_is_read_behind_a_name_with_parentheses_and_spaces() {
        let stat = "7 (a) b) (c) S 1 7 7 0 -1 4194560 2118 0 0 0 250 50 0 0 20 0 3 0 100 9 1 18446744073709551615";
        assert_eq!(cpu_seconds(stat), Some(3.0));
    }

    #[test]
    fn sizes_are_in_bytes_and_counts_as_they_are() {
        let status = "Name:\tVmRSS: 1\nVmSize:\t  2048 kB\nVmRSS:\t   1024 kB\nThreads:\t9\n";
        assert_eq!(status_bytes(status, "VmRSS:"), Some(1_048_576.0));
        assert_eq!(status_bytes(status, "VmSize:"), Some(2_097_152.0));
        assert_eq!(status_number(status, "Threads:"), Some(9.0));
    }

    #[test]
    fn the_limit_of_descriptors_is_the_soft_one_or_infinity() {
        let limits =
            |soft: &str| format!("Limit  Soft Limit  Hard Limit  Units\nMax open files   {soft}   4096   files\n");
        assert_eq!(max_fds(&limits("1024")), Some(1024.0));
        assert_eq!(max_fds(&limits("unlimited")), Some(f64::INFINITY));
    }

    #[test]
    fn what_cannot_be_read_is_left_out() {
        assert_eq!(read("/proc/self/no-such-file"), "");
        for text in ["", "7", "7 (a", "7 (a) S 1", "VmRSS:", "Max open files", "Max open files x", "VmRSS:\tx kB"] {
            assert_eq!((cpu_seconds(text), status_bytes(text, "VmRSS:"), max_fds(text)), (None, None, None), "{text}");
        }
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn an_opened_file_is_counted() {
        let files: Vec<_> = (0..100).map(|_| File::open("/proc/self/stat").unwrap()).collect();
        let many = open_fds().unwrap();
        assert!(many >= 100.0, "{many}");
        drop(files);
    }
}
