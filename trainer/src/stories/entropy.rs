//! Exact averages over all stories: entropy, length, and the chance that two stories are equal.
//!
//! The choices of a derivation are independent and uniform, save that a bound word costs nothing after its first
//! mention. So the averages follow from the probability of each *state* (the set of lists already bound) at each
//! place of the grammar; the states are carried through the rules from left to right.

use super::Grammar;
use super::grammar::{GrammarError, Piece, Production, Words};
use std::collections::BTreeMap;

/// What [`measure`] finds.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Measures {
    entropy_bits: f64,
    expected_bytes: f64,
    collision_bits: f64,
}

/// Set of bound lists → (`Σ p`, `Σ p²`) over the partial derivations that reach it.
type States = BTreeMap<u64, (f64, f64)>;

impl Grammar {
    /// The expected `-log2 P(story)` in bits: exact, for each text has one derivation.
    pub fn entropy_bits(&self) -> f64 {
        self.measures.entropy_bits
    }

    /// The expected length of a story in bytes, without the line break.
    pub fn expected_bytes(&self) -> f64 {
        self.measures.expected_bytes
    }

    /// Entropy of the line-by-line corpus per byte, line breaks included: the limit of bits per byte for any model
    /// that scores [`Grammar::corpus`].
    pub fn entropy_bits_per_byte(&self) -> f64 {
        self.entropy_bits() / (self.expected_bytes() + 1.0)
    }

    /// `-log2` of the chance that two independent stories are equal. Among `a · b` pairs of a training and a held-out
    /// story, fewer than `a · b · 2^-collision_bits` are expected to be twins.
    pub fn collision_bits(&self) -> f64 {
        self.measures.collision_bits
    }
}

/// Walks the start rule.
pub(super) fn measure(rules: &[Production], lists: &[Words]) -> Result<Measures, GrammarError> {
    if let Some(list) = lists.get(u64::BITS as usize) {
        let what = format!("a grammar has at most {} lists", u64::BITS);
        return Err(GrammarError::List {
            list: list.name.clone(),
            what,
        });
    }
    let mut measures = Measures::default();
    let end = walk(0, States::from([(0, (1.0, 1.0))]), rules, lists, &mut measures)?;
    measures.collision_bits = -end.values().map(|s| s.1).sum::<f64>().log2();
    Ok(measures)
}

/// Carries `states` through a rule, and adds what it contributes to `measures`.
fn walk(
    rule: usize,
    states: States,
    rules: &[Production],
    lists: &[Words],
    measures: &mut Measures,
) -> Result<States, GrammarError> {
    let Production { name, alternatives } = &rules[rule];
    let mut end = States::new();
    let n = alternatives.len() as f64;
    measures.entropy_bits += total(&states) * n.log2();
    for pieces in alternatives {
        let mut states: States = states
            .iter()
            .map(|(&set, &(p, q))| (set, (p / n, q / (n * n))))
            .collect();
        for piece in pieces {
            match piece {
                Piece::Text(text) => measures.expected_bytes += total(&states) * text.len() as f64,
                Piece::Rule(inner) => states = walk(*inner, states, rules, lists, measures)?,
                Piece::Fresh { list } => {
                    let n = lists[*list].items.len() as f64;
                    measures.entropy_bits += total(&states) * n.log2();
                    measures.expected_bytes += total(&states) * mean_length(&lists[*list], 0);
                    states.values_mut().for_each(|s| s.1 /= n);
                }
                Piece::Bound { list, form } => {
                    let n = lists[*list].items.len() as f64;
                    let bit = 1u64 << list;
                    measures.expected_bytes += total(&states) * mean_length(&lists[*list], *form);
                    let mut bound = States::new();
                    for (set, (p, q)) in states {
                        let first = set & bit == 0;
                        if first && *form != 0 {
                            let what = format!("a form of `{}` comes before the word itself", lists[*list].name);
                            return Err(GrammarError::Template {
                                rule: name.clone(),
                                what,
                            });
                        }
                        if first {
                            measures.entropy_bits += p * n.log2();
                        }
                        add(&mut bound, set | bit, (p, if first { q / n } else { q }));
                    }
                    states = bound;
                }
            }
        }
        states.into_iter().for_each(|(set, s)| add(&mut end, set, s));
    }
    Ok(end)
}

fn add(states: &mut States, set: u64, (p, q): (f64, f64)) {
    let state = states.entry(set).or_default();
    state.0 += p;
    state.1 += q;
}

fn total(states: &States) -> f64 {
    states.values().map(|s| s.0).sum()
}

/// Mean length of a form. It holds for later mentions too: which rules are taken does not depend on the words.
fn mean_length(words: &Words, form: usize) -> f64 {
    words.items.iter().map(|i| i[form].len() as f64).sum::<f64>() / words.items.len() as f64
}
