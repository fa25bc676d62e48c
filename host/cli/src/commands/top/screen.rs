//! Draws the dashboard.

use std::collections::VecDeque;

use ratatui::Frame;
use ratatui::layout::{Constraint, Layout, Rect};
use ratatui::style::{Color, Style, Stylize};
use ratatui::text::{Line, Span};
use ratatui::widgets::{Block, Paragraph, RenderDirection, Row, Sparkline, Table, TableState, Wrap};

use super::columns::{COLUMNS, Column, count, name, rate, share};
use super::help;
use super::plugins::PLUGIN_COLUMNS;
use super::stats::CacheStats;
use super::view::View;

/// The space between two columns.
const GAP: u16 = 2;

/// The height of the list of columns that do not fit.
const DETAILS: u16 = 3;

/// The least height of the charts, which fill what is left.
const MIN_CHARTS: u16 = 6;

/// The height of the lines above the caches, and of the line with the keys.
const HEAD_AND_KEYS: u16 = 4;

/// The minimum height of a terminal for the charts to be shown.
const MIN_HEIGHT_FOR_CHARTS: u16 = 18;

/// The resolution of a chart, which draws integers: steps per call per second, or per hit rate of 1.
const STEPS: f64 = 1000.0;

/// Draws the whole dashboard.
pub(super) fn draw(frame: &mut Frame<'_>, view: &View) {
    let cells: Vec<Vec<Line<'_>>> = view.stats.caches.iter().map(cells_of).collect();
    let widths = widths(&cells, frame.area().width);
    let omitted = COLUMNS.get(widths.len()..).unwrap_or_default();
    let heights = Heights::new(frame.area().height, view, !omitted.is_empty());
    let [title, requests, status, caches, details, plugins, charts, _rest, keys] = Layout::vertical([
        Constraint::Length(1),
        Constraint::Length(1),
        Constraint::Length(1),
        Constraint::Length(heights.caches),
        Constraint::Length(heights.details),
        Constraint::Length(heights.plugins),
        Constraint::Length(heights.charts),
        Constraint::Fill(1),
        Constraint::Length(1),
    ])
    .areas(frame.area());
    let running = format!("  running: {}", count(Some(view.stats.instances)));
    frame.render_widget(Line::from_iter(["larder top ".bold(), view.url.as_str().into(), running.into()]), title);
    frame.render_widget(requests_line(view), requests);
    frame.render_widget(status_line(view), status);
    draw_caches(frame, view, cells, widths, caches);
    if let Some(cache) = view.stats.caches.get(view.selected) {
        frame.render_widget(details_of(cache, omitted), details);
        draw_charts(frame, view, cache, charts);
    }
    draw_plugins(frame, view, plugins);
    frame.render_widget(Line::from("q: quit  ↑↓: select a cache  p: pause  ?: help").dim(), keys);
    if view.has_help {
        help::draw(frame);
    }
}

/// The heights of the parts that depend on the terminal and on the host.
struct Heights {
    caches: u16,
    details: u16,
    plugins: u16,
    charts: u16,
}

impl Heights {
    /// The tables have a line for each row as long as there is room, and the charts all that is left.
    fn new(height: u16, view: &View, has_details: bool) -> Self {
        let with_heading = |rows: usize| u16::try_from(rows).unwrap_or(u16::MAX).saturating_add(1);
        let details = if has_details { DETAILS } else { 0 };
        let room = height.saturating_sub(HEAD_AND_KEYS).saturating_sub(details);
        let least_charts = if height < MIN_HEIGHT_FOR_CHARTS { 0 } else { MIN_CHARTS };
        let of_tables = room.saturating_sub(least_charts);
        let caches = with_heading(view.stats.caches.len()).min(of_tables);
        // With an empty line before it. A heading without a plugin is of no use.
        let plugins = match view.stats.plugins.len() {
            0 => 0,
            count => with_heading(count).saturating_add(1).min(of_tables.saturating_sub(caches)),
        };
        let plugins = if plugins < 3 { 0 } else { plugins };
        let charts = if least_charts == 0 { 0 } else { room.saturating_sub(caches).saturating_sub(plugins) };
        Self { caches, details, plugins, charts }
    }
}

/// The style of a state: a colour, unless the environment asks for none.
fn colored(view: &View, color: Color) -> Style {
    if view.has_colors { Style::new().fg(color) } else { Style::new().bold() }
}

fn requests_line(view: &View) -> Line<'static> {
    let stats = &view.stats;
    let alarm = |is_alarming: bool, color| if is_alarming { colored(view, color) } else { Style::new() };
    let mut line = Line::from("requests/s: ");
    match &stats.requests {
        Some(rates) if !rates.answered.is_empty() => {
            line.extend(rates.answered.iter().map(|(class, answered)| {
                let text = format!("{} {}  ", name(class), rate(Some(*answered)));
                Span::styled(text, alarm(class == "5xx" && *answered > 0.0, Color::Red))
            }));
        }
        _ => line.push_span("-  "),
    }
    let refused = stats.requests.as_ref().map(|rates| rates.refused);
    let is_refusing = refused.is_some_and(|refused| refused > 0.0);
    line.push_span(Span::styled(format!("refused/s: {}", rate(refused)), alarm(is_refusing, Color::Yellow)));
    line
}

fn draw_plugins(frame: &mut Frame<'_>, view: &View, area: Rect) {
    let Some(area) = area.height.checked_sub(1).map(|height| Rect { y: area.y.saturating_add(1), height, ..area })
    else {
        return;
    };
    let align = |index: usize, line: Line<'static>| if index == 0 { line } else { line.right_aligned() };
    let cells = view.stats.plugins.iter().map(|plugin| {
        let cells = PLUGIN_COLUMNS.iter().enumerate();
        (plugin, cells.map(|(index, column)| align(index, Line::from((column.cell)(plugin)))).collect::<Vec<_>>())
    });
    let cells: Vec<_> = cells.collect();
    let rows = || cells.iter().map(|(_, row)| row);
    let columns = PLUGIN_COLUMNS.iter().enumerate();
    let widths: Vec<u16> = columns.map(|(index, column)| width(column.heading, index, rows())).collect();
    let headings = PLUGIN_COLUMNS.iter().enumerate().map(|(index, column)| align(index, Line::from(column.heading)));
    let header = Row::from_iter(headings).bold();
    let rows = cells.into_iter().map(|(plugin, cells)| {
        let row = Row::from_iter(cells);
        if plugin.is_failing() { row.style(colored(view, Color::Red)) } else { row }
    });
    let table = Table::new(rows, widths).header(header).column_spacing(GAP);
    frame.render_widget(if view.error.is_some() { table.dim() } else { table }, area);
}

fn status_line(view: &View) -> Line<'_> {
    match &view.error {
        _ if view.is_paused => Line::styled("paused", colored(view, Color::Yellow)).bold(),
        Some(error) => Line::from_iter([error, "; retrying"]).style(colored(view, Color::Red)).bold(),
        None => Line::default(),
    }
}

fn cells_of(cache: &CacheStats) -> Vec<Line<'static>> {
    COLUMNS.iter().map(|column| align(column, Line::from((column.cell)(cache)))).collect()
}

/// The widths of the columns that fit.
fn widths(cells: &[Vec<Line<'_>>], mut available: u16) -> Vec<u16> {
    let columns = COLUMNS.iter().enumerate();
    let fits = |width: &u16| {
        let fits = *width <= available;
        available = available.saturating_sub(width.saturating_add(GAP));
        fits
    };
    columns.map(|(index, column)| width(column.heading, index, cells.iter())).take_while(fits).collect()
}

/// The width of a column: that of its heading, or of its widest cell.
fn width<'a>(heading: &str, index: usize, rows: impl Iterator<Item = &'a Vec<Line<'a>>>) -> u16 {
    let widths = rows.filter_map(|row| row.get(index)).map(Line::width);
    u16::try_from(widths.fold(heading.len(), usize::max)).unwrap_or(u16::MAX)
}

fn draw_caches(frame: &mut Frame<'_>, view: &View, cells: Vec<Vec<Line<'_>>>, widths: Vec<u16>, area: Rect) {
    let shown = widths.len();
    let headings = COLUMNS.iter().take(shown).map(|column| align(column, Line::from(column.heading)));
    let rows = view.stats.caches.iter().zip(cells).map(|(cache, cells)| {
        let cells = COLUMNS.iter().zip(cells).take(shown).map(|(column, cell)| cell.style(state(view, cache, column)));
        let row = Row::from_iter(cells);
        if cache.is_down() { row.style(colored(view, Color::Red)) } else { row }
    });
    let table = Table::new(rows, widths).header(Row::from_iter(headings).bold());
    let table = table.column_spacing(GAP).row_highlight_style(Style::new().reversed());
    let table = if view.error.is_some() { table.dim() } else { table };
    frame.render_stateful_widget(table, area, &mut TableState::new().with_selected(view.selected));
}

/// The style of a cell that shows a state.
fn state(view: &View, cache: &CacheStats, column: &Column) -> Style {
    match column.heading {
        "SERVER" if cache.counts.up.is_some() && !cache.is_down() => colored(view, Color::Green),
        "ERRORS/S" if cache.rates.is_some_and(|rates| rates.errors > 0.0) => colored(view, Color::Red),
        _ => Style::new(),
    }
}

fn align<'a>(column: &Column, line: Line<'a>) -> Line<'a> {
    if column.is_number { line.right_aligned() } else { line }
}

/// The columns that do not fit, for one cache.
fn details_of(cache: &CacheStats, columns: &[Column]) -> Paragraph<'static> {
    let mut line = Line::default();
    for column in columns {
        // A non-breaking space keeps a heading and its value on one line.
        let heading = column.heading.replace(' ', "\u{a0}");
        line.push_span(Span::from(format!("{heading}\u{a0}")).dim());
        line.push_span(format!("{}  ", (column.cell)(cache)));
    }
    Paragraph::new(line).wrap(Wrap { trim: true })
}

fn draw_charts(frame: &mut Frame<'_>, view: &View, cache: &CacheStats, area: Rect) {
    let Some(history) = view.histories.get(&cache.name) else { return };
    let [calls, hit_rates] = Layout::horizontal([Constraint::Fill(1); 2]).areas(area);
    let shown = usize::from(calls.width.saturating_sub(2));
    let max = history.calls.iter().take(shown).flatten().copied().fold(0.0, f64::max);
    let title = format!(" {}: calls/s, max {} ", name(&cache.name), rate(Some(max)));
    frame.render_widget(chart(&history.calls, max).block(Block::bordered().title(title)), calls);
    let latest = history.hit_rates.front().copied().flatten();
    let title = format!(" {}: hit rate, now {} ", name(&cache.name), share(latest));
    frame.render_widget(chart(&history.hit_rates, 1.0).block(Block::bordered().title(title)), hit_rates);
}

/// A chart with the latest value at the right, and a gap for each unknown value.
fn chart(history: &VecDeque<Option<f64>>, max: f64) -> Sparkline<'static> {
    let steps = |value: f64| (value * STEPS) as u64;
    let bars = history.iter().map(|value| value.map(steps));
    Sparkline::default().data(bars).max(steps(max).max(1)).direction(RenderDirection::RightToLeft)
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use ratatui::Terminal;
    use ratatui::backend::TestBackend;
    use ratatui::crossterm::event::{KeyCode, KeyEvent};
    use ratatui::style::Modifier;

    use super::*;
    use crate::commands::top::snapshot::Snapshot;

    /// A host with a RAM cache and a server cache, this many seconds after its start. Each has 10 calls per second.
    fn snapshot(seconds: u32, up: u32) -> Snapshot {
        let (hits, misses) = (seconds.saturating_mul(9), seconds);
        let text = format!(
            r#"
larder_calls_total{{cache="pages",outcome="hit"}} {hits}
larder_calls_total{{cache="pages",outcome="miss"}} {misses}
larder_backend_seconds_bucket{{cache="pages",backend="ram",le="0.0001"}} {hits}
larder_backend_seconds_bucket{{cache="pages",backend="ram",le="0.001"}} {hits}
larder_ram_bytes{{cache="pages"}} 1048576
larder_ram_max_bytes{{cache="pages"}} 2097152
larder_ram_entries{{cache="pages"}} 12
larder_ram_evictions_total{{cache="pages"}} 3
larder_calls_total{{cache="shared",outcome="timeout"}} {hits}
larder_calls_total{{cache="shared",outcome="miss"}} {misses}
larder_backend_seconds_bucket{{cache="shared",backend="valkey",le="+Inf"}} 0
larder_vacancies{{cache="shared"}} 5
larder_get_or_set_total{{cache="shared",event="computed"}} 41
larder_get_or_set_total{{cache="shared",event="waited"}} 42
larder_stale_values_total{{cache="shared"}} 43
larder_refreshes_total{{cache="shared",outcome="stored"}} 44
larder_refreshes_total{{cache="shared",outcome="failed"}} 45
larder_near_lookups_total{{cache="shared",outcome="hit"}} {hits}
larder_near_lookups_total{{cache="shared",outcome="miss"}} {misses}
larder_near_bytes{{cache="shared"}} 2048
larder_up{{cache="shared"}} {up}
larder_reconnects_total{{cache="shared"}} 2
larder_requests_total{{plugin="p",status="2xx"}} {hits}
larder_requests_total{{plugin="p",status="5xx"}} {misses}
larder_refused_requests_total{{reason="busy"}} {misses}
larder_instances{{plugin="p"}} 4
"#
        );
        Snapshot::parse(&text).unwrap()
    }

    /// A view of these snapshots, one per second.
    fn view(snapshots: impl IntoIterator<Item = anyhow::Result<Snapshot>>) -> View {
        let mut snapshots = snapshots.into_iter();
        let start = Instant::now();
        let mut view = View::new("http://host:1/metrics".to_owned(), snapshots.next().unwrap().unwrap(), start);
        for (snapshot, seconds) in snapshots.zip(1..) {
            view.update(snapshot, start.checked_add(Duration::from_secs(seconds)).unwrap());
        }
        view
    }

    fn drawn(view: &View, width: u16, height: u16) -> Terminal<TestBackend> {
        let mut terminal = Terminal::new(TestBackend::new(width, height)).unwrap();
        terminal.draw(|frame| draw(frame, view)).unwrap();
        terminal
    }

    fn lines(view: &View, width: u16, height: u16) -> Vec<String> {
        let terminal = drawn(view, width, height);
        let rows = terminal.backend().buffer().content().chunks(width.into());
        rows.map(|row| row.iter().map(|cell| cell.symbol()).collect::<String>().trim_end().to_owned()).collect()
    }

    #[test]
    fn a_narrow_terminal_lists_the_columns_that_do_not_fit_for_the_selected_cache() {
        let mut view = view([Ok(snapshot(10, 1)), Ok(snapshot(11, 1))]);
        assert!(view.handle_key(KeyEvent::from(KeyCode::Down)).is_continue());
        let expected = [
            "larder top http://host:1/metrics  running: 4",
            "requests/s: 2xx 9.0  5xx 1.0  refused/s: 1.0",
            "",
            "CACHE   TYPE    SERVER  CALLS/S  HIT RATE   P50   P99  ERRORS/S  HITS  MISSES",
            "pages   ram     -          10.0     90.0%  50µs  99µs       0.0    99      11",
            "shared  valkey  up         10.0      0.0%     -     -       9.0     0      11",
            "HELD\u{a0}5  COMPUTED\u{a0}41  WAITED\u{a0}42  STALE\u{a0}43  REFRESHED\u{a0}44  FAILED\u{a0}REFRESHES\u{a0}45",
            "BYTES\u{a0}-  MAX\u{a0}BYTES\u{a0}-  ENTRIES\u{a0}-  EVICTED\u{a0}-  NEAR\u{a0}HIT\u{a0}RATE\u{a0}90.0%",
            "NEAR\u{a0}BYTES\u{a0}2.0KiB  RECONNECTS\u{a0}2",
            "q: quit  ↑↓: select a cache  p: pause  ?: help",
        ];
        assert_eq!(lines(&view, 80, 10), expected);
    }

    #[test]
    fn a_wide_terminal_has_all_columns() {
        let lines = lines(&view([Ok(snapshot(10, 1)), Ok(snapshot(11, 1))]), 250, 7);
        let headings: Vec<_> = lines[3].split("  ").map(str::trim).filter(|heading| !heading.is_empty()).collect();
        assert_eq!(headings, COLUMNS.map(|column| column.heading));
        let ends = [
            "1.0MiB     2.0MiB       12        3              -           -           -",
            "90.0%      2.0KiB           2",
        ];
        assert!(lines[4].ends_with(ends[0]), "{}", lines[4]);
        assert!(lines[5].ends_with(ends[1]), "{}", lines[5]);
        assert!(lines[6].starts_with("q: quit"), "{}", lines[6]);
    }

    #[test]
    fn a_tall_terminal_has_charts_of_the_selected_cache() {
        let view = view([Ok(snapshot(10, 1)), Ok(snapshot(11, 1)), Ok(snapshot(31, 1))]);
        // They fill what the tables leave, whatever the height.
        for height in [20, 40] {
            let lines = lines(&view, 80, height);
            assert!(lines[12].starts_with("┌ pages: calls/s, max 200 ─"), "{}", lines[12]);
            assert!(lines[12].contains("┌ pages: hit rate, now 90.0% ─"), "{}", lines[12]);
            // The latest bar, at the right, has full height. The bar before it has a twentieth.
            assert!(lines[13].contains(" █│"), "{}", lines[13]);
            let last = usize::from(height) - 3;
            assert!(lines[last].contains('█') && lines[last + 1].starts_with('└'), "{}", lines[last]);
        }
    }

    #[test]
    fn plugins_have_lines_below_the_caches() {
        let lines = lines(&view([Ok(snapshot(10, 1)), Ok(snapshot(11, 1))]), 80, 20);
        assert_eq!(lines[10], "PLUGIN  REQUESTS/S  5XX/S  P50  P99  RUNNING  IDLE");
        assert_eq!(lines[11], "p             10.0    1.0    -    -        4     -");
    }

    #[test]
    fn the_help_has_the_keys_and_closes() {
        let mut view = view([Ok(snapshot(10, 1))]);
        let is_shown =
            |view: &View| lines(view, 100, 30).iter().any(|line| line.contains("select a cache for the charts"));
        assert!(!is_shown(&view));
        for (key, shown) in [('?', true), ('?', false), ('?', true), ('q', false)] {
            assert!(view.handle_key(KeyEvent::from(KeyCode::Char(key))).is_continue());
            assert_eq!(is_shown(&view), shown, "{key}");
        }
        assert!(view.handle_key(KeyEvent::from(KeyCode::Char('q'))).is_break());
    }

    #[test]
    fn states_have_colours_unless_the_environment_asks_for_none() {
        let mut view = view([Ok(snapshot(10, 1)), Ok(snapshot(11, 1))]);
        let colours = |view: &View| {
            let terminal = drawn(view, 80, 20);
            let all: std::collections::BTreeSet<String> =
                terminal.backend().buffer().content().iter().map(|cell| format!("{:?}", cell.fg)).collect();
            Vec::from_iter(all)
        };
        assert_eq!(colours(&view), ["Green", "Red", "Reset", "Yellow"]);
        view.has_colors = false;
        assert_eq!(colours(&view), ["Reset"]);
    }

    #[test]
    fn the_first_scrape_shows_no_rates() {
        let lines = lines(&view([Ok(snapshot(10, 1))]), 80, 10);
        assert_eq!(lines[1], "requests/s: -  refused/s: -");
        assert_eq!(lines[4], "pages   ram     -             -         -    -    -         -    90      10");
    }

    #[test]
    fn an_unreachable_host_shows_an_error_until_it_is_back() {
        let gone = || Err(anyhow::anyhow!("it is\ngone"));
        let lost = lines(&view([Ok(snapshot(10, 1)), Ok(snapshot(11, 1)), gone()]), 80, 10);
        assert_eq!(lost[2], "it is\\ngone; retrying");
        assert!(lost[4].starts_with("pages   ram     -          10.0"), "the last rates remain: {}", lost[4]);
        // The host restarted, and counted 20 calls in the 3 s since the last successful scrape.
        let view = view([Ok(snapshot(10, 1)), Ok(snapshot(11, 1)), gone(), gone(), Ok(snapshot(2, 1))]);
        let back = lines(&view, 80, 10);
        assert_eq!(back[2], "");
        assert!(back[4].starts_with("pages   ram     -           6.7     90.0%"), "{}", back[4]);
        let is_known: Vec<_> = view.histories["pages"].calls.iter().map(Option::is_some).collect();
        assert_eq!(is_known, [true, false, false, true]);
    }

    #[test]
    fn a_cache_with_an_unreachable_server_is_red() {
        let terminal = drawn(&view([Ok(snapshot(10, 0))]), 80, 10);
        let colours = [4, 5].map(|y| terminal.backend().buffer()[(0, y)].fg);
        assert_eq!(colours, [Color::Reset, Color::Red]);
    }

    #[test]
    fn the_selected_cache_is_highlighted_and_the_selection_stays_in_range() {
        let mut view = view([Ok(snapshot(10, 1))]);
        let selected = |view: &View| {
            let terminal = drawn(view, 80, 10);
            (4..6).find(|y| terminal.backend().buffer()[(0, *y)].modifier.contains(Modifier::REVERSED)).unwrap()
        };
        for (key, line) in [('k', 4), ('j', 5), ('j', 5), ('k', 4)] {
            assert!(view.handle_key(KeyEvent::from(KeyCode::Char(key))).is_continue());
            assert_eq!(selected(&view), line, "{key}");
        }
    }

    #[test]
    fn a_paused_dashboard_does_not_change() {
        let mut view = view([Ok(snapshot(10, 1)), Ok(snapshot(11, 1))]);
        assert!(view.handle_key(KeyEvent::from(KeyCode::Char('p'))).is_continue());
        view.update(Ok(snapshot(100, 1)), Instant::now());
        view.update(Err(anyhow::anyhow!("it is gone")), Instant::now());
        let paused = lines(&view, 80, 10);
        assert_eq!(paused[2], "paused");
        assert!(paused[4].ends_with("99      11"), "{}", paused[4]);
    }

    #[test]
    fn no_terminal_size_and_no_value_panics() {
        let huge = "larder_calls_total{cache=\"c\",outcome=\"hit\"} 1e308\n".repeat(3);
        let mut view = view([Ok(snapshot(10, 1)), Snapshot::parse(&huge).map_err(Into::into)]);
        view.has_help = true;
        for width in (0..=200).step_by(7) {
            for height in 0..=30 {
                drawn(&view, width, height);
            }
        }
    }
}
