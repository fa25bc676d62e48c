//! The help of the dashboard: its keys, and what its columns mean.

use ratatui::Frame;
use ratatui::layout::Rect;
use ratatui::style::Stylize;
use ratatui::text::Line;
use ratatui::widgets::{Block, Clear, Paragraph};

/// The lines of the help.
const LINES: [&str; 18] = [
    "↑ ↓ or k j   select a cache for the charts",
    "p            pause, and go on",
    "?            show or close this help",
    "q, Esc       quit",
    "",
    "CALLS/S      calls of plugins, also those that failed (ERRORS/S)",
    "HIT RATE     share of the keys looked up that had a value",
    "P50, P99     time of the backend; of a plugin, to the head of its response",
    "HELD         values that are being computed now",
    "COMPUTED     values that plugins computed for a get-or-set",
    "WAITED       callers that waited for such a value",
    "STALE        old values that get-or-refresh returned",
    "EVICTED      entries that a RAM cache removed to make room",
    "NEAR         the near tier: the memory of this host in front of the server",
    "5XX/S        requests to a plugin that failed",
    "RUNNING      instances of a plugin; IDLE ones wait for a request",
    "",
    "Rates are of the last --interval, other numbers since the host started.",
];

/// Draws the help over the rest, as much of it as fits.
pub(super) fn draw(frame: &mut Frame<'_>) {
    let area = frame.area();
    let lines = LINES.map(Line::from);
    let length = |count: usize| u16::try_from(count).unwrap_or(u16::MAX).saturating_add(2);
    let width = length(lines.iter().map(Line::width).max().unwrap_or(0)).min(area.width);
    let height = length(lines.len()).min(area.height);
    let [x, y] = [area.width.saturating_sub(width) / 2, area.height.saturating_sub(height) / 2];
    let box_of_help = Rect { x: area.x.saturating_add(x), y: area.y.saturating_add(y), width, height };
    frame.render_widget(Clear, box_of_help);
    let help = Paragraph::new(Vec::from(lines)).block(Block::bordered().title(" help ".bold()));
    frame.render_widget(help, box_of_help);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_help_fits_a_terminal_of_80_columns_and_24_lines() {
        let width = LINES.map(|line| Line::from(line).width()).into_iter().max();
        assert!(width <= Some(78) && LINES.len() <= 22, "{width:?}");
    }
}
