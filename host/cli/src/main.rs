//! The `larder` program: parses the command line, starts the log, runs a command, and exits with its status.

// A plugin, a file or a server may control any value here.
#![warn(
    clippy::arithmetic_side_effects,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used
)]

mod allocator;
mod commands;
mod compiling;
mod json;
mod listening;
mod log_line;
mod metrics_server;
mod metrics_url;
mod operator;
mod process_metrics;
mod recorder;
mod service_manager;
mod signals;
mod telemetry;
#[cfg(feature = "otlp")]
mod traces;

use std::process::ExitCode;
use std::time::Duration;

use clap::Parser;
use larder_host::Error;
use larder_host::cache::CacheError;
use larder_host::console;

use log_line::print_error;
use operator::Operator;
use telemetry::Telemetry;

/// The exit status for errors in the command line or the configuration. Failures at run time exit with 1.
const EXIT_USAGE: u8 = 2;

/// How long the last lines may take to be written. A reader that has stalled does not keep the program.
const EXIT_TIMEOUT: Duration = Duration::from_secs(1);

#[global_allocator]
static ALLOCATOR: allocator::Allocator = allocator::Allocator;

fn main() -> ExitCode {
    // Before any thread is started, and before the command line is parsed: it is on the way of each new plugin.
    if let Some(status) = commands::compile_plugin::run() {
        return status;
    }
    report_panics();
    let status = run();
    console::flush(EXIT_TIMEOUT);
    status
}

/// Prints a panic as one line. The standard library's hook would wait for the reader of stderr.
fn report_panics() {
    std::panic::set_hook(Box::new(|panic| {
        let thread = std::thread::current();
        let backtrace = std::backtrace::Backtrace::capture();
        let backtrace = match backtrace.status() {
            std::backtrace::BacktraceStatus::Captured => format!("\n{backtrace}"),
            _ => String::new(),
        };
        let panic = panic.to_string().replace('\n', " ");
        print_error(&format!("thread `{}` {panic}{backtrace}", thread.name().unwrap_or("-")));
        // A panic of this thread ends the program.
        if thread.name() == Some("main") {
            console::flush(EXIT_TIMEOUT);
        }
    }));
}

fn run() -> ExitCode {
    // Before the command line is read: a signal during the start must be handled too.
    let operator = match Operator::start() {
        Ok(operator) => operator,
        Err(error) => {
            print_error(&format!("cannot handle signals: {error}"));
            return ExitCode::FAILURE;
        }
    };
    let cli = commands::Cli::parse();
    operator.on_signal(cli.on_signal());
    let (is_server, runs_plugins, log) = (cli.is_server(), cli.runs_plugins(), cli.log);
    let mut runtime = if is_server {
        let mut runtime = tokio::runtime::Builder::new_multi_thread();
        // Other tasks may take almost as long as a turn of a computing plugin, after which each worker looks for network
        // events, timers and new tasks anyway.
        runtime.event_interval(4).global_queue_interval(1);
        runtime
    } else {
        // One plugin runs at a time and yields often, so one thread is enough for it and the connections.
        tokio::runtime::Builder::new_current_thread()
    };
    let runtime = match runtime.enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            print_error(&format!("cannot start: {error}"));
            return ExitCode::FAILURE;
        }
    };
    let entered = runtime.enter();
    if let Err(error) = signals::survive_file_size_limit() {
        print_error(&format!("cannot start: {error}"));
        return ExitCode::FAILURE;
    }
    drop(entered);
    let outcome = Telemetry::start(log, is_server, runs_plugins, &runtime).and_then(|telemetry| {
        let outcome = runtime.block_on(commands::run(cli, &operator));
        operator.ended.cancel();
        telemetry.shut_down(&runtime);
        outcome
    });
    // Does not wait: a plugin that was stopped may have left a thread that reads standard input.
    runtime.shutdown_background();
    match outcome {
        Ok(status) => status,
        Err(error) => {
            print_error(&format!("{error:#}"));
            match error.downcast_ref::<Error>() {
                Some(Error::Config(_) | Error::Invoke { .. } | Error::Option(_)) => ExitCode::from(EXIT_USAGE),
                // Two tables of the configuration contradict each other.
                Some(Error::Cache { reason: CacheError::Overlap(_), .. }) => ExitCode::from(EXIT_USAGE),
                _ => ExitCode::FAILURE,
            }
        }
    }
}
