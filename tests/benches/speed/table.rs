//! What was measured, in medians and ratios: printed, and kept for the results file. Times are in seconds until they are
//! printed.

use std::sync::{Mutex, PoisonError};

use serde_json::{Value, json};

/// The rows so far, as the results file has them.
static ROWS: Mutex<Vec<Value>> = Mutex::new(Vec::new());

/// Does every way so many times, in turns; gives the time of each pass, by way.
///
/// A round to warm up is not counted. Every other round goes backwards, so that no way profits from its place.
pub(crate) async fn in_turns(ways: usize, rounds: usize, mut pass: impl AsyncFnMut(usize) -> f64) -> Vec<Vec<f64>> {
    let mut passes = vec![Vec::with_capacity(rounds); ways];
    for round in 0..=rounds {
        for nth in 0..ways {
            let way = if round % 2 == 0 { nth } else { ways - 1 - nth };
            let time = pass(way).await;
            if round > 0 {
                passes[way].push(time);
            }
        }
    }
    passes
}

/// The value below which a share of them lies.
pub(crate) fn quantile(values: &[f64], share: f64) -> f64 {
    let mut values = values.to_vec();
    values.sort_by(f64::total_cmp);
    let last = values.len().checked_sub(1).expect("something was measured");
    values[(last as f64 * share).round() as usize]
}

pub(crate) fn heading(title: &str) {
    println!("\n{title}");
    rows(|rows| rows.push(json!({ "title": title, "rows": [] })));
}

/// A line of text, columns of numbers.
pub(crate) fn line(place: &str, what: &str, numbers: &[String]) {
    let columns: String = numbers.iter().map(|number| format!("{number:>15}")).collect();
    println!("  {place:<34}{what:<30}{columns}");
    keep(json!({ "place": place, "what": what, "numbers": numbers }));
}

/// The ways' medians, and their ratios to the first way and to the one above. A ratio is the median of those of all
/// rounds: what slows a whole round down leaves it be.
pub(crate) fn ways(place: &str, names: &[&str], passes: &[Vec<f64>]) {
    let ratio = |way: usize, to: usize| {
        let ratios: Vec<f64> = passes[way].iter().zip(&passes[to]).map(|(one, other)| one / other).collect();
        quantile(&ratios, 0.5)
    };
    for (way, name) in names.iter().enumerate() {
        let median = quantile(&passes[way], 0.5);
        let mut columns = format!("{:>15}", time(median));
        if let Some(above) = way.checked_sub(1) {
            columns.push_str(&format!("{:>9.2} x first{:>9.2} x above", ratio(way, 0), ratio(way, above)));
        }
        println!("  {:<34}{name:<30}{columns}", if way == 0 { place } else { "" });
        let ratio = (ratio(way, 0) * 100.0).round() / 100.0;
        keep(json!({ "place": place, "what": name, "seconds": median, "ratio": ratio }));
    }
}

pub(crate) fn time(seconds: f64) -> String {
    match seconds {
        ..1e-6 => format!("{:.0} ns", seconds * 1e9),
        ..1e-3 => format!("{:.1} µs", seconds * 1e6),
        _ => format!("{:.2} ms", seconds * 1e3),
    }
}

/// All that was measured, under its titles.
pub(crate) fn results() -> Value {
    rows(|rows| Value::Array(std::mem::take(rows)))
}

fn keep(row: Value) {
    rows(|rows| {
        let title = rows.last_mut().expect("a title comes first");
        title["rows"].as_array_mut().expect("a list").push(row);
    });
}

fn rows<T>(with: impl FnOnce(&mut Vec<Value>) -> T) -> T {
    with(&mut ROWS.lock().unwrap_or_else(PoisonError::into_inner))
}
