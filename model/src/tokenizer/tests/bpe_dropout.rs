//! BPE-dropout is what its definition says, and nothing but the seed, the pass and the place of a word decides it.

use std::collections::{BTreeMap, HashMap};

use onebit_kernels_cpu::rng::Key;
use serde_json::json;

use super::*;
use crate::tokenizer::bpe_dropout::PURPOSE;
use crate::tokenizer::packed::parts;

/// The start of the corpus in its first pass.
const START: Place = Place { pass: 0, byte: 0 };

/// Ranks and results of the merges, by their spellings, out of the JSON.
type Merges = HashMap<(String, String), usize>;

fn merges(tokenizer: &Tokenizer) -> Merges {
    let value: Value = serde_json::from_slice(tokenizer.json()).unwrap();
    let merges = value["model"]["merges"].as_array().unwrap();
    let pairs = merges.iter().map(|merge| parts(merge).unwrap());
    pairs
        .zip(0..)
        .map(|((left, right), rank)| ((left.to_owned(), right.to_owned()), rank))
        .collect()
}

/// The possible merges of a word's tokens, best first: rank and place of the left one.
fn possible(tokens: &[String], merges: &Merges) -> Vec<(usize, usize)> {
    let pairs = tokens.windows(2).enumerate();
    let mut found: Vec<_> = pairs
        .filter_map(|(at, pair)| Some((*merges.get(&(pair[0].clone(), pair[1].clone()))?, at)))
        .collect();
    found.sort_unstable();
    found
}

fn merged(tokens: &[String], at: usize) -> Vec<String> {
    let mut tokens = tokens.to_vec();
    let right = tokens.remove(at + 1);
    tokens[at] += &right;
    tokens
}

fn characters(word: &str) -> Vec<String> {
    word.chars().map(String::from).collect()
}

fn spelled(tokenizer: &Tokenizer, ids: &[u32]) -> Vec<String> {
    ids.iter().map(|&id| tokenizer.token_of(id).unwrap()).collect()
}

/// `a…c` in any order: words without a space in front, of which many merges are possible at many overlapping places.
fn words() -> (Tokenizer, Vec<String>) {
    let mut random = Random(11);
    let mut word = |longest: usize| -> String {
        let length = 1 + random.below(longest);
        (0..length).map(|_| ["a", "b", "c"][random.below(3)]).collect()
    };
    let text: Vec<String> = (0..2000).map(|_| word(9)).collect();
    let tokenizer = train_bpe([text.join("\n")], 330).unwrap();
    (tokenizer, (0..300).map(|_| word(40)).collect())
}

#[test]
fn nothing_left_out_is_the_usual_division() {
    let mut random = Random(3);
    let unusual = [
        "",
        " ",
        "\n\n \n",
        "antidisestablishmentarianism",
        "Llanfairpwllgwyngyll",
        "o'clock's",
        "x²+y²≠漢字",
        "\0\u{7f}\u{a0}",
        "@-@ <unk> <unk>",
        "<|endoftext|> a<|endoftext|>",
        "👩‍🚀👩‍🚀",
        "007 3.14159 1,000,000",
        "  indented\n\tcode();",
    ];
    let mut texts: Vec<String> = unusual.map(String::from).to_vec();
    texts.extend((0..200).map(|i| random.text(1 + i % 50)));
    texts.push("abcabcab".repeat(300));
    let mut tokenizers = vec![train_bpe([sample()], 700).unwrap()];
    if let Some(path) = shared("wikitext-2/valid.txt") {
        let text = std::fs::read_to_string(path).unwrap();
        tokenizers.push(train_bpe([&text], 2000).unwrap());
        texts.extend(text.lines().take(800).map(String::from));
    }
    let gpt2 = shared("tokenizers/gpt2.tokenizer.json");
    tokenizers.extend(gpt2.map(|path| Tokenizer::from_file(path).unwrap()));
    for tokenizer in &tokenizers {
        let none = BpeDropout::new(tokenizer, 0.0, 1).unwrap();
        for text in &texts {
            assert_eq!(
                none.encode(text, START).unwrap(),
                tokenizer.encode(text).unwrap(),
                "{text:?}"
            );
        }
        if tokenizer.is_lossless() {
            // Whatever is left out, the text is the same.
            let half = BpeDropout::new(tokenizer, 0.5, 1).unwrap();
            for text in &texts {
                let ids = half.encode(text, START).unwrap();
                assert_eq!(tokenizer.decode_bytes(&ids).unwrap(), text.as_bytes(), "{text:?}");
            }
        }
    }
}

#[test]
fn everything_left_out_is_bytes() {
    let tokenizer = train_bpe([sample()], 700).unwrap();
    let all = BpeDropout::new(&tokenizer, 1.0, 1).unwrap();
    let text = " the lobster's 漢字 <unk>\n";
    let ids = all.encode(&[text, END_OF_TEXT, "the"].concat(), START).unwrap();
    assert_eq!(ids.len(), text.len() + 1 + 3, "a special token is no word");
    assert_eq!(ids[text.len()], tokenizer.eos().unwrap());
    assert_eq!(tokenizer.decode_bytes(&ids[..text.len()]).unwrap(), text.as_bytes());
}

/// The loop as the paper has it, over the same draws: all possible merges are listed anew before each merge.
#[test]
fn merges_are_left_out_as_defined() {
    let (tokenizer, words) = words();
    let merges = merges(&tokenizer);
    for p in [0.1, 0.5, 0.9] {
        let dropout = BpeDropout::new(&tokenizer, p, 7).unwrap();
        let (mut draws, mut left_out, mut changed) = (0u32, 0u32, 0);
        for (i, word) in words.iter().enumerate() {
            let place = Place {
                pass: 3,
                byte: 1000 * i as u64,
            };
            let key = Key::new(7, PURPOSE, 3 << 48 | place.byte);
            let mut tokens = characters(word);
            let mut draw = 0;
            loop {
                let found = possible(&tokens, &merges).into_iter().find(|_| {
                    let drop = key.uniform(draw) < p;
                    draw += 1;
                    left_out += u32::from(drop);
                    !drop
                });
                let Some((_, at)) = found else { break };
                tokens = merged(&tokens, at);
            }
            draws += draw as u32;
            let ids = dropout.encode(word, place).unwrap();
            changed += usize::from(ids != tokenizer.encode(word).unwrap());
            assert_eq!(spelled(&tokenizer, &ids), tokens, "{word}");
        }
        assert!(changed > words.len() / 5, "{changed}");
        // Five standard deviations of a binomial.
        let (found, n) = (f64::from(left_out) / f64::from(draws), f64::from(draws));
        let p = f64::from(p);
        assert!(
            (found - p).abs() < 5.0 * (p * (1.0 - p) / n).sqrt(),
            "{found} of {n} draws, expected {p}"
        );
    }
}

/// Adds the probability of each end of the loop, over every set of merges that can be left out at each step.
fn enumerate(tokens: &[String], merges: &Merges, p: f64, probability: f64, ends: &mut BTreeMap<Vec<String>, f64>) {
    let possible = possible(tokens, merges);
    for set in 0..1u32 << possible.len() {
        let out = set.count_ones() as i32;
        let weight = probability * p.powi(out) * (1.0 - p).powi(possible.len() as i32 - out);
        match (0..possible.len()).find(|i| set >> i & 1 == 0) {
            Some(best) => enumerate(&merged(tokens, possible[best].1), merges, p, weight, ends),
            None => *ends.entry(tokens.to_vec()).or_default() += weight,
        }
    }
}

#[test]
fn each_division_is_as_likely_as_the_definition_makes_it() {
    let (tokenizer, _) = words();
    let (word, p, n) = ("abcaab", 0.3, 20_000u32);
    let mut expected = BTreeMap::new();
    enumerate(&characters(word), &merges(&tokenizer), f64::from(p), 1.0, &mut expected);
    assert!((expected.values().sum::<f64>() - 1.0).abs() < 1e-9 && expected.len() > 10);
    let mut found: BTreeMap<Vec<String>, u32> = BTreeMap::new();
    let dropout = BpeDropout::new(&tokenizer, p, 5).unwrap();
    for i in 0..n {
        // Half of the places differ in the pass.
        let place = Place {
            pass: (i % 2) as u16,
            byte: u64::from(i / 2),
        };
        let ids = dropout.encode(word, place).unwrap();
        *found.entry(spelled(&tokenizer, &ids)).or_default() += 1;
    }
    for (division, count) in &found {
        let expected = expected.get(division).copied().unwrap_or(0.0);
        assert!(expected > 0.0, "{division:?} cannot be");
        let spread = (expected * (1.0 - expected) / f64::from(n)).sqrt();
        let found = f64::from(*count) / f64::from(n);
        assert!(
            (found - expected).abs() < 5.0 * spread + 1e-4,
            "{division:?}: {found}, expected {expected}"
        );
    }
    let likely = expected.iter().filter(|(_, p)| **p > 1e-3);
    assert!(likely.into_iter().all(|(division, _)| found.contains_key(division)));
}

/// Llama 3 looks a word up whole before any merge; where something is left out there is no such short cut.
#[test]
fn words_that_are_looked_up_whole_are_divided_too() {
    let plain = train_bpe([sample()], 700).unwrap();
    let mut value: Value = serde_json::from_slice(plain.json()).unwrap();
    value["model"]["ignore_merges"] = json!(true);
    let whole = Tokenizer::from_bytes(value.to_string()).unwrap();
    let [of_plain, of_whole] = [&plain, &whole].map(|tokenizer| BpeDropout::new(tokenizer, 0.3, 1).unwrap());
    assert_eq!(
        of_plain.encode(&sample(), START).unwrap(),
        of_whole.encode(&sample(), START).unwrap()
    );
    // A token that no merge makes: it is there as long as nothing is left out.
    let id = whole.vocab_size();
    value["model"]["vocab"]["qzq"] = json!(id);
    value["model"]["merges"].as_array_mut().unwrap().push(json!(["q", "z"]));
    value["model"]["vocab"]["qz"] = json!(id + 1);
    let whole = Tokenizer::from_bytes(value.to_string()).unwrap();
    let dropout = BpeDropout::new(&whole, 0.3, 1).unwrap();
    let divisions: Vec<_> = (0..400)
        .map(|byte| spelled(&whole, &dropout.encode("qzq", Place { pass: 0, byte }).unwrap()))
        .collect();
    let kept = divisions.iter().filter(|division| *division == &["qzq"]).count();
    assert!(
        divisions
            .iter()
            .all(|division| division == &["qzq"] || division == &["q", "z", "q"])
    );
    // The one merge is kept in 280 of 400, standard deviation 9.
    assert!((235..325).contains(&kept), "{kept}");
}

#[test]
fn only_seed_pass_and_place_decide() {
    let tokenizer = train_bpe([sample()], 700).unwrap();
    let text = sample();
    let dropout = BpeDropout::new(&tokenizer, 0.2, 9).unwrap();
    let at = |dropout: &BpeDropout<'_>, pass, byte| dropout.encode(&text, Place { pass, byte }).unwrap();
    let ids = at(&dropout, 1, 77);
    assert_eq!(at(&BpeDropout::new(&tokenizer, 0.2, 9).unwrap(), 1, 77), ids);
    let mut cut = Vec::new();
    let mut byte = 77;
    for piece in tokenizer.split(&text, 500) {
        cut.extend(dropout.encode(piece, Place { pass: 1, byte }).unwrap());
        byte += piece.len() as u64;
    }
    assert_eq!(cut, ids, "a text may be cut at borders");
    let others = [
        at(&dropout, 0, 77),
        at(&dropout, 2, 77),
        at(&dropout, 1, 78),
        at(&BpeDropout::new(&tokenizer, 0.2, 10).unwrap(), 1, 77),
        tokenizer.encode(&text).unwrap(),
    ];
    for (i, other) in others.iter().enumerate() {
        assert!(!others[..i].contains(other) && *other != ids, "{i}");
    }
    // Equal words are divided in more than one way within a text.
    let counts = |ids: &[u32]| {
        ids.iter()
            .filter(|&&id| Some(id) == tokenizer.id_of("Ġlobster"))
            .count()
    };
    let (usual, left) = (counts(&others[4]), counts(&ids));
    assert!(0 < left && left < usual, "{left} of {usual}");
}

#[test]
fn what_has_no_merges_or_no_probability_is_refused() {
    let plain = train_bpe([sample()], 300).unwrap();
    for p in [-0.1, 1.1, f32::NAN, f32::INFINITY] {
        let refused = BpeDropout::new(&plain, p, 0).err();
        assert!(matches!(refused, Some(TokenizerError::DropoutRate { .. })), "{p}");
    }
    let mut prefixed: Value = serde_json::from_slice(plain.json()).unwrap();
    // The library joins the prefix into each merge's result, which is not there.
    prefixed["model"]["merges"] = json!([]);
    prefixed["model"]["continuing_subword_prefix"] = json!("##");
    for (tokenizer, part) in [
        (train_word(["a b c a"], None).unwrap(), "not a plain byte-level BPE"),
        (
            Tokenizer::from_bytes(prefixed.to_string()).unwrap(),
            "not a plain byte-level BPE",
        ),
        (train_whole_words([sample()], 400).unwrap(), "no merges"),
    ] {
        let refused = BpeDropout::new(&tokenizer, 0.1, 0).err().expect("nothing to leave out");
        assert!(refused.to_string().contains(part), "{refused}");
    }
    // A real one that has no token for bytes that UTF-8 hardly uses: the library passes over them.
    if let Some(path) = shared("tokenizers/smollm2.tokenizer.json") {
        let tokenizer = Tokenizer::from_file(path).unwrap();
        let refused = BpeDropout::new(&tokenizer, 0.1, 0).err().expect("bytes are missing");
        assert!(refused.to_string().contains("a token for each byte"), "{refused}");
    }
}
