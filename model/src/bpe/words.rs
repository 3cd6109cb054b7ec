//! Division into words before merging, by hand: what the expressions of well-known tokenizers match, without an engine for expressions.
//!
//! Each [`Step`] stands for one expression and gives its matches, and what stands between them, as the words of the next step. The letters and
//! numbers are those of Unicode's general categories in the version that the engine of the `tokenizers` crate has; a test compares both on every
//! character and on text. The table of categories takes 49 KiB of flash (measured for a Cortex-M4), and nothing else here more than a few hundred bytes.

use alloc::string::ToString;
use alloc::vec::Vec;

use serde_json::Value;
use unicode_general_category::{GeneralCategory as Category, get_general_category};

use super::BpeError;
use super::names::at;

/// GPT-2's division into words, with tags such as `<unk>` kept whole, so that a frequent one becomes one token: that of our own trainer.
pub(crate) const WORDS: &str =
    r"'(?:[sdmt]|ll|ve|re)| ?<\|?[\p{L}_]+\|?>| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+";
/// GPT-2's words.
pub(crate) const GPT2: &str = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+";
/// Llama 3's words.
pub(crate) const LLAMA3: &str = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";
/// The words of Qwen 2.
pub(crate) const QWEN2: &str =
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";
/// Each number by itself.
pub(crate) const DIGIT: &str = r"\p{N}";

/// Expressions, and the steps that give their words.
pub(crate) const KNOWN: &[(&str, Step)] = &[
    (WORDS, Step::Gpt2 { tags: true }),
    (GPT2, Step::Gpt2 { tags: false }),
    (
        r"'(?:[sdmt]|ll|ve|re)| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+",
        Step::Gpt2 { tags: false },
    ),
    // White space that no alternative takes stands between two matches, which is the same.
    (
        r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)",
        Step::Gpt2 { tags: false },
    ),
    (
        LLAMA3,
        Step::Llama3 {
            numbers: 3,
            folded: true,
        },
    ),
    (
        QWEN2,
        Step::Llama3 {
            numbers: 1,
            folded: true,
        },
    ),
    (
        r"(?:'[sS]|'[tT]|'[rR][eE]|'[vV][eE]|'[mM]|'[lL][lL]|'[dD])|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+",
        Step::Llama3 {
            numbers: 3,
            folded: false,
        },
    ),
    (
        r"(?:'[sS]|'[tT]|'[rR][eE]|'[vV][eE]|'[mM]|'[lL][lL]|'[dD])|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+",
        Step::Llama3 {
            numbers: 1,
            folded: false,
        },
    ),
    (DIGIT, Step::EachNumber),
];

/// Steps of a pre-tokeniser at most: each is one call deeper. Known ones have up to three.
const MOST_STEPS: usize = 8;

/// One expression of a pre-tokeniser.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    /// GPT-2's, with tags such as `<unk>` whole or not.
    Gpt2 { tags: bool },
    /// Llama 3's: numbers in runs of so many; contractions in any case, `folded` with all that Unicode folds to their letters.
    Llama3 { numbers: usize, folded: bool },
    /// Each number by itself.
    EachNumber,
    /// Each numeric character by itself, as the library's `Digits` has them: by the tables of Rust's core.
    EachNumeric,
}

/// What an expression tells apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Class {
    /// `\s`
    Space,
    /// `\p{L}`
    Letter,
    /// `\p{N}`
    Number,
    /// `[^\s\p{L}\p{N}]`
    Other,
}

pub(crate) fn class(c: char) -> Class {
    match c {
        'a'..='z' | 'A'..='Z' => Class::Letter,
        '0'..='9' => Class::Number,
        c if c.is_whitespace() => Class::Space,
        c if c.is_ascii() => Class::Other,
        c => match get_general_category(c) {
            Category::UppercaseLetter
            | Category::LowercaseLetter
            | Category::TitlecaseLetter
            | Category::ModifierLetter
            | Category::OtherLetter => Class::Letter,
            Category::DecimalNumber | Category::LetterNumber | Category::OtherNumber => Class::Number,
            _ => Class::Other,
        },
    }
}

/// Bytes at the start of `text` whose characters are `wanted`.
fn run(text: &str, wanted: impl Fn(char) -> bool) -> usize {
    text.char_indices()
        .find(|&(_, c)| !wanted(c))
        .map_or(text.len(), |(at, _)| at)
}

fn run_of(text: &str, wanted: Class) -> usize {
    run(text, |c| class(c) == wanted)
}

/// The steps of a `pre_tokenizer` that ends in the byte-level alphabet.
pub(crate) fn steps(pre: &Value) -> Result<Vec<Step>, BpeError> {
    let all = match pre["pretokenizers"].as_array() {
        Some(all) if pre["type"] == "Sequence" => all.as_slice(),
        _ => core::slice::from_ref(pre),
    };
    let unknown = |step: &Value| BpeError::unknown("pre_tokenizer", step);
    let (last, before) = all.split_last().ok_or_else(|| unknown(pre))?;
    if all.len() > MOST_STEPS {
        return Err(unknown(pre));
    }
    let mut steps = Vec::with_capacity(all.len());
    for step in before {
        let isolated = step["behavior"] == "Isolated" && step["invert"] == false;
        let found = match step["type"].as_str() {
            Some("Split") if isolated => known(at(step, "/pattern/Regex").as_str().unwrap_or_default()),
            Some("Digits") if step["individual_digits"] == true => Some(Step::EachNumeric),
            _ => None,
        };
        steps.push(found.ok_or_else(|| unknown(step))?);
    }
    if last["type"] != "ByteLevel" || last["add_prefix_space"] != false {
        return Err(unknown(last));
    }
    // Absent means true.
    if last["use_regex"] != false {
        steps.push(Step::Gpt2 { tags: false });
    }
    Ok(steps)
}

fn known(expression: &str) -> Option<Step> {
    let found = KNOWN.iter().find(|(known, _)| *known == expression);
    found.map(|&(_, step)| step)
}

/// Calls `each` with the words of `text`, first to last; joined they are the text.
pub(crate) fn divide(steps: &[Step], text: &str, each: &mut dyn FnMut(&str)) {
    let Some((step, rest)) = steps.split_first() else {
        if !text.is_empty() {
            each(text);
        }
        return;
    };
    let mut left = text;
    while let Some((word, after)) = left
        .split_at_checked(step.first(left))
        .filter(|(word, _)| !word.is_empty())
    {
        divide(rest, word, each);
        left = after;
    }
}

impl Step {
    /// Bytes of the first word; 0 for an empty text alone.
    fn first(self, text: &str) -> usize {
        match self {
            Step::Gpt2 { tags } => gpt2(text, tags),
            Step::Llama3 { numbers, folded } => llama3(text, numbers, folded),
            Step::EachNumber => each(text, |c| class(c) == Class::Number),
            Step::EachNumeric => each(text, char::is_numeric),
        }
    }
}

/// A character that is `wanted`, or those up to the next.
fn each(text: &str, wanted: impl Fn(char) -> bool) -> usize {
    match text.chars().next() {
        Some(c) if wanted(c) => c.len_utf8(),
        _ => run(text, |c| !wanted(c)),
    }
}

/// `'s|'t|'re|'ve|'m|'ll|'d`, after `fold` of each letter.
fn contraction(text: &str, fold: impl Fn(char) -> char) -> Option<usize> {
    let rest = text.strip_prefix('\'')?;
    let mut letters = rest.chars();
    let first = letters.next()?;
    let length = match fold(first) {
        's' | 't' | 'm' | 'd' => first.len_utf8(),
        letter => {
            let second = letters.next()?;
            match (letter, fold(second)) {
                ('r' | 'v', 'e') | ('l', 'l') => first.len_utf8().saturating_add(second.len_utf8()),
                _ => return None,
            }
        }
    };
    Some(length.saturating_add(1))
}

/// `<\|?[\p{L}_]+\|?>`
fn tag(text: &str) -> Option<usize> {
    let rest = text.strip_prefix('<')?;
    let rest = rest.strip_prefix('|').unwrap_or(rest);
    let letters = run(rest, |c| c == '_' || class(c) == Class::Letter);
    let rest = rest.get(letters..).filter(|_| letters > 0)?;
    let rest = rest.strip_prefix('|').unwrap_or(rest).strip_prefix('>')?;
    text.len().checked_sub(rest.len())
}

/// `\s+(?!\S)|\s+`: a run of white space, without its last character if something else follows it.
fn spaces(text: &str) -> usize {
    let all = run_of(text, Class::Space);
    let last = text.get(..all).and_then(|run| run.char_indices().next_back());
    match last {
        Some((at, _)) if all < text.len() && at > 0 => at,
        _ => all,
    }
}

fn gpt2(text: &str, tags: bool) -> usize {
    if let Some(length) = contraction(text, |c| c) {
        return length;
    }
    let rest = text.strip_prefix(' ').unwrap_or(text);
    let space = text.len().saturating_sub(rest.len());
    let tag = if tags { tag(rest) } else { None };
    let runs = || [Class::Letter, Class::Number, Class::Other].map(|class| run_of(rest, class));
    match tag.or_else(|| runs().into_iter().find(|&length| length > 0)) {
        Some(length) => space.saturating_add(length),
        None => spaces(text),
    }
}

fn llama3(text: &str, numbers: usize, folded: bool) -> usize {
    let fold = |c: char| match c {
        'ſ' if folded => 's',
        c => c.to_ascii_lowercase(),
    };
    if let Some(length) = contraction(text, fold) {
        return length;
    }
    let newline = |c: char| matches!(c, '\r' | '\n');
    let lead = text.chars().next().filter(|&c| !newline(c));
    let lead = lead.filter(|&c| !matches!(class(c), Class::Letter | Class::Number));
    let lead = lead.map_or(0, char::len_utf8);
    let letters = text.get(lead..).map_or(0, |rest| run_of(rest, Class::Letter));
    if letters > 0 {
        return lead.saturating_add(letters);
    }
    let digits = text.chars().take(numbers).take_while(|&c| class(c) == Class::Number);
    let digits = digits.map(char::len_utf8).sum();
    if digits > 0 {
        return digits;
    }
    let rest = text.strip_prefix(' ').unwrap_or(text);
    let others = run_of(rest, Class::Other);
    if others > 0 {
        let newlines = rest.get(others..).map_or(0, |rest| run(rest, newline));
        let before = text.len().saturating_sub(rest.len());
        return before.saturating_add(others).saturating_add(newlines);
    }
    let white = text.get(..run_of(text, Class::Space)).unwrap_or_default();
    // Newlines are one byte long.
    match white.char_indices().rfind(|&(_, c)| newline(c)) {
        Some((at, _)) => at.saturating_add(1),
        None => spaces(text),
    }
}

impl BpeError {
    /// That a part of the `tokenizer.json` is done by no code here.
    pub(super) fn unknown(part: &'static str, found: &Value) -> BpeError {
        let mut found = found.to_string();
        if let Some((at, _)) = found.char_indices().nth(200) {
            found.truncate(at);
        }
        BpeError::Unsupported { part, found }
    }
}
