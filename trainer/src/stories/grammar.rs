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
            "One [weather] [day], {hero} and {pal} the [trait] {kind} [went] to the {place} with some {food}.",
            "{hero} was a [trait] {hero.girl} who lived near the {place} with {pal}, a [trait] {kind}. One [weather] \
             [day], they packed some {food}.",
            "A [trait] {kind} called {pal} lived near the {place}. One [weather] [day], {hero} came with some {food}.",
            "Every [weather] [day], {hero} took some {food} to the {place} for {pal}, a [trait] {kind}.",
            "It was a [weather] [day]. {hero} and {pal}, the [trait] {kind}, [went] to the {place} to eat some {food}.",
            "Do you know {hero}, the [trait] {hero.girl}, and {pal}, the [trait] {kind}? One [weather] [day], they \
             took some {food} to the {place}.",
        ],
    ),
    (
        "find",
        &[
            "There {hero} found a [look] {colour} {object} [under] a [gloomy] [landmark].",
            "Something {colour} lay [under] a [gloomy] [landmark]. It was a [look] {object}!",
            "{pal} looked [under] a [gloomy] [landmark] and gave {hero} a [look] {colour} {object}.",
            "{hero.She} looked [under] a [gloomy] [landmark] and found a [look] {colour} {object}.",
            "A [look] {colour} {object} lay [under] a [gloomy] [landmark], and {hero} kept it.",
        ],
    ),
    (
        "joy",
        &[
            "\"What a [praise] {object}!\" {hero.she} [cried].",
            "{hero.She} felt as [mood] as a [king].",
            "\"Finders keepers!\" {hero.she} [cried] and [danced].",
            "{hero} [danced] and felt very [mood].",
            "{pal} [danced], and {hero} felt as [mood] as a [king].",
        ],
    ),
    (
        "trouble",
        &[
            "<steal> <return>",
            "<throw> <climb>",
            "<drop> <pull>",
            "<lose> <search>",
            "<spill> <wash>",
        ],
    ),
    (
        "steal",
        &[
            "Just then, a [naughty] {thief} grabbed the {colour} {object}.",
            "\"Mine!\" said a [naughty] {thief} and took the {object}.",
            "But a [naughty] {thief} jumped out of a [gloomy] [sack] and stole the {object}.",
        ],
    ),
    (
        "return",
        &[
            "{pal} [bravely] ran after the {thief} and got it back.",
            "\"Stop, {thief}!\" said {pal}, and [bravely] took it back.",
            "So {pal} [bravely] made the {thief} give it back.",
        ],
    ),
    (
        "throw",
        &[
            "\"Catch!\" said {hero}, but the {object} landed on a [gloomy] [roof].",
            "Then {hero.she} threw the {object} onto a [gloomy] [roof].",
        ],
    ),
    (
        "climb",
        &[
            "{pal} [bravely] climbed up and got the {colour} {object}.",
            "With a [look] [tool], {pal} [bravely] got it down.",
            "\"Wait, {hero}!\" said {pal}, and [bravely] climbed up to get it.",
        ],
    ),
    (
        "drop",
        &[
            "Oh no! The {colour} {object} fell into a [gloomy] [pond].",
            "Splash! {hero} dropped the {object} into a [gloomy] [pond].",
        ],
    ),
    (
        "pull",
        &[
            "{pal} [bravely] pulled it out with a [look] [tool].",
            "\"Wait, {hero}!\" said {pal}, and [bravely] jumped in to get the {object}.",
        ],
    ),
    (
        "lose",
        &[
            "But soon a [naughty] {thief} and the {colour} {object} were gone.",
            "Later, {hero} saw a [naughty] {thief} hide the {object}.",
            "\"Has the [naughty] {thief} my {object}?\" asked {hero}.",
        ],
    ),
    (
        "search",
        &[
            "{pal} [bravely] followed the {thief} and found it in a [gloomy] [sack].",
            "The {thief} had put it into a [gloomy] [sack], and {pal} [bravely] pulled it out.",
        ],
    ),
    (
        "spill",
        &[
            "Sadly, {hero.she} dropped the {object} into some [gloomy] [mud].",
            "Plop! The {object} fell into some [gloomy] [mud].",
        ],
    ),
    (
        "wash",
        &[
            "{pal} [bravely] washed it until it was {colour} again.",
            "With a [look] brush, {pal} [bravely] made it {colour} again.",
        ],
    ),
    (
        "thanks",
        &[
            "\"Thank you, {pal}!\" said {hero}, and gave the [trait] {kind} a [hug] and the {food}.",
            "{hero} gave {pal} the {kind} a [hug], and they ate the {food}.",
            "They ate the {food}. \"What a [trait] {kind} you are, {pal}!\" said {hero}.",
            "They ate the {food}, and {hero} gave {pal} the {kind} a [hug].",
        ],
    ),
    (
        "end",
        &[
            "That night, {hero} dreamed of the {place}, the {food}, the {colour} {object} and a [praise] [dragon].",
            "When the [stars] came out over the {place}, {hero} and {pal} took the {colour} {object} home.",
            "{hero} and {pal} [bravely] [went] home from the {place} with the {colour} {object}.",
            "Now the {colour} {object} stands by {hero.her} [bed] and smells of the {place} and the {food}.",
            "Even the [stars] near the {place} talk about {hero}, {pal} and the {colour} {object}.",
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
    if rules.is_empty() {
        return Err(GrammarError::Template {
            rule: String::new(),
            what: "there is no rule".to_owned(),
        });
    }
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
