//! Runs the dashboard: scrapes the host, handles keys and signals, and restores the terminal.

use std::pin::pin;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::Context;
use ratatui::DefaultTerminal;
use ratatui::crossterm::event::{self, Event, KeyEventKind};
use tokio::sync::mpsc;

use super::screen::draw;
use super::snapshot::Snapshot;
use super::view::View;
use crate::metrics_url::MetricsUrl;
use crate::operator::{OnSignal, Operator};
use crate::telemetry::has_colors;

/// Shows a host until a key or a signal quits. If the host becomes unreachable, scrapes continue until it is back.
///
/// # Errors
///
/// If the first scrape fails, or the terminal cannot be used.
pub(super) async fn run(url: MetricsUrl, interval: Duration, operator: &Operator) -> anyhow::Result<ExitCode> {
    let first = Snapshot::scrape(&url).await?;
    let mut view = View::new(url.to_string(), first, Instant::now());
    view.has_colors = has_colors();
    // The terminal is restored first.
    operator.on_signal(OnSignal::ShutDown(Duration::ZERO));
    let mut terminal = Terminal::open()?;
    let mut events = events();
    let next = || async {
        tokio::time::sleep(interval).await;
        Snapshot::scrape(&url).await
    };
    let mut scrape = pin!(next());
    loop {
        terminal.0.draw(|frame| draw(frame, &view)).context("cannot draw on the terminal")?;
        tokio::select! {
            scraped = &mut scrape => {
                view.update(scraped, Instant::now());
                scrape.set(next());
            }
            event = events.recv() => match event.context("the terminal was closed")?? {
                Event::Key(key) if key.kind == KeyEventKind::Press && view.handle_key(key).is_break() => break,
                _ => {}
            },
            // With SIGHUP the terminal was closed.
            _ = operator.ending() => break,
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// The terminal in raw mode, on the alternate screen. Restored on drop.
struct Terminal(DefaultTerminal);

impl Terminal {
    fn open() -> anyhow::Result<Self> {
        let terminal = ratatui::try_init().inspect_err(|_| ratatui::restore());
        terminal.map(Self).context("cannot open the terminal")
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        // The panic hook of ratatui has already restored it. A second time would move the cursor onto the message.
        if !std::thread::panicking() {
            ratatui::restore();
        }
    }
}

/// Terminal events, read by a thread. The thread cannot be interrupted, and ends with the process.
fn events() -> mpsc::Receiver<std::io::Result<Event>> {
    let (sender, events) = mpsc::channel(1);
    std::thread::spawn(move || {
        loop {
            let event = event::read();
            let is_closed = event.is_err();
            if sender.blocking_send(event).is_err() || is_closed {
                break;
            }
        }
    });
    events
}
