//! The metrics in the documents and in the dashboard exist, and all of them are there.

use std::collections::BTreeSet;

use larder_host::metrics::{Metric, all};
use larder_tests::documents::{code_and_text, documents, spans};
use larder_tests::repository::read;

fn names() -> BTreeSet<&'static str> {
    all().map(|metric| metric.name).collect()
}

/// Whether a word has the form of a metric's name.
fn is_metric(word: &str) -> bool {
    word.starts_with("larder_") || word.starts_with("process_")
}

#[test]
fn the_table_of_metrics_has_the_metrics_of_the_code() {
    let document = read("docs/metrics.md");
    let rows: Vec<&str> = document
        .lines()
        .filter(|line| ["| `larder_", "| `process_"].iter().any(|start| line.starts_with(start)))
        .collect();
    let row = |Metric { name, kind, labels, help, .. }: &Metric| {
        let labels: Vec<_> = labels.iter().map(|label| format!("`{label}`")).collect();
        format!("| `{name}` | {} | {} | {help} |", kind.name(), labels.join(", "))
    };
    assert_eq!(rows, all().map(row).collect::<Vec<_>>());
}

#[test]
fn every_metric_that_a_document_names_exists() {
    let mut named = BTreeSet::new();
    for document in documents() {
        let (_, text) = code_and_text(&read(&document));
        for span in spans(&text) {
            let Some(name) = span.split(['{', ' ']).find(|word| is_metric(word)) else { continue };
            let name = name.split("::").next().unwrap();
            let is_code = ["larder_host", "larder_cache"].iter().any(|library| name.starts_with(library));
            if name.ends_with(".wasm") || name.ends_with(".rs") || is_code {
                continue;
            }
            assert!(names().contains(name), "{document} names `{name}`, which is not a metric");
            named.insert(name.to_owned());
        }
    }
    assert_eq!(named.iter().map(String::as_str).collect::<BTreeSet<_>>(), names());
}

/// A panel with a metric that does not exist would stay empty without an error.
#[test]
fn the_dashboard_shows_all_metrics_and_no_others() {
    let dashboard: serde_json::Value = serde_json::from_str(&read("deploy/grafana.json")).unwrap();
    let mut shown = BTreeSet::new();
    for panel in dashboard["panels"].as_array().unwrap() {
        for target in panel["targets"].as_array().unwrap_or(&Vec::new()) {
            let query = target["expr"].as_str().unwrap();
            let words = query.split(|letter: char| !letter.is_ascii_alphanumeric() && letter != '_');
            for name in words.filter(|word| is_metric(word)) {
                shown.insert(name.trim_end_matches("_bucket").to_owned());
            }
        }
    }
    assert_eq!(shown.iter().map(String::as_str).collect::<BTreeSet<_>>(), names());
}
