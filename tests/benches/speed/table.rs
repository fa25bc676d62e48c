//! The measurements, with medians and ratios. They are printed, and collected for the results file. Times are in
//! seconds.

use std::sync::{Mutex, PoisonError};

use serde_json::{Value, json};

/// The sections and rows so far, in the format of the results file.
static ROWS: Mutex<Vec<Value>> = Mutex::new(Vec::new());

/// Runs `pass` for every candidate in each round, and returns the times of each candidate.
///
/// The first round is a warm-up and is not counted. Every other round runs in reverse order, so that the order favours
/// no candidate.
pub(crate) async fn interleave(
    candidates: usize,
    rounds: usize,
    mut pass: impl AsyncFnMut(usize) -> f64,
) -> Vec<Vec<f64>> {
    let mut passes = vec![Vec::with_capacity(rounds); candidates];
    for round in 0..=rounds {
        for nth in 0..candidates {
            let candidate = if round % 2 == 0 { nth } else { candidates - 1 - nth };
            let time = pass(candidate).await;
            if round > 0 {
                passes[candidate].push(time);
            }
        }
    }
    passes
}

/// The quantile of the values: 0.5 is the median, 1.0 the maximum.
pub(crate) fn quantile(values: &[f64], fraction: f64) -> f64 {
    let mut values = values.to_vec();
    values.sort_by(f64::total_cmp);
    let last = values.len().checked_sub(1).expect("there is a measurement");
    values[(last as f64 * fraction).round() as usize]
}

/// Starts a section.
pub(crate) fn heading(title: &str) {
    println!("\n{title}");
    rows(|rows| rows.push(json!({ "title": title, "rows": [] })));
}

/// Names the columns of numbers of the section.
pub(crate) fn columns(names: &[&str]) {
    println!("  {:<34}{:<38}{}", "", "", names.iter().map(|name| format!(" {name:>18}")).collect::<String>());
    rows(|rows| rows.last_mut().expect("a section is started before its columns are named")["columns"] = json!(names));
}

/// Adds a row with columns of numbers, and with the ratio to the first row of its group as the last column. `label` is the
/// measurement that the ratio is of.
pub(crate) fn measured(backend: &str, name: &str, numbers: &[String], ratio: f64, label: &str) {
    let columns: String = numbers.iter().map(|number| format!(" {number:>18}")).collect();
    println!("  {backend:<34}{name:<38}{columns}{:>17.2} x", ratio);
    let ratio = (ratio * 100.0).round() / 100.0;
    add(json!({ "place": backend, "what": name, "numbers": numbers, "ratio": ratio, "label": label }));
}

/// Adds a row with columns of numbers.
pub(crate) fn row(backend: &str, label: &str, numbers: &[String]) {
    let columns: String = numbers.iter().map(|number| format!("{number:>15}")).collect();
    println!("  {backend:<34}{label:<30}{columns}");
    add(json!({ "place": backend, "what": label, "numbers": numbers }));
}

/// Adds a row for each candidate, with its median and its ratios to the first candidate and to the candidate above. A
/// ratio is the median of the ratios of all rounds, so a slow round does not change it.
pub(crate) fn candidates(backend: &str, names: &[&str], passes: &[Vec<f64>]) {
    let ratio = |candidate: usize, to: usize| {
        let ratios: Vec<f64> = passes[candidate].iter().zip(&passes[to]).map(|(one, other)| one / other).collect();
        quantile(&ratios, 0.5)
    };
    for (candidate, name) in names.iter().enumerate() {
        let median = quantile(&passes[candidate], 0.5);
        let mut columns = format!("{:>15}", time(median));
        if let Some(above) = candidate.checked_sub(1) {
            columns.push_str(&format!("{:>9.2} x first{:>9.2} x above", ratio(candidate, 0), ratio(candidate, above)));
        }
        println!("  {:<34}{name:<30}{columns}", if candidate == 0 { backend } else { "" });
        let ratio = (ratio(candidate, 0) * 100.0).round() / 100.0;
        add(json!({ "place": backend, "what": name, "seconds": median, "ratio": ratio }));
    }
}

/// Formats a time with its unit.
pub(crate) fn time(seconds: f64) -> String {
    match seconds {
        ..1e-6 => format!("{:.0} ns", seconds * 1e9),
        ..1e-3 => format!("{:.1} µs", seconds * 1e6),
        _ => format!("{:.2} ms", seconds * 1e3),
    }
}

/// Returns all sections, and empties the collection.
pub(crate) fn results() -> Value {
    rows(|rows| Value::Array(std::mem::take(rows)))
}

fn add(row: Value) {
    rows(|rows| {
        let title = rows.last_mut().expect("a section is started before its first row");
        title["rows"].as_array_mut().expect("a list").push(row);
    });
}

fn rows<T>(with: impl FnOnce(&mut Vec<Value>) -> T) -> T {
    with(&mut ROWS.lock().unwrap_or_else(PoisonError::into_inner))
}
