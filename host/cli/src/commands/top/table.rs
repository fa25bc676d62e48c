//! The table on stdout.

use comfy_table::{CellAlignment, Table, presets};

use super::columns::COLUMNS;
use super::stats::Stats;

/// A line of headings, and one line for each cache.
pub(super) fn table(stats: &Stats) -> String {
    let mut table = Table::new();
    table.load_style(presets::NOTHING).set_header(COLUMNS.iter().map(|column| column.heading));
    for cache in &stats.caches {
        table.add_row(COLUMNS.iter().map(|column| (column.cell)(cache)));
    }
    for (column, formatted) in COLUMNS.iter().zip(table.column_iter_mut()) {
        formatted.set_padding((0, 2));
        if column.is_number {
            formatted.set_cell_alignment(CellAlignment::Right);
        }
    }
    table.trim_fmt()
}
