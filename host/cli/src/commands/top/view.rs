//! What the screen shows: the newest reading, those before it, and what the operator chose.

use std::collections::{BTreeMap, VecDeque};
use std::ops::ControlFlow;
use std::time::Instant;

use larder_host::cache::text::one_line;
use ratatui::crossterm::event::{KeyCode, KeyEvent, KeyModifiers};

use super::reading::Reading;
use super::snapshot::Snapshot;

/// How many readings the charts go back: more than a terminal is wide.
const HISTORY: usize = 512;

/// The state of the screen.
#[derive(Debug)]
pub(super) struct View {
    /// Where the figures come from.
    pub(super) origin: String,
    pub(super) reading: Reading,
    /// By the cache's name.
    pub(super) histories: BTreeMap<String, History>,
    /// The place of the selected cache in the reading.
    pub(super) selected: usize,
    /// Why the reading is not of now.
    pub(super) trouble: Option<String>,
    pub(super) is_paused: bool,
    newest: (Snapshot, Instant),
}

/// One cache over time, the newest first; `None` where nothing was known.
#[derive(Debug, Default)]
pub(super) struct History {
    /// Calls a second.
    pub(super) calls: VecDeque<Option<f64>>,
    pub(super) hit_rates: VecDeque<Option<f64>>,
}

impl View {
    /// The screen after the first scrape.
    pub(super) fn new(origin: String, snapshot: Snapshot, now: Instant) -> Self {
        let reading = Reading::new(&snapshot, None);
        let newest = (snapshot, now);
        Self { origin, reading, histories: BTreeMap::new(), selected: 0, trouble: None, is_paused: false, newest }
    }

    /// Takes in what came of one more scrape.
    pub(super) fn take(&mut self, scraped: anyhow::Result<Snapshot>, now: Instant) {
        if self.is_paused {
            return;
        }
        match scraped {
            Ok(snapshot) => {
                let (earlier, at) = &self.newest;
                let ago = now.saturating_duration_since(*at);
                self.reading = Reading::new(&snapshot, Some((earlier, ago)));
                self.newest = (snapshot, now);
                self.trouble = None;
                self.remember();
            }
            Err(error) => {
                self.trouble = Some(one_line(&format!("{error:#}")));
                for history in self.histories.values_mut() {
                    history.push(None, None);
                }
            }
        }
    }

    /// Does what a key is for; breaks where it ends the screen.
    pub(super) fn press(&mut self, key: KeyEvent) -> ControlFlow<()> {
        match key.code {
            KeyCode::Char('q') | KeyCode::Esc => return ControlFlow::Break(()),
            KeyCode::Char('c') if key.modifiers.contains(KeyModifiers::CONTROL) => return ControlFlow::Break(()),
            KeyCode::Char('p') => self.is_paused = !self.is_paused,
            KeyCode::Up | KeyCode::Char('k') => self.selected = self.selected.saturating_sub(1),
            KeyCode::Down | KeyCode::Char('j') => self.selected = self.selected.saturating_add(1),
            _ => {}
        }
        self.selected = self.selected.min(self.reading.caches.len().saturating_sub(1));
        ControlFlow::Continue(())
    }

    /// Adds the reading to the histories, and forgets those of caches that are not there any more.
    fn remember(&mut self) {
        let mut histories = BTreeMap::new();
        for cache in &self.reading.caches {
            let mut history = self.histories.remove(&cache.name).unwrap_or_default();
            history.push(cache.lately.map(|lately| lately.calls), cache.lately.and_then(|lately| lately.hit_rate));
            histories.insert(cache.name.clone(), history);
        }
        self.histories = histories;
        self.selected = self.selected.min(self.reading.caches.len().saturating_sub(1));
    }
}

impl History {
    fn push(&mut self, calls: Option<f64>, hit_rate: Option<f64>) {
        for (past, newest) in [(&mut self.calls, calls), (&mut self.hit_rates, hit_rate)] {
            past.push_front(newest);
            past.truncate(HISTORY);
        }
    }
}
