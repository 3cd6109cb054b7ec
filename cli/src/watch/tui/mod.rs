//! A run on a terminal that it has for itself: curves, matrices, notes.
//!
//! The trainer hands what is new over a channel and goes on. A thread of its own takes it up, looks at the keys, and draws, ten times a second at most. What is noted
//! meanwhile is shown, and told on stderr once the screen is gone.

mod dashboard;
mod view;

use std::io::IsTerminal;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use onebit_trainer::run::{StepMetrics, ValidationMetrics};
use ratatui::DefaultTerminal;
use ratatui::crossterm::event::{self, Event, KeyCode, KeyEvent, KeyEventKind, KeyModifiers};

use super::sampler::Said;
use crate::{INTERRUPTED, interrupt, output};

pub(super) use dashboard::Dashboard;

/// Between two pictures.
const FRAME: Duration = Duration::from_millis(100);

/// What is new.
#[derive(Debug)]
pub(super) enum News {
    Step {
        metrics: StepMetrics,
        tokens_per_second: Option<f64>,
        share_of_peak: Option<f64>,
        left: Option<String>,
    },
    Validated(ValidationMetrics),
    /// The run went back to this step.
    Back(u64),
    Note(String),
    /// What the model says.
    Sample(Said),
    /// There is nothing more to come.
    End,
}

/// The terminal, taken; given back when this is dropped.
#[derive(Debug)]
pub(super) struct Screen {
    news: Sender<News>,
    thread: Option<JoinHandle<Vec<String>>>,
}

/// Whether there is a terminal that can be drawn on.
fn is_possible(stdout: bool, stderr: bool, term: Option<&str>) -> bool {
    stdout && stderr && !matches!(term, None | Some("" | "dumb"))
}

impl Screen {
    /// Takes the terminal; none, after a note, where there is no terminal that can be drawn on.
    pub(super) fn open(dashboard: Dashboard) -> Option<Self> {
        let term = std::env::var("TERM").ok();
        let possible = is_possible(
            std::io::stdout().is_terminal(),
            std::io::stderr().is_terminal(),
            term.as_deref(),
        );
        let terminal = possible.then(ratatui::try_init).and_then(Result::ok);
        let Some(terminal) = terminal else {
            output::note("note: --tui needs a terminal that can be drawn on; there are lines instead");
            return None;
        };
        let (news, receiver) = channel();
        let notes = news.clone();
        output::divert(Box::new(move |line| {
            // Once the screen is gone nobody notes here.
            let _ = notes.send(News::Note(line.to_string()));
        }));
        let thread = std::thread::Builder::new()
            .name("screen".into())
            .spawn(move || show(terminal, dashboard, &receiver));
        match thread {
            Ok(thread) => Some(Self {
                news,
                thread: Some(thread),
            }),
            Err(_) => {
                leave();
                None
            }
        }
    }

    /// For others who have something to tell.
    pub(super) fn news(&self) -> Sender<News> {
        self.news.clone()
    }

    /// Hands it over; nobody waits.
    pub(super) fn tell(&self, news: News) {
        let _ = self.news.send(news);
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        let _ = self.news.send(News::End);
        let notes = self.thread.take().and_then(|thread| thread.join().ok());
        leave();
        notes.into_iter().flatten().for_each(|line| output::note(&line));
    }
}

/// Gives the terminal back.
fn leave() {
    output::undivert();
    ratatui::restore();
}

/// Draws until the end; returns what was noted.
fn show(mut terminal: DefaultTerminal, mut dashboard: Dashboard, news: &Receiver<News>) -> Vec<String> {
    let mut notes = Vec::new();
    loop {
        let until = Instant::now() + FRAME;
        // A terminal that is gone is drawn on in vain; the run goes on.
        let _ = terminal.draw(|frame| view::draw(frame, &dashboard));
        loop {
            match news.recv_timeout(until.saturating_duration_since(Instant::now())) {
                Ok(News::End) | Err(RecvTimeoutError::Disconnected) => return notes,
                Ok(News::Note(line)) => {
                    dashboard.note(&line);
                    notes.push(line);
                }
                Ok(news) => dashboard.take(news),
                Err(RecvTimeoutError::Timeout) => break,
            }
            // A trainer that is faster than this thread does not keep it from drawing.
            if Instant::now() >= until {
                break;
            }
        }
        while event::poll(Duration::ZERO).unwrap_or(false) {
            match event::read() {
                Ok(Event::Key(key)) if is_end(key) => {
                    // In raw mode Ctrl-C is a key. As a signal, the second ends at once.
                    if interrupt::request() && key.code == KeyCode::Char('c') {
                        ratatui::restore();
                        std::process::exit(i32::from(INTERRUPTED));
                    }
                    dashboard.is_stopping = true;
                }
                Ok(_) => {}
                Err(_) => break,
            }
        }
        dashboard.is_stopping |= interrupt::requested();
    }
}

/// Whether a key asks for the end.
fn is_end(key: KeyEvent) -> bool {
    let control = key.modifiers.contains(KeyModifiers::CONTROL);
    key.kind == KeyEventKind::Press
        && matches!(
            (key.code, control),
            (KeyCode::Char('q'), _) | (KeyCode::Char('c'), true)
        )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_screen_needs_a_terminal() {
        assert!(is_possible(true, true, Some("xterm-256color")));
        assert!(!is_possible(true, true, Some("dumb")) && !is_possible(true, true, None));
        assert!(!is_possible(false, true, Some("xterm")) && !is_possible(true, false, Some("xterm")));
    }

    #[test]
    fn q_and_control_c_end_a_run() {
        let key = |code, modifiers| KeyEvent::new(KeyCode::Char(code), modifiers);
        assert!(is_end(key('q', KeyModifiers::NONE)) && is_end(key('c', KeyModifiers::CONTROL)));
        assert!(!is_end(key('c', KeyModifiers::NONE)) && !is_end(key('x', KeyModifiers::NONE)));
    }
}
