//! Colour on standard error, where a person reads it: on a terminal that has colours, and unless `NO_COLOR` is set (<https://no-color.org>). Results on standard output have none.

use std::env;
use std::io::{IsTerminal, stderr};

/// `text` in bold red, if that shows.
pub(crate) fn alarming(text: &str) -> String {
    if shows() {
        format!("\x1b[1;31m{text}\x1b[0m")
    } else {
        text.to_string()
    }
}

fn shows() -> bool {
    let has_colours = env::var_os("TERM").is_some_and(|name| name != "dumb");
    let refused = env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
    has_colours && !refused && stderr().is_terminal()
}
