//! The screen as it runs: scrapes, keys and signals, and a terminal that is given back as it was.

use std::pin::pin;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::Context;
use ratatui::DefaultTerminal;
use ratatui::crossterm::event::{self, Event, KeyEventKind};
use tokio::sync::mpsc;

use super::scrape::Endpoint;
use super::screen::draw;
use super::view::View;
use crate::commands::serve::Signals;

/// Shows what a host tells, until the operator has seen enough. Whoever cannot be reached at first ends it at once; a host
/// that goes away later may come back.
pub(super) async fn watch(endpoint: Endpoint, interval: Duration) -> anyhow::Result<ExitCode> {
    let first = endpoint.scrape().await?;
    let mut view = View::new(endpoint.to_string(), first, Instant::now());
    let (mut ends, mut hang_ups) = (Signals::new()?, Signals::new()?);
    let mut terminal = Terminal::take()?;
    let mut events = events();
    let next = || async {
        tokio::time::sleep(interval).await;
        endpoint.scrape().await
    };
    let mut scrape = pin!(next());
    loop {
        terminal.0.draw(|frame| draw(frame, &view)).context("cannot draw")?;
        tokio::select! {
            scraped = &mut scrape => {
                view.take(scraped, Instant::now());
                scrape.set(next());
            }
            event = events.recv() => match event.context("the terminal is gone")?? {
                Event::Key(key) if key.kind == KeyEventKind::Press && view.press(key).is_break() => break,
                _ => {}
            },
            () = ends.end() => break,
            // The signal by which a server is told to reload says here that the terminal is gone.
            () = hang_ups.reload() => break,
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// The terminal while it is ours.
struct Terminal(DefaultTerminal);

impl Terminal {
    fn take() -> anyhow::Result<Self> {
        let taken = ratatui::try_init().inspect_err(|_| ratatui::restore());
        taken.map(Self).context("cannot draw on the terminal")
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        // A panic has given it back before it said why; a second time would put the cursor over what it said.
        if !std::thread::panicking() {
            ratatui::restore();
        }
    }
}

/// What is typed, read by a thread that nothing but the end of the process can interrupt.
fn events() -> mpsc::Receiver<std::io::Result<Event>> {
    let (sender, events) = mpsc::channel(1);
    std::thread::spawn(move || {
        loop {
            let event = event::read();
            let is_over = event.is_err();
            if sender.blocking_send(event).is_err() || is_over {
                break;
            }
        }
    });
    events
}
