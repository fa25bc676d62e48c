//! The shares of `max_memory` that the host may hold for one plugin instance, outside of the plugin's own memory.

// Decision: docs/decisions/0062-the-host-holds-at-most-max-memory-for-an-instance.md

/// What the host holds at most for one instance, computed from its `max_memory`. Together it is about `max_memory`, so
/// an instance takes at most twice its `max_memory`, plus its stack.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Shares {
    /// `max_memory`, in bytes.
    max_memory: u64,
}

const KIB: u64 = 1 << 10;

/// The weight of an entry of the table of WASI resources that is not weighed on its own: a pollable, a clock, an error,
/// a descriptor. In bytes.
const ENTRY: u64 = KIB;

impl Shares {
    pub(crate) fn new(max_memory: u64) -> Self {
        Self { max_memory }
    }

    /// `max_memory` divided by `divisor`, within `least` and `most`.
    fn part(self, divisor: u64, least: u64, most: u64) -> usize {
        let part = self.max_memory.checked_div(divisor).unwrap_or(0).clamp(least, most);
        usize::try_from(part).unwrap_or(usize::MAX)
    }

    /// All WASI resources that are weighed: HTTP messages, their fields and bodies, file streams, directory listings.
    pub(crate) fn weighed(self) -> usize {
        self.part(4, 256 * KIB, u64::MAX)
    }

    /// The number of entries in the table of WASI resources.
    pub(crate) fn entries(self) -> usize {
        self.part(8 * ENTRY, 64, 10_000)
    }

    /// The size of one set of HTTP fields, in bytes: names, values, and 72 for each field.
    #[cfg(feature = "serve")]
    pub(crate) fn fields(self) -> usize {
        self.part(512, 4 * KIB, 16 * KIB)
    }

    /// The host memory of one set of fields at most, in bytes: short fields take four times their size.
    #[cfg(feature = "serve")]
    pub(crate) fn fields_held(self) -> usize {
        self.fields().saturating_mul(4)
    }

    /// The buffer of one stream, in bytes.
    pub(crate) fn chunk(self) -> usize {
        self.part(512, 4 * KIB, 64 * KIB)
    }

    /// The random bytes of one call.
    pub(crate) fn random(self) -> usize {
        self.part(16, 4 * KIB, 1024 * KIB)
    }

    /// What one call may copy from the plugin's memory, in bytes.
    pub(crate) fn call(self) -> usize {
        self.value().saturating_add(self.batch())
    }

    /// One value of a cache in RAM, in bytes.
    pub(crate) fn value(self) -> usize {
        self.part(4, 128 * KIB, u64::MAX)
    }

    /// One value of a cache on a server, in bytes. While it is sent, the host holds it up to four times: in the command,
    /// in the bytes of the command, in the buffer of the connection, and for those who wait for a fill.
    pub(crate) fn server_value(self) -> usize {
        self.part(8, 128 * KIB, u64::MAX)
    }

    /// The keys and values of one batch, in bytes.
    pub(crate) fn batch(self) -> usize {
        self.part(8, 64 * KIB, u64::MAX)
    }

    /// The arguments of all asynchronous calls of caches that run, in bytes, and as much again for their fills, and for the
    /// answers that the plugin has not taken: what one synchronous call may have.
    pub(crate) fn concurrent_calls(self) -> usize {
        self.batch()
    }

    /// The number of open cache handles.
    pub(crate) fn cache_handles(self) -> usize {
        self.part(8 * KIB, 16, u64::MAX)
    }

    /// The number of vacancies.
    pub(crate) fn vacancies(self) -> usize {
        self.part(64 * KIB, 16, u64::MAX)
    }

    /// The number of handles of all kinds, those to resources of the component itself included.
    pub(crate) fn component_handles(self) -> usize {
        self.part(KIB, KIB, 100_000)
    }

    /// The number of tasks of WASI 0.3, with their threads, streams and futures. Each is a structure of the host.
    pub(crate) fn tasks(self) -> usize {
        self.part(4 * KIB, KIB, 100_000)
    }

    /// The number of outgoing requests at a time. Each has a connection with buffers.
    #[cfg(feature = "serve")]
    pub(crate) fn outgoing_requests(self) -> usize {
        self.part(KIB * KIB, 1, u64::MAX)
    }
}

#[cfg(all(test, feature = "serve"))]
mod tests {
    use super::*;

    #[test]
    fn the_shares_grow_with_max_memory_and_leave_room_for_a_small_plugin() {
        let least = Shares::new(2 << 20);
        assert_eq!((least.weighed(), least.entries(), least.fields(), least.chunk()), (512 << 10, 256, 4096, 4096));
        assert_eq!(
            (least.random(), least.batch(), least.cache_handles(), least.vacancies()),
            (128 << 10, 256 << 10, 256, 32)
        );
        let default = Shares::new(128 << 20);
        assert_eq!(
            (default.weighed(), default.entries(), default.fields(), default.chunk()),
            (32 << 20, 10_000, 16 << 10, 64 << 10)
        );
        assert_eq!((default.random(), default.batch()), (1 << 20, 16 << 20));
        assert_eq!((default.value(), default.server_value()), (32 << 20, 16 << 20));
        assert_eq!(default.concurrent_calls(), crate::default_limits::MAX_CONCURRENT_BYTES);
    }
}
