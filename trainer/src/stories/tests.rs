//! Properties of the built-in stories.

use super::*;
use std::collections::{BTreeMap, BTreeSet, HashSet};

mod tables;

fn stories(count: usize, seed: u64) -> Vec<Story> {
    let grammar = Grammar::built_in();
    let mut rng = stream(seed, Split::Train);
    (0..count).map(|_| grammar.generate(&mut rng)).collect()
}

/// Byte ranges of the words of a text.
fn words(text: &str) -> Vec<std::ops::Range<usize>> {
    let mut found = Vec::new();
    let mut start = None;
    for (i, c) in text.char_indices().chain([(text.len(), ' ')]) {
        match (c.is_ascii_alphanumeric(), start) {
            (true, None) => start = Some(i),
            (false, Some(s)) => {
                found.push(s..i);
                start = None;
            }
            _ => {}
        }
    }
    found
}

#[test]
fn samples_read_well() {
    let grammar = Grammar::built_in();
    println!(
        "{:.2} bits in {:.1} bytes: {:.4} bits a byte; two stories are equal once in 2^{:.1}\n",
        grammar.entropy_bits(),
        grammar.expected_bytes(),
        grammar.entropy_bits_per_byte(),
        grammar.collision_bits()
    );
    for story in stories(3, 7) {
        println!("{}\n", story.text);
        let (first, last) = (story.text.chars().next().unwrap(), story.text.chars().last().unwrap());
        assert!(
            (first.is_ascii_uppercase() || first == '"') && last == '.',
            "{}",
            story.text
        );
    }
    assert!((0.20..0.40).contains(&grammar.entropy_bits_per_byte()));
}

#[test]
fn parsing_recovers_each_story_and_its_probability() {
    let grammar = Grammar::built_in();
    for story in stories(2_000, 1) {
        let parsed = grammar
            .parse(&story.text)
            .unwrap_or_else(|e| panic!("{e}\n{}", story.text));
        assert_eq!(parsed.log2_probability, story.log2_probability, "{}", story.text);
        let slots: Vec<&str> = parsed.bindings.iter().map(|b| b.slot).collect();
        for slot in ["hero", "pal", "kind", "place", "food", "colour", "object"] {
            assert!(slots.contains(&slot), "no {slot}: {}", story.text);
        }
        for binding in &parsed.bindings {
            assert_eq!(&story.text[binding.mentions[0].clone()], binding.word);
            assert!(
                binding.mentions.len() >= 2,
                "{} comes once: {}",
                binding.slot,
                story.text
            );
        }
    }
}

#[test]
fn a_changed_word_is_an_inconsistency() {
    let grammar = Grammar::built_in();
    let mut rng = stream(2, Split::HeldOut);
    let mut changes = 0;
    for story in stories(300, 2) {
        let parsed = grammar.parse(&story.text).expect("a story");
        for binding in &parsed.bindings {
            let list = grammar.lists.iter().find(|l| l.name == binding.slot).expect("the list");
            let index = list.items.iter().position(|i| i[0] == binding.word).expect("the word");
            for mention in &binding.mentions {
                let form = list.items[index]
                    .iter()
                    .position(|f| *f == story.text[mention.clone()])
                    .expect("the form");
                let other = &list.items[below(list.items.len(), &mut rng)][form];
                if *other == list.items[index][form] {
                    continue;
                }
                let mut text = story.text.clone();
                text.replace_range(mention.clone(), other);
                match grammar.parse(&text) {
                    Err(ParseError::Inconsistent {
                        at,
                        slot,
                        expected,
                        found,
                    }) => {
                        assert_eq!(slot, binding.slot, "{text}");
                        assert_eq!(&text[at..at + found.len()], found);
                        assert_ne!(expected, found);
                        changes += 1;
                    }
                    parsed => panic!("{} at {}: {parsed:?}\n{text}", binding.slot, mention.start),
                }
            }
        }
    }
    assert!(changes > 5_000, "{changes}");
}

#[test]
fn errors_name_the_place_and_the_word() {
    let grammar = Grammar::built_in();
    let story = "One sunny Monday, Mia and Pip the shy bear walked to the park with some pie. There Mia found a tiny red \
                 ball under a dark bush. She felt as proud as a king. Later, Mia saw a sneaky fox hide the ball. Pip \
                 quickly followed the fox and found it in a dark nest. Mia gave Pip the bear a hug, and they ate the \
                 pie. Now the red ball stands by her bed and smells of the park and the pie.";
    assert!(grammar.parse(story).is_ok());
    let error = |from: &str, to: &str| grammar.parse(&story.replacen(from, to, 1)).unwrap_err();
    let at = |part: &str| story.find(part).expect("a part of the story");

    let red = error("the red", "the blue");
    let (slot, expected, found) = ("colour".to_owned(), "red".to_owned(), "blue".to_owned());
    assert_eq!(
        red,
        ParseError::Inconsistent {
            at: at("red ball stands"),
            slot,
            expected,
            found
        }
    );
    assert_eq!(
        red.to_string(),
        format!("byte {}: the colour was `red` and is now `blue`", at("red ball stands"))
    );
    let he = error("She", "He");
    let (slot, expected, found) = ("hero".to_owned(), "She".to_owned(), "He".to_owned());
    assert_eq!(
        he,
        ParseError::Inconsistent {
            at: at("She felt"),
            slot,
            expected,
            found
        }
    );

    let weather = error("sunny", "sunburnt");
    assert_eq!(
        weather,
        ParseError::Syntax {
            at: 4,
            expected: "a word for `weather`".to_owned()
        }
    );
    let some = error("with some", "with soup");
    assert_eq!(
        some,
        ParseError::Syntax {
            at: at("some pie"),
            expected: "`some`".to_owned()
        }
    );
    let long = grammar.parse(&format!("{story} ")).unwrap_err();
    assert_eq!(
        long,
        ParseError::Syntax {
            at: story.len(),
            expected: "the end of the story".to_owned()
        }
    );
    assert_eq!(grammar.parse("").unwrap_err().at(), 0);
    assert!(grammar.parse("One s\u{fc}nny day").is_err());
}

#[test]
fn no_beginning_of_a_story_is_a_story() {
    let grammar = Grammar::built_in();
    for story in stories(20, 3) {
        for end in 0..story.text.len() {
            let error = grammar.parse(&story.text[..end]).expect_err("a truncated story");
            assert!(error.at() <= end);
        }
    }
}

#[test]
fn swapped_words_are_rejected() {
    let grammar = Grammar::built_in();
    let list_of: BTreeMap<&str, &str> = grammar
        .lists
        .iter()
        .flat_map(|l| l.items.iter().map(|i| (i[0].as_str(), l.name.as_str())))
        .collect();
    let mut rng = stream(4, Split::HeldOut);
    let mut swaps = 0;
    for story in stories(500, 4) {
        let words = words(&story.text);
        let (i, j) = (below(words.len(), &mut rng), below(words.len(), &mut rng));
        let (a, b) = (words[i.min(j)].clone(), words[i.max(j)].clone());
        let (first, second) = (&story.text[a.clone()], &story.text[b.clone()]);
        // Two adjectives of one list may well change places.
        if first == second || list_of.get(first).is_some_and(|l| list_of.get(second) == Some(l)) {
            continue;
        }
        let mut text = story.text.clone();
        text.replace_range(b, first);
        text.replace_range(a, second);
        assert!(grammar.parse(&text).is_err(), "{text}");
        swaps += 1;
    }
    assert!(swaps > 400, "{swaps}");
}

#[test]
fn averages_agree_with_a_sample() {
    let grammar = Grammar::built_in();
    let sample = stories(20_000, 5);
    let check = |values: Vec<f64>, exact: f64, what: &str| {
        let n = values.len() as f64;
        let mean = values.iter().sum::<f64>() / n;
        let error = (values.iter().map(|v| (v - mean).powi(2)).sum::<f64>() / (n * (n - 1.0))).sqrt();
        println!("{what}: exact {exact:.4}, sample {mean:.4} ± {error:.4}");
        assert!((mean - exact).abs() < 4.0 * error, "{what}");
        assert!(error < 0.005 * exact, "{what}: the sample says nothing");
    };
    check(
        sample.iter().map(|s| -s.log2_probability).collect(),
        grammar.entropy_bits(),
        "entropy",
    );
    check(
        sample.iter().map(|s| s.text.len() as f64).collect(),
        grammar.expected_bytes(),
        "bytes",
    );
}

/// The built-in rules over lists cut to one or two words: every derivation, one after the other.
#[test]
fn enumerated_probabilities_sum_to_one() {
    let mut grammar = Grammar::built_in();
    for list in &mut grammar.lists {
        let keep = match list.name.as_str() {
            "hero" => vec![0, list.items.len() - 1],
            "thief" => vec![0, 1],
            _ => vec![0],
        };
        list.items = keep.into_iter().map(|i| list.items[i].clone()).collect();
    }
    grammar.measures = entropy::measure(&grammar.rules, &grammar.lists).expect("a grammar");
    let (mut sum, mut entropy, mut bytes, mut collision) = (0.0, 0.0, 0.0, 0.0);
    let mut seen = HashSet::new();
    // The choices of a derivation are the digits of a counter whose bases are met on the way.
    let mut digits: Vec<(usize, usize)> = Vec::new();
    loop {
        let mut used = 0;
        let story = grammar.derive(&mut |n| {
            used += 1;
            if digits.len() < used {
                digits.push((0, n));
            }
            assert_eq!(digits[used - 1].1, n);
            digits[used - 1].0
        });
        let p = story.log2_probability.exp2();
        (sum, entropy) = (sum + p, entropy - p * story.log2_probability);
        (bytes, collision) = (bytes + p * story.text.len() as f64, collision + p * p);
        assert_eq!(
            grammar.parse(&story.text).map(|s| s.log2_probability),
            Ok(story.log2_probability)
        );
        assert!(seen.insert(story.text), "two derivations of one text");
        while digits.last().is_some_and(|&(digit, n)| digit + 1 == n) {
            digits.pop();
        }
        match digits.last_mut() {
            Some(digit) => digit.0 += 1,
            None => break,
        }
    }
    println!("{} stories: probability {sum}", seen.len());
    assert!(seen.len() > 10_000);
    assert!((sum - 1.0).abs() < 1e-9);
    assert!((entropy - grammar.entropy_bits()).abs() < 1e-6);
    assert!((bytes - grammar.expected_bytes()).abs() < 1e-6);
    assert!((-collision.log2() - grammar.collision_bits()).abs() < 1e-6);
}

#[test]
fn words_and_lengths_are_bounded() {
    let grammar = Grammar::built_in();
    let mut vocabulary = BTreeSet::new();
    let (mut lengths, mut counts) = (Vec::new(), Vec::new());
    for story in stories(5_000, 6) {
        assert!(story.text.is_ascii() && !story.text.contains('\n'));
        let words = words(&story.text);
        counts.push(words.len());
        lengths.push(story.text.len());
        vocabulary.extend(words.into_iter().map(|w| story.text[w].to_ascii_lowercase()));
    }
    lengths.sort_unstable();
    counts.sort_unstable();
    let (shortest, longest) = (lengths[0], lengths[lengths.len() - 1]);
    println!(
        "{} words; {shortest}..={longest} bytes, median {} words a story",
        vocabulary.len(),
        counts[2_500]
    );
    assert!((200..=600).contains(&vocabulary.len()), "{}", vocabulary.len());
    assert!(shortest >= 250 && longest <= 550, "{shortest}..={longest}");
    assert!((60..=90).contains(&counts[2_500]), "{}", counts[2_500]);
    let mut all: Vec<&str> = grammar
        .lists
        .iter()
        .flat_map(|l| l.items.iter().map(|i| i[0].as_str()))
        .collect();
    let count = all.len();
    all.sort_unstable();
    all.dedup();
    assert_eq!(all.len(), count, "a word stands in two lists");
    // Every list is used by some rule.
    for (index, list) in grammar.lists.iter().enumerate() {
        let uses = |p: &Piece| matches!(p, Piece::Bound { list, .. } | Piece::Fresh { list } if *list == index);
        assert!(
            grammar.rules.iter().flat_map(|r| &r.alternatives).flatten().any(uses),
            "{} is idle",
            list.name
        );
    }
}

#[test]
fn a_seed_and_a_split_determine_the_corpus() {
    let grammar = Grammar::built_in();
    let corpus = |seed, split, n| grammar.corpus(n, &mut stream(seed, split));
    let train = corpus(1, Split::Train, 3_000);
    assert_eq!(train, corpus(1, Split::Train, 3_000));
    assert!(train.starts_with(&corpus(1, Split::Train, 100)));
    assert_ne!(corpus(1, Split::Train, 100), corpus(2, Split::Train, 100));
    assert_eq!(train.lines().count(), 3_000);
    assert!(train.ends_with('\n'));
    let known: HashSet<&str> = train.lines().collect();
    assert_eq!(known.len(), 3_000);
    let held_out = corpus(1, Split::HeldOut, 3_000);
    assert!(held_out.lines().all(|story| !known.contains(story)));
    // 100,000 training and 10,000 held-out stories: expected number of twins.
    assert!(1e9 * (-grammar.collision_bits()).exp2() < 1e-9);
}

#[test]
fn a_contradiction_differs_in_one_word_that_was_said_before() {
    let grammar = Grammar::built_in();
    let mut random = stream(5, Split::HeldOut);
    let (mut made, mut slots) = (0, BTreeSet::new());
    for _ in 0..300 {
        let story = grammar.generate(&mut random).text;
        let Some(wrong) = grammar.contradict(&story, &mut |n| random() as usize % n) else {
            continue;
        };
        made += 1;
        slots.insert(wrong.slot.to_string());
        let (right, other): (Vec<&str>, Vec<&str>) = (story.split(' ').collect(), wrong.text.split(' ').collect());
        assert_eq!(right.len(), other.len(), "{}", wrong.text);
        assert_eq!(
            right.iter().zip(&other).filter(|(a, b)| a != b).count(),
            1,
            "{}",
            wrong.text
        );
        match grammar.parse(&wrong.text) {
            Err(ParseError::Inconsistent { slot, .. }) => assert_eq!(slot, wrong.slot),
            found => panic!("{found:?}: {}", wrong.text),
        }
    }
    assert!(made > 280 && slots.len() >= 5, "{made} of 300: {slots:?}");
    assert!(grammar.contradict("no story", &mut |_| 0).is_none());
}
