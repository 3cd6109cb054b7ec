//! The bar on a terminal.

use std::io::IsTerminal;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

/// A bar that is shown.
pub(super) struct Bar(ProgressBar);

impl Bar {
    /// A bar of `total` units, 0 if that is not known; none where there is no terminal.
    pub fn new(label: &'static str, total: u64) -> Option<Self> {
        if !std::io::stderr().is_terminal() {
            return None;
        }
        let bar = ProgressBar::with_draw_target(Some(total), ProgressDrawTarget::stderr_with_hz(8));
        let style = match total {
            0 => ProgressStyle::with_template("{prefix} {spinner} {elapsed} {msg}"),
            _ => ProgressStyle::with_template("{prefix} [{bar:24}] {percent:>3}% {msg} {eta} left"),
        };
        if let Ok(style) = style {
            bar.set_style(style.progress_chars("━╸ "));
        }
        bar.set_prefix(label);
        Some(Self(bar))
    }

    /// So many units are done.
    pub fn set(&self, done: u64, message: String) {
        self.0.set_position(done);
        self.0.set_message(message);
    }

    /// Does something while the bar is out of the way.
    #[cfg(feature = "train")]
    pub fn suspend(&self, work: impl FnOnce()) {
        self.0.suspend(work);
    }

    /// Takes it off the terminal.
    pub fn clear(self) {
        self.0.finish_and_clear();
    }
}
