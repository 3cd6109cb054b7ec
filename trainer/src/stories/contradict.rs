//! Stories that lose their thread, made from stories that keep it.

use super::{Grammar, ParseError};

/// A story that contradicts itself in one word.
#[derive(Clone, Debug, PartialEq)]
pub struct Contradiction<'g> {
    /// The list that the word is from.
    pub slot: &'g str,
    /// The story.
    pub text: String,
}

impl Grammar {
    /// `story` with another word, in the same form, for the last mention of one that it keeps; `choose(n)` is a number below `n`. None where nothing is mentioned twice, or the
    /// other word makes no contradiction.
    pub fn contradict(&self, story: &str, choose: &mut impl FnMut(usize) -> usize) -> Option<Contradiction<'_>> {
        let mut bindings = self.parse(story).ok()?.bindings;
        bindings.retain(|binding| binding.mentions.len() > 1);
        if bindings.is_empty() {
            return None;
        }
        let binding = &bindings[choose(bindings.len())];
        let list = self.lists.iter().find(|list| list.name == binding.slot)?;
        let last = binding.mentions.last()?;
        let said = &story[last.clone()];
        let forms = list.items.iter().find(|forms| forms[0] == binding.word)?;
        let form = forms.iter().position(|form| form == said)?;
        let others = list.items.iter().map(|forms| forms[form].as_str());
        let others: Vec<&str> = others.filter(|word| *word != said).collect();
        if others.is_empty() {
            return None;
        }
        let other = others[choose(others.len())];
        let text = format!("{}{other}{}", &story[..last.start], &story[last.end..]);
        let contradicts = matches!(self.parse(&text), Err(ParseError::Inconsistent { .. }));
        contradicts.then_some(Contradiction { slot: &list.name, text })
    }
}
