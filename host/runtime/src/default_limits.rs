//! The default limits of plugins. An embedder that uses [`Bounds`](crate::Bounds) and an operator who leaves a key of
//! `[sandbox]`, `[plugins.*]` or `[serve]` out get the same limits.

use std::time::Duration;

/// `max_memory` of `[sandbox]`, in bytes.
pub(crate) const MAX_MEMORY: u64 = 128 << 20;

/// The bytes of the arguments, and of the answers, of concurrent calls of an instance: the share of [`MAX_MEMORY`].
pub(crate) const MAX_CONCURRENT_BYTES: usize = 16 << 20;

/// `timeout` of `[sandbox]`.
pub(crate) const TIMEOUT: Duration = Duration::from_secs(30);

/// `max_cpu_time` of `[sandbox]`.
pub(crate) const MAX_CPU_TIME: Duration = Duration::from_secs(10);

/// `max_output` of `[sandbox]`, in bytes.
pub(crate) const MAX_OUTPUT: u64 = 16 << 20;

/// `max_dir_bytes` of `[sandbox]`.
pub(crate) const MAX_DIR_BYTES: u64 = 1 << 30;

/// `max_handles` of `[sandbox]`.
pub(crate) const MAX_HANDLES: usize = 1024;

/// `max_vacancies` of `[sandbox]`.
pub(crate) const MAX_VACANCIES: usize = 256;

/// `max_log_lines` of `[sandbox]`.
pub(crate) const MAX_LOG_LINES: usize = 100;

/// `max_outgoing_requests` of `[sandbox]`.
pub(crate) const MAX_OUTGOING_REQUESTS: usize = 16;

/// `max_concurrent_calls` of `[plugins.*]`.
pub(crate) const MAX_CONCURRENT_CALLS: usize = 1024;

/// `max_concurrent_requests` of `[serve]`.
pub(crate) const MAX_CONCURRENT_REQUESTS: usize = 256;

/// `max_request_body` of `[serve]`, in bytes.
pub(crate) const MAX_REQUEST_BODY: u64 = 8 << 20;

/// `max_queued_output` of `[serve]`, in bytes.
pub(crate) const MAX_QUEUED_OUTPUT: u64 = 1 << 20;

/// `shutdown_timeout` of `[serve]`.
pub(crate) const SHUTDOWN_TIMEOUT: Duration = Duration::from_secs(30);

/// `max_plugin_bytes` of `[sandbox]`.
pub(crate) const MAX_PLUGIN_BYTES: u64 = 64 << 20;

/// `max_compile_memory` of `[sandbox]`, in bytes.
pub(crate) const MAX_COMPILE_MEMORY: u64 = 2 << 30;

/// `compile_timeout` of `[sandbox]`.
pub(crate) const COMPILE_TIMEOUT: Duration = Duration::from_secs(120);

/// `max_core_instances` of `[sandbox]`.
pub(crate) const MAX_CORE_INSTANCES: usize = 64;

/// `max_memories` of `[sandbox]`.
pub(crate) const MAX_MEMORIES: usize = 8;

/// `max_tables` of `[sandbox]`.
pub(crate) const MAX_TABLES: usize = 32;
