//! The productions of the story grammar, as data, and their compilation.

use super::words::{Group, List};
use std::collections::HashSet;

/// A rule: its name and its alternatives, drawn uniformly.
///
/// In a template `<rule>` stands for another rule (one that comes later in the table), `{list}` for a word that stays
/// the same through the story, `{list.form}` for a derived form of it, `[list]` for a word drawn afresh.
pub type Rule<'a> = (&'a str, &'a [&'a str]);

/// The built-in grammar; the first rule is the story.
pub(super) const RULES: &[Rule<'static>] = &[
    ("story", &["<open> <find> <joy> <trouble> <thanks> <end>"]),
    (
        "open",
        &[
            "One [weather] [day], {hero} and {pal} the {kind} [went] to the {place} with some {food}.",
            "{hero} was a [trait] {hero.girl} who lived near the {place} with {pal}, a [nature] {kind}. One [weather] \
             [day], they packed some {food}.",
            "A [nature] {kind} called {pal} lived near the {place}. One [weather] [day], {hero} came by with some {food}.",
            "Every [day], {hero} took some {food} to the {place} for {pal}, a [nature] {kind}.",
            "It was a [weather] [day]. {hero} and {pal} the {kind} [went] to the {place} to eat some {food}.",
            "Do you know {hero}, the [trait] {hero.girl}, and {pal}, the [nature] {kind}? One [day], they took some \
             {food} to the {place}.",
        ],
    ),
    (
        "find",
        &[
            "There {hero} found a [look] {colour} {object} [under] a [landmark].",
            "Something {colour} lay [under] a [landmark]. {hero} picked up a [look] {object}.",
            "\"What is that [under] the [landmark]?\" asked {pal}. {hero} found a [look] {colour} {object}.",
            "{hero.She} looked [under] a [landmark] and found a [look] {colour} {object}.",
            "A [look] {colour} {object} lay [under] a [landmark]. \"Keep it, {hero}!\" said {pal}.",
        ],
    ),
    (
        "joy",
        &[
            "\"What a [praise] {object}!\" {hero.she} [cried].",
            "{hero.She} felt as [mood] as a [king].",
            "\"Finders keepers!\" {hero.she} [cried] and [danced].",
            "{hero} [danced] and felt very [mood].",
            "\"This {object} is [praise],\" said {hero}, and {pal} [danced].",
        ],
    ),
    (
        "trouble",
        &[
            "<steal> <return>",
            "<stick> <climb>",
            "<drop> <pull>",
            "<lose> <search>",
            "<spill> <wash>",
        ],
    ),
    (
        "steal",
        &[
            "Just then, a [naughty] {thief} grabbed the {colour} {object}.",
            "\"Mine!\" said a [naughty] {thief} and ran off with the {object}.",
            "But a [naughty] {thief} crept up and stole the {object}.",
        ],
    ),
    (
        "return",
        &[
            "{pal} [bravely] ran after the {thief} and got it back.",
            "\"That belongs to {hero},\" {pal} [bravely] told the {thief}. The {thief} said sorry and gave it back.",
            "So {pal} [bravely] asked the {thief} to give the {object} back, and it did.",
        ],
    ),
    (
        "stick",
        &[
            "\"Catch!\" said {hero}, but the {object} flew up and landed on a high [roof].",
            "Then {hero.she} threw the {object} up, and it got stuck on a high [roof].",
        ],
    ),
    (
        "climb",
        &[
            "{pal} [bravely] climbed up and brought the {colour} {object} down.",
            "With a long [tool], {pal} [bravely] got the {object} down.",
            "\"Wait here, {hero},\" said {pal}, and [bravely] climbed up to get it.",
        ],
    ),
    (
        "drop",
        &[
            "Oh no! The {colour} {object} fell into a deep [pond].",
            "Splash! {hero} dropped the {object} into a deep [pond].",
        ],
    ),
    (
        "pull",
        &[
            "{pal} [bravely] pulled it out with a long [tool].",
            "\"I will help you, {hero},\" said {pal}, and [bravely] jumped in to get the {object}.",
        ],
    ),
    (
        "lose",
        &[
            "But when {hero.she} turned round, the {colour} {object} was gone.",
            "Later, {hero} could not find the {object}.",
            "\"Oh dear, where is my {object}?\" asked {hero}.",
        ],
    ),
    (
        "search",
        &[
            "{pal} [bravely] looked everywhere and found it in a [sack].",
            "They searched for an hour, until {pal} [bravely] pulled the {colour} {object} out of a [sack].",
        ],
    ),
    (
        "spill",
        &[
            "Sadly, {hero.she} dropped the {object}, and it got covered in [mud].",
            "Plop! The {object} fell into some [mud].",
        ],
    ),
    (
        "wash",
        &[
            "{pal} [bravely] washed it until it was {colour} again.",
            "\"Do not cry, {hero},\" said {pal}, and [bravely] scrubbed the {object} until it was {colour} again.",
        ],
    ),
    (
        "thanks",
        &[
            "\"Thank you, {pal}!\" said {hero}, and gave the [clever] {kind} a [hug] and the {food}.",
            "{hero} gave the [clever] {kind} a [hug], and they ate the {food}.",
            "Then they shared the {food}. \"What a [clever] {kind} you are!\" said {hero}.",
            "\"A [clever] {kind} is the best friend of all,\" said {hero}, and they ate the {food}.",
        ],
    ),
    (
        "end",
        &[
            "That night, {hero} put the {colour} {object} by {hero.her} [bed] and dreamed of the {place}.",
            "When the [stars] came out over the {place}, {hero} took {hero.her} {colour} {object} home.",
            "They [chatted] all the way home from the {place}, and the {colour} {object} came too.",
            "Now everyone near the {place} knows {hero}, {pal} and the {colour} {object}.",
        ],
    ),
];

/// Why a table of rules is not a grammar.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum GrammarError {
    /// A bracket is not closed, a name is unknown, or a rule refers to itself or to an earlier one.
    #[error("rule `{rule}`: {what}")]
    Template {
        /// The rule.
        rule: String,
        /// What is wrong in it.
        what: String,
    },
    /// A list is empty, has a word that begins another, or has forms that do not match their names.
    #[error("list `{list}`: {what}")]
    List {
        /// The list.
        list: String,
        /// What is wrong in it.
        what: String,
    },
    /// Two alternatives can begin with the same text, so that a story might have two derivations.
    #[error("rule `{rule}`: alternatives {first} and {second} are not told apart by their first {LOOKAHEAD} bytes")]
    Ambiguous {
        /// The rule.
        rule: String,
        /// Index of an alternative.
        first: usize,
        /// Index of another.
        second: usize,
    },
}

/// Two alternatives must differ within this many bytes.
const LOOKAHEAD: usize = 32;

/// One element of an alternative.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Piece {
    /// The text itself.
    Text(String),
    /// Another rule, by index; always a later one, so derivations end.
    Rule(usize),
    /// A word of a list that the story keeps; form 0 is the word itself.
    Bound { list: usize, form: usize },
    /// A word of a list, drawn for this place only.
    Fresh { list: usize },
}

/// A compiled list: `items[i][form]`.
#[derive(Clone, Debug)]
pub(super) struct Words {
    pub(super) name: String,
    pub(super) items: Vec<Vec<String>>,
    forms: Vec<String>,
}

/// A compiled rule.
#[derive(Clone, Debug)]
pub(super) struct Production {
    pub(super) name: String,
    pub(super) alternatives: Vec<Vec<Piece>>,
}

pub(super) fn compile_list(list: &List<'_>) -> Result<Words, GrammarError> {
    let fail = |what: String| {
        Err(GrammarError::List {
            list: list.name.to_owned(),
            what,
        })
    };
    let mut items: Vec<Vec<String>> = Vec::new();
    for Group { forms, words } in list.groups {
        if forms.len() != list.forms.len() {
            return fail(format!(
                "{} forms expected in each group, found {}",
                list.forms.len(),
                forms.len()
            ));
        }
        for word in words.split_ascii_whitespace() {
            items.push(
                std::iter::once(word)
                    .chain(forms.iter().copied())
                    .map(str::to_owned)
                    .collect(),
            );
        }
    }
    if items.is_empty() {
        return fail("has no word".to_owned());
    }
    for (i, a) in items.iter().enumerate() {
        if let Some(b) = items
            .iter()
            .enumerate()
            .find(|(j, b)| *j != i && b[0].starts_with(&a[0]))
        {
            return fail(format!("`{}` begins `{}`", a[0], b.1[0]));
        }
    }
    Ok(Words {
        name: list.name.to_owned(),
        items,
        forms: list.forms.iter().map(|&f| f.to_owned()).collect(),
    })
}

pub(super) fn compile_rules(rules: &[Rule<'_>], lists: &[Words]) -> Result<Vec<Production>, GrammarError> {
    let mut compiled = Vec::with_capacity(rules.len());
    for (index, (name, alternatives)) in rules.iter().enumerate() {
        let fail = |what: String| GrammarError::Template {
            rule: (*name).to_owned(),
            what,
        };
        if alternatives.is_empty() {
            return Err(fail("has no alternative".to_owned()));
        }
        let mut pieces = Vec::with_capacity(alternatives.len());
        for template in *alternatives {
            pieces.push(compile_template(template, index, rules, lists).map_err(fail)?);
        }
        compiled.push(Production {
            name: (*name).to_owned(),
            alternatives: pieces,
        });
    }
    for production in &compiled {
        check_unambiguous(production, &compiled, lists)?;
    }
    Ok(compiled)
}

fn compile_template(template: &str, index: usize, rules: &[Rule<'_>], lists: &[Words]) -> Result<Vec<Piece>, String> {
    let list_index = |name: &str| {
        lists
            .iter()
            .position(|l| l.name == name)
            .ok_or_else(|| format!("`{name}` is not the name of a list"))
    };
    let mut pieces = Vec::new();
    let mut rest = template;
    while !rest.is_empty() {
        let open = rest.find(['<', '{', '[']).unwrap_or(rest.len());
        if open > 0 {
            pieces.push(Piece::Text(rest[..open].to_owned()));
            rest = &rest[open..];
            continue;
        }
        let closer = match rest.as_bytes()[0] {
            b'<' => '>',
            b'{' => '}',
            _ => ']',
        };
        let close = rest
            .find(closer)
            .ok_or_else(|| format!("`{rest}` is not closed by `{closer}`"))?;
        let name = &rest[1..close];
        pieces.push(match closer {
            '>' => match rules.iter().position(|r| r.0 == name) {
                Some(rule) if rule > index => Piece::Rule(rule),
                Some(_) => return Err(format!("`{name}` must come after the rules that use it")),
                None => return Err(format!("`{name}` is not the name of a rule")),
            },
            '}' => {
                let (word, form) = name.split_once('.').unwrap_or((name, ""));
                let list = list_index(word)?;
                let form = match form {
                    "" => 0,
                    _ => match lists[list].forms.iter().position(|f| f == form) {
                        Some(i) => i + 1,
                        None => return Err(format!("list `{word}` has no form `{form}`")),
                    },
                };
                Piece::Bound { list, form }
            }
            _ => Piece::Fresh {
                list: list_index(name)?,
            },
        });
        rest = &rest[close + 1..];
    }
    Ok(pieces)
}

/// Proves that at most one alternative can match at any place of a text: the sets of their beginnings, with every
/// word allowed in every place, have no two members of which one begins the other.
fn check_unambiguous(production: &Production, rules: &[Production], lists: &[Words]) -> Result<(), GrammarError> {
    let alternatives = &production.alternatives;
    for first in 0..alternatives.len() {
        for second in first + 1..alternatives.len() {
            let apart = [8, 16, LOOKAHEAD].into_iter().any(|limit| {
                let a = beginnings(&alternatives[first], limit, rules, lists);
                let b = beginnings(&alternatives[second], limit, rules, lists);
                let begins = |x: &HashSet<String>, y: &HashSet<String>| {
                    let short: Vec<&String> = x.iter().filter(|s| s.len() < limit).collect();
                    y.iter()
                        .any(|t| x.contains(t) || short.iter().any(|s| t.starts_with(*s)))
                };
                !begins(&a, &b) && !begins(&b, &a)
            });
            if !apart {
                return Err(GrammarError::Ambiguous {
                    rule: production.name.clone(),
                    first,
                    second,
                });
            }
        }
    }
    Ok(())
}

/// Everything that `pieces` can begin with, cut after `limit` bytes (shorter only where the text ends there).
fn beginnings(pieces: &[Piece], limit: usize, rules: &[Production], lists: &[Words]) -> HashSet<String> {
    let mut found = HashSet::from([String::new()]);
    for piece in pieces {
        if found.iter().all(|s| s.len() == limit) {
            break;
        }
        let next: HashSet<String> = match piece {
            Piece::Text(text) => HashSet::from([text.clone()]),
            Piece::Rule(rule) => rules[*rule]
                .alternatives
                .iter()
                .flat_map(|p| beginnings(p, limit, rules, lists))
                .collect(),
            Piece::Bound { list, form } => lists[*list].items.iter().map(|i| i[*form].clone()).collect(),
            Piece::Fresh { list } => lists[*list].items.iter().map(|i| i[0].clone()).collect(),
        };
        let mut longer = HashSet::new();
        for head in &found {
            for tail in &next {
                let mut text = head.clone();
                text.extend(tail.chars().scan(head.len(), |at, c| {
                    *at += c.len_utf8();
                    (*at <= limit).then_some(c)
                }));
                longer.insert(text);
            }
        }
        found = longer;
    }
    found
}
