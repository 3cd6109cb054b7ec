use alloc::string::String;
use alloc::vec::Vec;

use super::super::{SamplingError, StopStrings, Streamed};

/// All text released for `pieces`, and whether it stopped.
fn stream<'a>(stops: &[&str], pieces: impl Iterator<Item = &'a str>) -> (String, bool) {
    let mut watcher = StopStrings::new(stops.iter().copied()).unwrap();
    let mut all = String::new();
    for piece in pieces {
        all.push_str(watcher.push(piece).text);
    }
    let stopped = watcher.stopped();
    all.push_str(watcher.finish());
    assert_eq!(watcher.finish(), "", "released twice");
    (all, stopped)
}

/// The text up to the stop string that ends first (the longest of these), by trying every end.
fn stop_oracle(stops: &[&str], text: &str) -> (String, bool) {
    for (at, c) in text.char_indices() {
        let so_far = &text[..at + c.len_utf8()];
        if let Some(n) = stops.iter().filter(|s| so_far.ends_with(**s)).map(|s| s.len()).max() {
            return (String::from(&so_far[..so_far.len() - n]), true);
        }
    }
    (String::from(text), false)
}

#[test]
fn stop_strings_split_anywhere() {
    let stop_sets: [&[&str]; 5] = [&["</s>"], &["aab", "ab"], &["\n\nUser:", "\n\n"], &["é→", "→→b"], &[]];
    let texts = [
        "hello</s> more",
        "aaaab rest",
        "aacaab",
        "one\nUser\n\nUser: x",
        "é→",
        "x→é→→b",
        "</s",
        "",
        "</s></s>",
    ];
    for stops in stop_sets {
        for text in texts {
            let want = stop_oracle(stops, text);
            let cuts: Vec<usize> = text.char_indices().map(|(i, _)| i).chain([text.len()]).collect();
            for a in &cuts {
                for b in cuts.iter().filter(|b| *b >= a) {
                    let pieces = [&text[..*a], &text[*a..*b], &text[*b..]];
                    assert_eq!(stream(stops, pieces.into_iter()), want, "{stops:?} {pieces:?}");
                }
            }
            let letters = cuts.windows(2).map(|w| &text[w[0]..w[1]]);
            assert_eq!(stream(stops, letters), want, "{stops:?} {text:?}");
        }
    }
}

#[test]
fn only_a_possible_stop_is_held_back() {
    let mut watcher = StopStrings::new(["<end>"]).unwrap();
    assert_eq!(
        watcher.push("hello <e"),
        Streamed {
            text: "hello ",
            stopped: false
        }
    );
    assert_eq!(
        watcher.push("n"),
        Streamed {
            text: "",
            stopped: false
        }
    );
    assert_eq!(
        watcher.push("try <"),
        Streamed {
            text: "<entry ",
            stopped: false
        }
    );
    assert_eq!(
        watcher.push("end> after"),
        Streamed {
            text: "",
            stopped: true
        }
    );
    assert_eq!(
        watcher.push("more"),
        Streamed {
            text: "",
            stopped: true
        }
    );
    assert_eq!(watcher.finish(), "");
    watcher.reset();
    assert_eq!(
        watcher.push("again"),
        Streamed {
            text: "again",
            stopped: false
        }
    );
    assert_eq!(StopStrings::new(["a", ""]).unwrap_err(), SamplingError::EmptyStopString);
}
