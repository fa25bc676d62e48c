//! The columns of a cache, for the table on stdout and for the dashboard.

use larder_host::cache::text::one_line;

use super::latency::Latency;
use super::stats::CacheStats;

/// The maximum width of a name, in characters. Longer names are truncated.
const MAX_NAME: usize = 32;

/// The cell of a column that does not apply to the cache, or has nothing to measure.
const NONE: &str = "-";

/// A column.
#[derive(Debug)]
pub(super) struct Column {
    pub(super) heading: &'static str,
    pub(super) is_number: bool,
    pub(super) cell: fn(&CacheStats) -> String,
}

/// The columns. The most important ones come first, because a narrow terminal shows only those.
pub(super) const COLUMNS: [Column; 23] = [
    text("CACHE", |cache| name(&cache.name)),
    text("TYPE", |cache| name(&cache.counts.backend)),
    text("SERVER", |cache| cache.counts.up.map_or(NONE, |_| if cache.is_down() { "down" } else { "up" }).to_owned()),
    number("CALLS/S", |cache| rate(cache.rates.map(|rates| rates.calls))),
    number("HIT RATE", |cache| share(cache.rates.and_then(|rates| rates.hit_rate))),
    number("P50", |cache| latency(cache.rates.and_then(|rates| rates.p50))),
    number("P99", |cache| latency(cache.rates.and_then(|rates| rates.p99))),
    number("ERRORS/S", |cache| rate(cache.rates.map(|rates| rates.errors))),
    number("HITS", |cache| count(Some(cache.counts.hits))),
    number("MISSES", |cache| count(Some(cache.counts.misses))),
    number("HELD", |cache| count(Some(cache.counts.vacancies))),
    number("COMPUTED", |cache| count(Some(cache.counts.computed))),
    number("WAITED", |cache| count(Some(cache.counts.waited))),
    number("STALE", |cache| count(Some(cache.counts.stale))),
    number("REFRESHED", |cache| count(Some(cache.counts.refreshed))),
    number("FAILED REFRESHES", |cache| count(Some(cache.counts.failed_refreshes))),
    number("BYTES", |cache| bytes(cache.counts.bytes)),
    number("MAX BYTES", |cache| bytes(cache.counts.max_bytes)),
    number("ENTRIES", |cache| count(cache.counts.entries)),
    number("EVICTED", |cache| count(cache.counts.evictions)),
    number("NEAR HIT RATE", |cache| share(cache.rates.and_then(|rates| rates.near_hit_rate))),
    number("NEAR BYTES", |cache| bytes(cache.counts.near_bytes)),
    number("RECONNECTS", |cache| count(cache.counts.reconnects)),
];

const fn text(heading: &'static str, cell: fn(&CacheStats) -> String) -> Column {
    Column { heading, is_number: false, cell }
}

const fn number(heading: &'static str, cell: fn(&CacheStats) -> String) -> Column {
    Column { heading, is_number: true, cell }
}

/// A name that a host reports: truncated, and with terminal control sequences escaped.
pub(super) fn name(text: &str) -> String {
    let name = one_line(text);
    match name.char_indices().nth(MAX_NAME) {
        Some((end, _)) => format!("{}…", name.get(..end).unwrap_or_default()),
        None if name.is_empty() => NONE.to_owned(),
        None => name,
    }
}

/// A number per second.
pub(super) fn rate(rate: Option<f64>) -> String {
    match rate {
        None => NONE.to_owned(),
        Some(rate) if rate < 99.95 => format!("{rate:.1}"),
        Some(rate) => format!("{rate:.0}"),
    }
}

pub(super) fn share(share: Option<f64>) -> String {
    share.map_or(NONE.to_owned(), |share| format!("{:.1}%", share * 100.0))
}

pub(super) fn count(count: Option<f64>) -> String {
    count.map_or(NONE.to_owned(), |count| format!("{count:.0}"))
}

fn bytes(bytes: Option<f64>) -> String {
    // Without a space, so that scripts can split the table at spaces.
    bytes.map_or(NONE.to_owned(), |bytes| bytesize::ByteSize(bytes as u64).to_string().replace(' ', ""))
}

pub(super) fn latency(latency: Option<Latency>) -> String {
    match latency {
        None => NONE.to_owned(),
        Some(Latency::Estimate(seconds)) => time(seconds),
        Some(Latency::Above(seconds)) => format!(">{}", time(seconds)),
    }
}

fn time(seconds: f64) -> String {
    match seconds {
        seconds if seconds < 1e-3 => format!("{:.0}µs", seconds * 1e6),
        seconds if seconds < 1.0 => format!("{:.1}ms", seconds * 1e3),
        seconds => format!("{seconds:.1}s"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_rounded_to_a_readable_precision() {
        assert_eq!(
            [0.0, 0.04, 99.94, 99.96, 12345.6].map(|per_second| rate(Some(per_second))),
            ["0.0", "0.0", "99.9", "100", "12346"]
        );
        assert_eq!([0.0, 0.9876, 1.0].map(|part| share(Some(part))), ["0.0%", "98.8%", "100.0%"]);
        assert_eq!([0.0, 1234567.0].map(|number| count(Some(number))), ["0", "1234567"]);
        assert_eq!([0.0, 2097152.0].map(|size| bytes(Some(size))), ["0B", "2.0MiB"]);
        assert_eq!([4e-6, 250e-6, 1.5e-3, 0.25, 2.0].map(time), ["4µs", "250µs", "1.5ms", "250.0ms", "2.0s"]);
        assert_eq!(latency(Some(Latency::Above(10.0))), ">10.0s");
        assert_eq!([rate(None), share(None), count(None), bytes(None), latency(None)], ["-"; 5]);
    }

    #[test]
    fn a_name_is_truncated_and_its_control_sequences_are_escaped() {
        assert_eq!(name("pages"), "pages");
        assert_eq!(name("\u{1b}[2J\n"), "\\u{1b}[2J\\n");
        assert_eq!(name(&"é".repeat(40)), "é".repeat(32) + "…");
        assert_eq!(name(""), "-");
    }
}
