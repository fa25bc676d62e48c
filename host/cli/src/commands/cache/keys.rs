//! `larder cache keys`: prints the names of keys page by page, as the server finds them.

use std::collections::HashSet;
use std::io::Write;

use clap::Args;
use larder_host::cache::ScopedCache;
use larder_host::cache::text::one_line;
use serde_json::json;

use super::to_error;
use crate::json::{self, SCHEMA};
use crate::log_line::print_error;

#[derive(Debug, Args)]
pub(crate) struct Keys {
    /// Redis glob; quote it, so that the shell does not expand it [default: all keys]
    pattern: Option<String>,
    /// The most names to print
    #[arg(long, value_name = "COUNT", default_value_t = 1000, value_parser = clap::value_parser!(u32).range(1..=10_000_000))]
    limit: u32,
}

impl Keys {
    pub(super) async fn run(&self, cache: &ScopedCache, is_json: bool) -> anyhow::Result<()> {
        let limit = usize::try_from(self.limit).unwrap_or(usize::MAX);
        // A server may list a key twice.
        let mut seen = HashSet::new();
        let mut listed = Vec::new();
        let mut cursor = None;
        let is_complete = loop {
            let page = match &self.pattern {
                Some(pattern) => cache.list_matching_keys(pattern, cursor).await,
                None => cache.list_keys(cursor).await,
            };
            let page = page.map_err(|error| to_error(cache, error))?;
            let mut lines = String::new();
            let mut is_cut = false;
            for key in page.keys {
                if seen.contains(&key) {
                    continue;
                }
                if seen.len() >= limit {
                    is_cut = true;
                    break;
                }
                if is_json {
                    listed.push(key.clone());
                } else {
                    lines.push_str(&one_line(&key));
                    lines.push('\n');
                }
                seen.insert(key);
            }
            std::io::stdout().write_all(lines.as_bytes())?;
            cursor = page.next;
            match cursor {
                _ if is_cut => break false,
                None => break true,
                // One more page would only tell whether there are more keys.
                Some(_) if seen.len() >= limit => break false,
                Some(_) => {}
            }
        };
        if is_json {
            json::print(&json!({ "schema": SCHEMA, "cache": cache.name(), "keys": listed, "complete": is_complete }))?;
        } else if !is_complete {
            print_error(&format!("only the first {limit} keys: raise `--limit`, or name a narrower pattern"));
        }
        Ok(())
    }
}
