//! The state of the dashboard.

use std::collections::{BTreeMap, VecDeque};
use std::ops::ControlFlow;
use std::time::Instant;

use larder_host::cache::text::one_line;
use ratatui::crossterm::event::{KeyCode, KeyEvent, KeyModifiers};

use super::snapshot::Snapshot;
use super::stats::Stats;

/// The maximum length of a history: a chart has one column per entry, and terminals are narrower.
const MAX_HISTORY: usize = 512;

/// The latest statistics, the history for the charts, and the user's selection.
#[derive(Debug)]
pub(super) struct View {
    /// The URL of the metrics.
    pub(super) url: String,
    pub(super) stats: Stats,
    /// By name of the cache.
    pub(super) histories: BTreeMap<String, History>,
    /// The index of the selected cache in `stats`.
    pub(super) selected: usize,
    /// Why the last scrape failed. `stats` is then out of date.
    pub(super) error: Option<String>,
    pub(super) is_paused: bool,
    /// True while the help is shown.
    pub(super) has_help: bool,
    /// False if the environment asks for no colours.
    pub(super) has_colors: bool,
    latest: (Snapshot, Instant),
}

/// The rates of a cache over time, latest first. An entry is `None` if the scrape failed or there was nothing to
/// measure.
#[derive(Debug, Default)]
pub(super) struct History {
    /// Calls per second.
    pub(super) calls: VecDeque<Option<f64>>,
    pub(super) hit_rates: VecDeque<Option<f64>>,
}

impl View {
    /// The state after the first scrape.
    pub(super) fn new(url: String, snapshot: Snapshot, now: Instant) -> Self {
        let stats = Stats::new(&snapshot, None);
        let latest = (snapshot, now);
        Self {
            url,
            stats,
            histories: BTreeMap::new(),
            selected: 0,
            error: None,
            is_paused: false,
            has_help: false,
            has_colors: true,
            latest,
        }
    }

    /// Adds the result of a scrape, unless the dashboard is paused.
    pub(super) fn update(&mut self, scraped: anyhow::Result<Snapshot>, now: Instant) {
        if self.is_paused {
            return;
        }
        match scraped {
            Ok(snapshot) => {
                let (earlier, scraped_at) = &self.latest;
                let elapsed = now.saturating_duration_since(*scraped_at);
                self.stats = Stats::new(&snapshot, Some((earlier, elapsed)));
                self.latest = (snapshot, now);
                self.error = None;
                self.record_history();
            }
            Err(error) => {
                self.error = Some(one_line(&format!("{error:#}")));
                for history in self.histories.values_mut() {
                    history.push(None, None);
                }
            }
        }
    }

    /// Handles a key press. Breaks if the key quits the dashboard.
    pub(super) fn handle_key(&mut self, key: KeyEvent) -> ControlFlow<()> {
        match key.code {
            KeyCode::Char('?') => self.has_help = !self.has_help,
            KeyCode::Char('q') | KeyCode::Esc if self.has_help => self.has_help = false,
            KeyCode::Char('q') | KeyCode::Esc => return ControlFlow::Break(()),
            KeyCode::Char('c') if key.modifiers.contains(KeyModifiers::CONTROL) => return ControlFlow::Break(()),
            KeyCode::Char('p') => self.is_paused = !self.is_paused,
            KeyCode::Up | KeyCode::Char('k') => self.selected = self.selected.saturating_sub(1),
            KeyCode::Down | KeyCode::Char('j') => self.selected = self.selected.saturating_add(1),
            _ => {}
        }
        self.selected = self.selected.min(self.stats.caches.len().saturating_sub(1));
        ControlFlow::Continue(())
    }

    /// Adds the rates to the histories, and drops the histories of removed caches.
    fn record_history(&mut self) {
        let mut histories = BTreeMap::new();
        for cache in &self.stats.caches {
            let mut history = self.histories.remove(&cache.name).unwrap_or_default();
            history.push(cache.rates.map(|rates| rates.calls), cache.rates.and_then(|rates| rates.hit_rate));
            histories.insert(cache.name.clone(), history);
        }
        self.histories = histories;
        self.selected = self.selected.min(self.stats.caches.len().saturating_sub(1));
    }
}

impl History {
    fn push(&mut self, calls: Option<f64>, hit_rate: Option<f64>) {
        for (values, latest) in [(&mut self.calls, calls), (&mut self.hit_rates, hit_rate)] {
            values.push_front(latest);
            values.truncate(MAX_HISTORY);
        }
    }
}
