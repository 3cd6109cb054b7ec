//! From the text back to the derivation.
//!
//! At every choice at most one alternative can match (see `grammar::check_unambiguous`), so the first that matches is
//! the right one: recursive descent, at worst a few bytes read once per alternative. The error of a text that is no
//! story is the one found furthest to the right.

use super::Grammar;
use super::grammar::Piece;
use std::ops::Range;

/// A story understood.
#[derive(Clone, Debug, PartialEq)]
pub struct Parsed<'g> {
    /// `log2 P(text)`, the same number that the generator gives.
    pub log2_probability: f64,
    /// The words that the story keeps, in the order of their first mention.
    pub bindings: Vec<Binding<'g>>,
}

/// A word that a story keeps.
#[derive(Clone, Debug, PartialEq)]
pub struct Binding<'g> {
    /// The list it is from, such as `hero`.
    pub slot: &'g str,
    /// The word, such as `Mia`.
    pub word: &'g str,
    /// Where it stands, in this or a derived form: byte ranges of the text.
    pub mentions: Vec<Range<usize>>,
}

/// Why a text is not a story.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ParseError {
    /// No story goes on like this.
    #[error("byte {at}: expected {expected}")]
    Syntax {
        /// Byte offset of the word that does not fit.
        at: usize,
        /// What could stand there.
        expected: String,
    },
    /// The text contradicts itself: a word differs from what it was before.
    #[error("byte {at}: the {slot} was `{expected}` and is now `{found}`")]
    Inconsistent {
        /// Byte offset of the word.
        at: usize,
        /// The list it is from.
        slot: String,
        /// What the story's earlier words ask for.
        expected: String,
        /// What the text has.
        found: String,
    },
}

impl ParseError {
    /// Byte offset of the first word that does not fit.
    pub fn at(&self) -> usize {
        match self {
            ParseError::Syntax { at, .. } | ParseError::Inconsistent { at, .. } => *at,
        }
    }
}

/// How many different expectations a message lists.
const EXPECTATIONS: usize = 4;

struct Parser<'g, 't> {
    grammar: &'g Grammar,
    text: &'t str,
    state: State,
    furthest: usize,
    expected: Vec<String>,
    inconsistent: Option<ParseError>,
}

/// What backtracking restores.
#[derive(Clone)]
struct State {
    at: usize,
    log2_probability: f64,
    /// Chosen item of each list.
    bound: Vec<Option<usize>>,
    /// List and place of every mention of a bound word.
    mentions: Vec<(usize, Range<usize>)>,
}

impl Grammar {
    /// Recovers the derivation of a story (one line, without the line break).
    ///
    /// # Errors
    /// The first word that does not fit, as wrong in itself or as contradicting the words before it.
    pub fn parse(&self, text: &str) -> Result<Parsed<'_>, ParseError> {
        let state = State {
            at: 0,
            log2_probability: 0.0,
            bound: vec![None; self.lists.len()],
            mentions: Vec::new(),
        };
        let mut parser = Parser {
            grammar: self,
            text,
            state,
            furthest: 0,
            expected: Vec::new(),
            inconsistent: None,
        };
        let mut matched = parser.rule(0);
        if matched && parser.state.at < text.len() {
            parser.fail(parser.state.at, || "the end of the story".to_owned());
            matched = false;
        }
        if !matched {
            return Err(parser.error());
        }
        let mut bindings: Vec<Binding<'_>> = Vec::new();
        for (list, range) in parser.state.mentions {
            let words = &self.lists[list];
            match bindings.iter_mut().find(|b| b.slot == words.name) {
                Some(binding) => binding.mentions.push(range),
                // The first mention is the word itself.
                None => bindings.extend(parser.state.bound[list].map(|item| Binding {
                    slot: &words.name,
                    word: &words.items[item][0],
                    mentions: vec![range],
                })),
            }
        }
        Ok(Parsed {
            log2_probability: parser.state.log2_probability,
            bindings,
        })
    }
}

impl<'g> Parser<'g, '_> {
    fn rule(&mut self, rule: usize) -> bool {
        let grammar: &'g Grammar = self.grammar;
        let alternatives = &grammar.rules[rule].alternatives;
        self.state.log2_probability -= (alternatives.len() as f64).log2();
        let before = self.state.clone();
        for pieces in alternatives {
            if pieces.iter().all(|piece| self.piece(piece)) {
                return true;
            }
            self.state.clone_from(&before);
        }
        false
    }

    fn piece(&mut self, piece: &'g Piece) -> bool {
        match piece {
            Piece::Text(text) => self.literal(text),
            Piece::Rule(rule) => self.rule(*rule),
            Piece::Fresh { list } => self.draw(*list).is_some(),
            Piece::Bound { list, form } => {
                let start = self.state.at;
                let same = match self.state.bound[*list] {
                    Some(item) => self.repeat(*list, *form, item),
                    None => {
                        self.state.bound[*list] = self.draw(*list);
                        self.state.bound[*list].is_some()
                    }
                };
                if !same {
                    return false;
                }
                self.state.mentions.push((*list, start..self.state.at));
                true
            }
        }
    }

    fn rest(&self) -> &[u8] {
        &self.text.as_bytes()[self.state.at..]
    }

    fn literal(&mut self, literal: &str) -> bool {
        let same = literal.bytes().zip(self.rest()).take_while(|(a, b)| a == *b).count();
        if same == literal.len() {
            self.state.at += same;
            return true;
        }
        // Report the whole word, not the letter within it.
        let word = literal[..same]
            .rfind(|c: char| !c.is_ascii_alphanumeric())
            .map_or(0, |i| i + 1);
        self.fail(self.state.at + word, || {
            let rest = &literal[word..];
            let end = rest
                .trim_start()
                .find(' ')
                .map_or(rest.len(), |i| i + rest.len() - rest.trim_start().len());
            format!("`{}`", &rest[..end])
        });
        false
    }

    /// Any word of a list; no word begins another, so at most one matches.
    fn draw(&mut self, list: usize) -> Option<usize> {
        let grammar: &'g Grammar = self.grammar;
        let words = &grammar.lists[list];
        match words
            .items
            .iter()
            .position(|item| self.rest().starts_with(item[0].as_bytes()))
        {
            Some(item) => {
                self.state.at += words.items[item][0].len();
                self.state.log2_probability -= (words.items.len() as f64).log2();
                Some(item)
            }
            None => {
                self.fail(self.state.at, || format!("a word for `{}`", words.name));
                None
            }
        }
    }

    /// The same word again.
    fn repeat(&mut self, list: usize, form: usize, item: usize) -> bool {
        let words = &self.grammar.lists[list];
        let (at, expected) = (self.state.at, &words.items[item][form]);
        if self.rest().starts_with(expected.as_bytes()) {
            self.state.at += expected.len();
            return true;
        }
        let whole = |other: &&Vec<String>| {
            self.rest()
                .strip_prefix(other[form].as_bytes())
                .is_some_and(|r| !r.first().is_some_and(u8::is_ascii_alphanumeric))
        };
        if let Some(other) = words.items.iter().find(whole) {
            let error = ParseError::Inconsistent {
                at,
                slot: words.name.clone(),
                expected: expected.clone(),
                found: other[form].clone(),
            };
            self.fail(at, || format!("`{expected}`"));
            if at == self.furthest {
                self.inconsistent.get_or_insert(error);
            }
        } else {
            self.fail(at, || format!("`{expected}`"));
        }
        false
    }

    /// Notes a failure; those to the left of the furthest one are forgotten.
    fn fail(&mut self, at: usize, expected: impl FnOnce() -> String) {
        if at < self.furthest {
            return;
        }
        if at > self.furthest {
            self.furthest = at;
            self.expected.clear();
            self.inconsistent = None;
        }
        let expected = expected();
        if !self.expected.contains(&expected) {
            self.expected.push(expected);
        }
    }

    fn error(mut self) -> ParseError {
        self.inconsistent.take().unwrap_or_else(|| {
            let more = if self.expected.len() > EXPECTATIONS {
                " or something else"
            } else {
                ""
            };
            self.expected.truncate(EXPECTATIONS);
            ParseError::Syntax {
                at: self.furthest,
                expected: self.expected.join(" or ") + more,
            }
        })
    }
}
