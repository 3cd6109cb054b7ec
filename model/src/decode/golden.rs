//! Tokens that a model must give wherever it runs, in a text file that a program without an operating system can read.
//!
//! ```text
//! # a comment
//! case greedy
//! temperature 0          top_k, top_p, min_p, repetition_penalty, seed: the same names as in generation_config.json
//! kv f32                 f32, f16 or int8
//! context 160
//! max_tokens 40
//! prompt Anna was a      to the end of the line, after one space
//! ids 12 345 6 …         what comes; an end token is the last
//! ```
//! A case goes on to the next `case`; every setting must be there, once.

use core::fmt;

use onebit_kernels_cpu::Isa;

use super::{DecodeError, TextGenerator, TextOptions};
use crate::image::Image;
use crate::runtime::KvType;
use crate::sampling::SamplingParams;

/// One text to be generated.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Case<'t> {
    /// What it is called.
    pub name: &'t str,
    /// How tokens are chosen.
    pub sampling: SamplingParams,
    /// How keys and values are kept.
    pub kv: KvType,
    /// Tokens of prompt and answer.
    pub context: usize,
    /// Tokens of the answer at most.
    pub max_tokens: usize,
    /// The prompt.
    pub prompt: &'t str,
    /// The tokens of the answer, as decimal numbers between spaces.
    pub ids: &'t str,
}

/// Why tokens were not those of the file.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum GoldenError {
    /// The file itself.
    #[error("golden file, line {line}: expected {expected}; write the file anew")]
    Line {
        /// Counted from 1; the line after the last where the file ends too early.
        line: usize,
        /// What should stand there.
        expected: &'static str,
    },
    /// Another token.
    #[error("token {place} is {found}, and should be {expected}: this machine computes something else")]
    Token {
        /// Its place in the answer, from 0.
        place: usize,
        /// In the file; `u32::MAX` where the answer should have ended.
        expected: u32,
        /// What came; `u32::MAX` where it ended.
        found: u32,
    },
    /// Nothing could be generated.
    #[error(transparent)]
    Decode(#[from] DecodeError),
}

/// The cases of a file, in its order.
pub fn cases(text: &str) -> Cases<'_> {
    Cases { rest: text, line: 0 }
}

/// See [`cases`].
#[derive(Clone, Debug)]
pub struct Cases<'t> {
    rest: &'t str,
    /// Lines before `rest`.
    line: usize,
}

impl<'t> Cases<'t> {
    /// The next line that says something, cut at its first space.
    fn entry(&mut self) -> Option<(&'t str, &'t str)> {
        loop {
            if self.rest.is_empty() {
                return None;
            }
            let (line, rest) = self.rest.split_once('\n').unwrap_or((self.rest, ""));
            self.rest = rest;
            self.line = self.line.saturating_add(1);
            if !line.is_empty() && !line.starts_with('#') {
                return Some(line.split_once(' ').unwrap_or((line, "")));
            }
        }
    }

    /// The value of the setting `key`, which must come next.
    fn value<T: core::str::FromStr>(&mut self, key: &'static str) -> Result<T, GoldenError> {
        let entry = self.entry().filter(|(found, _)| *found == key);
        let value = entry.and_then(|(_, value)| value.parse().ok());
        value.ok_or(self.wrong(key))
    }

    fn text(&mut self, key: &'static str) -> Result<&'t str, GoldenError> {
        let entry = self.entry().filter(|(found, _)| *found == key);
        Ok(entry.ok_or(self.wrong(key))?.1)
    }

    fn wrong(&self, expected: &'static str) -> GoldenError {
        let line = self.line;
        GoldenError::Line { line, expected }
    }

    fn case(&mut self, name: &'t str) -> Result<Case<'t>, GoldenError> {
        let sampling = SamplingParams {
            temperature: self.value("temperature")?,
            top_k: self.value("top_k")?,
            top_p: self.value("top_p")?,
            min_p: self.value("min_p")?,
            repetition_penalty: self.value("repetition_penalty")?,
            seed: self.value("seed")?,
        };
        let kv = KvType::by_name(self.text("kv")?).ok_or(self.wrong("kv f32, f16 or int8"))?;
        let case = Case {
            name,
            sampling,
            kv,
            context: self.value("context")?,
            max_tokens: self.value("max_tokens")?,
            prompt: self.text("prompt")?,
            ids: self.text("ids")?,
        };
        match case.expected().find(Option::is_none) {
            Some(_) => Err(self.wrong("ids as decimal numbers")),
            None => Ok(case),
        }
    }
}

impl<'t> Iterator for Cases<'t> {
    type Item = Result<Case<'t>, GoldenError>;

    fn next(&mut self) -> Option<Self::Item> {
        let case = match self.entry()? {
            ("case", name) => self.case(name),
            _ => Err(self.wrong("case NAME")),
        };
        if case.is_err() {
            self.rest = "";
        }
        Some(case)
    }
}

impl Case<'_> {
    /// The tokens that should come; `None` for what is no number.
    fn expected(&self) -> impl Iterator<Item = Option<u32>> {
        self.ids.split_ascii_whitespace().map(|id| id.parse().ok())
    }

    /// A generator for it, which has begun.
    ///
    /// # Errors
    /// [`DecodeError`].
    pub fn begin(&self, image: &Image, isa: Isa) -> Result<TextGenerator, DecodeError> {
        let options = TextOptions {
            context: self.context,
            kv: self.kv,
            sampling: self.sampling,
            isa,
            ..TextOptions::of(image)
        };
        let mut generator = TextGenerator::new(image, options)?;
        generator.begin(self.prompt, self.max_tokens)?;
        Ok(generator)
    }

    /// Generates, and compares every token.
    ///
    /// # Errors
    /// [`GoldenError::Token`] for the first that is another, [`GoldenError::Decode`].
    pub fn check(&self, image: &Image, isa: Isa) -> Result<(), GoldenError> {
        let mut generator = self.begin(image, isa)?;
        let mut expected = self.expected().map(|id| id.unwrap_or(u32::MAX));
        for place in 0.. {
            let found = generator.next_token()?;
            let expected = expected.next();
            if found != expected {
                let (expected, found) = (expected.unwrap_or(u32::MAX), found.unwrap_or(u32::MAX));
                return Err(GoldenError::Token { place, expected, found });
            }
            if found.is_none() {
                break;
            }
        }
        Ok(())
    }
}

impl fmt::Display for Case<'_> {
    /// The case as it stands in a file.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let SamplingParams {
            temperature,
            top_k,
            top_p,
            min_p,
            repetition_penalty,
            seed,
        } = self.sampling;
        let kv = self.kv.name();
        writeln!(
            f,
            "case {}\ntemperature {temperature}\ntop_k {top_k}\ntop_p {top_p}",
            self.name
        )?;
        writeln!(
            f,
            "min_p {min_p}\nrepetition_penalty {repetition_penalty}\nseed {seed}\nkv {kv}"
        )?;
        writeln!(f, "context {}\nmax_tokens {}", self.context, self.max_tokens)?;
        writeln!(f, "prompt {}\nids {}", self.prompt, self.ids)
    }
}
