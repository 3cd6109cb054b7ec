//! Little stories from a seeded grammar: the corpus on which `onebit quickstart` trains, with nothing to download.
//!
//! A story has a hero, a friend who is an animal, a place, something to eat and a thing that is found, lost to a
//! thief, a roof, a pond, a sack or some mud, and won back by the friend:
//!
//! > Every windy morning, Leo took some pie to the lake for Ginger, a nervous otter. Something pink lay behind a dirty fence.
//! > It was a fine scarf! "Finders keepers!" he shouted and giggled. "Mine!" said a wicked monkey and took the scarf. "Stop,
//! > monkey!" said Ginger, and proudly took it back. "Thank you, Ginger!" said Leo, and gave the young otter a pat and the pie.
//! > Now the pink scarf stands by his pillow and smells of the lake.
//!
//! What makes it a measuring instrument as well:
//!
//! - **The optimum is known.** Each story has exactly one derivation, made of uniform independent choices, so its
//!   probability is the product of `1/n` over them, and the entropy of the source, [`Grammar::entropy_bits`], is
//!   exact. No model can code stories in fewer bits on average; a trained model is judged by the ratio.
//! - **Sense can be checked.** [`Grammar::parse`] tells whether a text is a story, and a story that loses its thread
//!   (the red thing turns blue, she becomes he, another friend helps) is rejected as [`ParseError::Inconsistent`].
//!
//! The productions are data: [`Rule`]s over [`List`]s of words. [`Grammar::new`] compiles such tables, and
//! refuses those that it cannot prove unambiguous: within any rule, two alternatives must differ in their first bytes
//! whatever words are drawn. That is why parsing needs no search.

mod contradict;
mod entropy;
mod grammar;
mod parse;
#[cfg(test)]
mod tests;
mod words;

pub use contradict::Contradiction;
pub use grammar::{GrammarError, Rule};
pub use parse::{Binding, ParseError, Parsed};
pub use words::{Group, List};

use entropy::Measures;
use grammar::{Piece, Production, Words};
use onebit_engine::rng::Key;

/// A compiled story grammar.
#[derive(Clone, Debug)]
pub struct Grammar {
    rules: Vec<Production>,
    lists: Vec<Words>,
    measures: Measures,
}

/// A generated story.
#[derive(Clone, Debug, PartialEq)]
pub struct Story {
    /// One line of ASCII text, without a line break.
    pub text: String,
    /// `log2 P(text)` under the grammar, in bits; negative.
    pub log2_probability: f64,
}

impl Grammar {
    /// The grammar of the built-in stories.
    pub fn built_in() -> Grammar {
        Grammar::new(grammar::RULES, words::LISTS).expect("the built-in tables are checked by the tests")
    }

    /// Compiles tables of rules and word lists; the first rule is the start.
    ///
    /// # Errors
    /// A malformed template, an unusable list, a derived form before its word, or an ambiguous rule.
    pub fn new(rules: &[Rule<'_>], lists: &[List<'_>]) -> Result<Grammar, GrammarError> {
        let lists: Vec<Words> = lists.iter().map(grammar::compile_list).collect::<Result<_, _>>()?;
        let rules = grammar::compile_rules(rules, &lists)?;
        let measures = entropy::measure(&rules, &lists)?;
        Ok(Grammar { rules, lists, measures })
    }

    /// Draws a story; `rng` returns uniform 32-bit numbers.
    pub fn generate(&self, rng: &mut impl FnMut() -> u32) -> Story {
        self.derive(&mut |n| below(n, rng))
    }

    /// Draws `stories` stories, one a line, each line ended by `'\n'`. See [`stream`] for the random numbers.
    pub fn corpus(&self, stories: usize, rng: &mut impl FnMut() -> u32) -> String {
        let mut text = String::with_capacity((stories as f64 * (self.expected_bytes() + 2.0)) as usize);
        for _ in 0..stories {
            text.push_str(&self.generate(rng).text);
            text.push('\n');
        }
        text
    }

    /// Builds the story whose choices are made by `choose(n)`, a number below `n`.
    fn derive(&self, choose: &mut impl FnMut(usize) -> usize) -> Story {
        let mut story = Story {
            text: String::new(),
            log2_probability: 0.0,
        };
        let log2_probability = &mut story.log2_probability;
        let mut counted = |n: usize| {
            *log2_probability -= (n as f64).log2();
            choose(n)
        };
        self.expand(0, &mut counted, &mut vec![None; self.lists.len()], &mut story.text);
        story
    }

    fn expand(
        &self,
        rule: usize,
        choose: &mut impl FnMut(usize) -> usize,
        bound: &mut [Option<usize>],
        text: &mut String,
    ) {
        let alternatives = &self.rules[rule].alternatives;
        for piece in &alternatives[choose(alternatives.len())] {
            match piece {
                Piece::Text(literal) => text.push_str(literal),
                Piece::Rule(inner) => self.expand(*inner, choose, bound, text),
                Piece::Bound { list, form } => {
                    let items = &self.lists[*list].items;
                    let item = *bound[*list].get_or_insert_with(|| choose(items.len()));
                    text.push_str(&items[item][*form]);
                }
                Piece::Fresh { list } => {
                    let items = &self.lists[*list].items;
                    text.push_str(&items[choose(items.len())][0]);
                }
            }
        }
    }
}

/// A uniform number below `n`, without bias (Lemire's multiplication with rejection, arXiv:1805.10941).
fn below(n: usize, rng: &mut impl FnMut() -> u32) -> usize {
    let n = n as u32;
    let rejected = n.wrapping_neg() % n;
    loop {
        let product = u64::from(rng()) * u64::from(n);
        if product as u32 >= rejected {
            return (product >> 32) as usize;
        }
    }
}

/// Which part of the data a stream of random numbers is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Split {
    /// Stories to train on.
    Train,
    /// Stories to judge on; [`Grammar::collision_bits`] is 107, so none of them is met in training.
    HeldOut,
}

/// The random numbers of one split of the data: independent streams for different seeds and splits.
pub fn stream(seed: u64, split: Split) -> impl FnMut() -> u32 {
    const PURPOSE: u32 = u32::from_be_bytes(*b"TALE");
    let key = Key::new(seed, PURPOSE, split as u64);
    let mut index = 0;
    move || {
        index += 1;
        key.u32(index)
    }
}
