//! A reading as one plain table.

use comfy_table::{CellAlignment, Table, presets};

use super::columns::COLUMNS;
use super::reading::Reading;

/// A line of headings, and one for each cache.
pub(super) fn table(reading: &Reading) -> String {
    let mut table = Table::new();
    table.load_style(presets::NOTHING).set_header(COLUMNS.iter().map(|column| column.heading));
    for cache in &reading.caches {
        table.add_row(COLUMNS.iter().map(|column| (column.cell)(cache)));
    }
    for (column, shown) in COLUMNS.iter().zip(table.column_iter_mut()) {
        shown.set_padding((0, 2));
        if column.is_number {
            shown.set_cell_alignment(CellAlignment::Right);
        }
    }
    table.trim_fmt()
}
