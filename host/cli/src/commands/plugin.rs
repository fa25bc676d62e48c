//! `larder plugin inspect`: what a plugin's file needs and offers.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use bytesize::ByteSize;
use clap::{Args, Subcommand};
use larder_host::Config;
use larder_host::cache::text::short_line;
use larder_host::inspection::{PluginReport, inspect};
use serde_json::{Value, json};

use super::compile_plugin;
use crate::json::{self, SCHEMA};
use crate::log_line::print_error;

#[derive(Debug, Args)]
pub(crate) struct PluginCommand {
    #[command(subcommand)]
    operation: Operation,
}

#[derive(Debug, Subcommand)]
enum Operation {
    /// Print what a plugin imports and exports, and what this host lacks for it; exit with 1 if it lacks anything.
    Inspect(Inspect),
}

#[derive(Debug, Args)]
struct Inspect {
    /// Name of the plugin in the configuration [default: that of a route with FILE, or its file name without the extension]
    #[arg(long)]
    name: Option<String>,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
    /// WebAssembly component to inspect
    #[arg(value_name = "FILE")]
    file: PathBuf,
}

impl PluginCommand {
    pub(crate) fn run(self, config: &Config) -> anyhow::Result<ExitCode> {
        let Operation::Inspect(Inspect { name, json, file }) = self.operation;
        let report = inspect(&file, config, name.as_deref(), compile_plugin::process())?;
        if json {
            json::print(&object(&file, &report))?;
        } else {
            std::io::stdout().write_all(text(&file, &report).as_bytes())?;
        }
        for missing in &report.missing {
            print_error(&missing.reason);
        }
        Ok(if report.missing.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
    }
}

/// The report as lines. Names are those of the file, which may choose any.
fn text(file: &Path, report: &PluginReport) -> String {
    let load = format!("{:.1} s", report.load_time.as_secs_f64());
    let loaded = if report.was_kept { format!("{load}, compiled before") } else { format!("{load}, compiled now") };
    let runs = match (report.is_command, report.serves_http) {
        (true, true) => "larder serve, and larder run if its `main` does something",
        (true, false) => "larder run",
        (false, true) => "larder serve",
        (false, false) if report.functions.is_empty() => "nothing: it exports no function",
        (false, false) => "larder run --invoke",
    };
    let mut lines = vec![
        format!("file     {}", short_line(&file.display().to_string())),
        format!("size     {}", ByteSize(report.bytes)),
        format!("loaded   in {loaded}"),
        format!("engine   WASI {}", report.engine),
        format!("runs by  {runs}"),
    ];
    for (title, names) in [("imports", &report.imports), ("exports", &report.exports), ("functions", &report.functions)]
    {
        lines.push(format!("{title}{}", if names.is_empty() { ": none" } else { ":" }));
        lines.extend(names.iter().map(|name| {
            let missing = report.missing.iter().find(|missing| missing.name.as_ref() == Some(name));
            let mark = match missing {
                None => "",
                Some(missing) if missing.is_unbound => "  (no cache is named for this label)",
                Some(_) => "  (not provided by this host)",
            };
            match report.labels.get(name).filter(|_| title == "imports") {
                Some(interface) => format!("  {}: {}{mark}", short_line(name), short_line(interface)),
                None => format!("  {}{mark}", short_line(name)),
            }
        }));
    }
    lines.push(String::new());
    lines.join("\n")
}

/// The output of `--json`. `docs/command-line.md` lists the keys.
fn object(file: &Path, report: &PluginReport) -> Value {
    let missing = report.missing.iter().map(|missing| json!({ "name": missing.name, "reason": missing.reason }));
    let labels = report.labels.iter().map(|(name, interface)| json!({ "name": name, "interface": interface }));
    json!({
        "schema": SCHEMA,
        "file": file.display().to_string(),
        "bytes": report.bytes,
        "engine": report.engine,
        "command": report.is_command,
        "http": report.serves_http,
        "imports": report.imports,
        "labels": labels.collect::<Vec<_>>(),
        "exports": report.exports,
        "functions": report.functions,
        "missing": missing.collect::<Vec<_>>(),
        "load_seconds": report.load_time.as_secs_f64(),
        "was_kept": report.was_kept,
    })
}
