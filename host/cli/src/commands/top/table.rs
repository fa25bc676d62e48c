//! The tables on stdout.

use comfy_table::{CellAlignment, Table, presets};

use super::columns::{COLUMNS, count, name, rate};
use super::plugins::PLUGIN_COLUMNS;
use super::stats::Stats;

/// A table of the caches, one of the plugins if there are any, and one line about the host at `url`. A line of headings is in
/// front of each, and an empty line between them.
pub(super) fn tables(stats: &Stats, url: &str) -> String {
    let mut tables = vec![caches(stats)];
    tables.extend((!stats.plugins.is_empty()).then(|| plugins(stats)));
    tables.push(host(stats, url));
    tables.join("\n\n")
}

fn caches(stats: &Stats) -> String {
    let headings = COLUMNS.iter().map(|column| (column.heading.to_owned(), column.is_number));
    let rows = stats.caches.iter().map(|cache| COLUMNS.iter().map(|column| (column.cell)(cache)).collect());
    table(headings, rows)
}

fn plugins(stats: &Stats) -> String {
    // All but the name are numbers.
    let headings = PLUGIN_COLUMNS.iter().enumerate().map(|(index, column)| (column.heading.to_owned(), index > 0));
    let rows = stats.plugins.iter().map(|plugin| PLUGIN_COLUMNS.iter().map(|column| (column.cell)(plugin)).collect());
    table(headings, rows)
}

/// The requests of the host by status class, and its running instances.
fn host(stats: &Stats, url: &str) -> String {
    let answered = stats.requests.iter().flat_map(|requests| &requests.answered);
    let (mut headings, mut row) = (vec![("HOST".to_owned(), false)], vec![url.to_owned()]);
    for (class, answered) in answered {
        headings.push((format!("{}/S", name(class).to_uppercase()), true));
        row.push(rate(Some(*answered)));
    }
    headings.extend(["REFUSED/S", "RUNNING"].map(|heading| (heading.to_owned(), true)));
    row.extend([rate(stats.requests.as_ref().map(|requests| requests.refused)), count(Some(stats.instances))]);
    table(headings.into_iter(), std::iter::once(row))
}

/// A line of headings, each with whether its column has numbers, and a line for each row.
fn table(headings: impl Iterator<Item = (String, bool)>, rows: impl Iterator<Item = Vec<String>>) -> String {
    let (headings, are_numbers): (Vec<_>, Vec<_>) = headings.unzip();
    let mut table = Table::new();
    table.load_style(presets::NOTHING).set_header(headings).add_rows(rows);
    for (is_number, column) in are_numbers.into_iter().zip(table.column_iter_mut()) {
        column.set_padding((0, 2));
        if is_number {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
    table.trim_fmt()
}
