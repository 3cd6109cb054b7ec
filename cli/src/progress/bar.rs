//! The bar on a terminal.

use std::io::IsTerminal;

use console::{Term, measure_text_width};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

/// Characters beside label, bar and message: the percentage, the time left, spaces.
const REST: usize = 18;
/// Characters of a bar, brackets left out: at most, and at least, or there is none.
const BAR: std::ops::RangeInclusive<usize> = 8..=24;

/// A bar that is shown.
pub(super) struct Bar {
    bar: ProgressBar,
    is_endless: bool,
    /// Beside label and [`REST`] as the style is now.
    cells: Option<usize>,
}

/// How a line of so much room is used: characters of the bar (0 for no bar), and of the message as many parts, which two spaces divide, as there is room for.
fn layout(room: usize, message: &str) -> (usize, &str) {
    let cells = room.saturating_sub(measure_text_width(message) + 3).min(*BAR.end());
    if cells >= *BAR.start() {
        return (cells, message);
    }
    let ends = message.rmatch_indices("  ").map(|(at, _)| &message[..at]);
    let fits = [message]
        .into_iter()
        .chain(ends)
        .find(|part| measure_text_width(part) <= room);
    (0, fits.unwrap_or_default())
}

impl Bar {
    /// A bar of `total` units, 0 if that is not known; none where there is no terminal.
    pub fn new(label: &'static str, total: u64) -> Option<Self> {
        if !std::io::stderr().is_terminal() {
            return None;
        }
        let bar = ProgressBar::with_draw_target(Some(total), ProgressDrawTarget::stderr_with_hz(8));
        bar.set_prefix(label);
        Some(Self {
            bar,
            is_endless: total == 0,
            cells: None,
        })
    }

    /// So many units are done.
    pub fn set(&mut self, done: u64, message: &str) {
        // A terminal may change its size. A line that is as long as it is wide goes over two on some.
        let width = usize::from(Term::stderr().size().1).saturating_sub(1);
        let (cells, message) = layout(
            width.saturating_sub(measure_text_width(&self.bar.prefix()) + REST),
            message,
        );
        if self.cells != Some(cells) {
            self.cells = Some(cells);
            let template = match (self.is_endless, cells) {
                (true, _) => "{prefix} {spinner} {elapsed} {msg}",
                (false, 0) => "{prefix} {percent:>3}% {msg} {eta} left",
                (false, cells) => &format!("{{prefix}} [{{bar:{cells}}}] {{percent:>3}}% {{msg}} {{eta}} left"),
            };
            if let Ok(style) = ProgressStyle::with_template(template) {
                self.bar.set_style(style.progress_chars("━╸ "));
            }
        }
        self.bar.set_position(done);
        self.bar.set_message(message.to_string());
    }

    /// Does something while the bar is out of the way.
    #[cfg(feature = "train")]
    pub fn suspend(&self, work: impl FnOnce()) {
        self.bar.suspend(work);
    }

    /// Takes it off the terminal.
    pub fn clear(self) {
        self.bar.finish_and_clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_narrow_terminal_has_a_shorter_bar_and_then_fewer_parts() {
        let message = "step 2/700  loss 3.9  hard";
        assert_eq!(layout(80, message), (24, message));
        assert_eq!(layout(40, message), (11, message));
        assert_eq!(layout(36, message), (0, message));
        assert_eq!(layout(25, message), (0, "step 2/700  loss 3.9"));
        assert_eq!(layout(12, message), (0, "step 2/700"));
        assert_eq!(layout(9, message), (0, ""));
        assert_eq!(layout(0, ""), (0, ""));
    }
}
