//! What was measured, in medians and ratios. Times are in seconds until they are printed.

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
}

/// A line of text, columns of numbers.
pub(crate) fn line(place: &str, what: &str, numbers: &[String]) {
    let numbers: String = numbers.iter().map(|number| format!("{number:>15}")).collect();
    println!("  {place:<34}{what:<30}{numbers}");
}

/// The ways' medians, and their ratios to the first way and to the one above. A ratio is the median of those of all
/// rounds: what slows a whole round down leaves it be.
pub(crate) fn ways(place: &str, names: &[&str], passes: &[Vec<f64>]) {
    let ratio = |way: usize, to: usize| {
        let ratios: Vec<f64> = passes[way].iter().zip(&passes[to]).map(|(one, other)| one / other).collect();
        quantile(&ratios, 0.5)
    };
    for (way, name) in names.iter().enumerate() {
        let mut numbers = vec![time(quantile(&passes[way], 0.5))];
        if let Some(above) = way.checked_sub(1) {
            numbers.push(format!("{:.2} x first", ratio(way, 0)));
            numbers.push(format!("{:.2} x above", ratio(way, above)));
        }
        line(if way == 0 { place } else { "" }, name, &numbers);
    }
}

pub(crate) fn time(seconds: f64) -> String {
    match seconds {
        ..1e-6 => format!("{:.0} ns", seconds * 1e9),
        ..1e-3 => format!("{:.1} µs", seconds * 1e6),
        _ => format!("{:.2} ms", seconds * 1e3),
    }
}
