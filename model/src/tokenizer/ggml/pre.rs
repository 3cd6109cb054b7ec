//! The named ways of dividing a text into words, `tokenizer.ggml.pre`.
//!
//! A name stands for a list of regular expressions. Each is applied to what the one before it gave: what matches becomes a word, and so does
//! what stands between two matches. The names and expressions are those of llama.cpp (`src/llama-vocab.cpp`), in the spelling that the models'
//! own `tokenizer.json` files use.

use serde_json::{Value, json};

use crate::bpe::byte_level;
use crate::bpe::words::{DIGIT, GPT2, LLAMA3, QWEN2, WORDS};

/// Other spellings of the same expressions.
const ALIASES: &[(&str, &str)] = &[
    (
        r"'(?:[sdmt]|ll|ve|re)| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+",
        GPT2,
    ),
    (
        r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)",
        GPT2,
    ),
    (
        r"(?:'[sS]|'[tT]|'[rR][eE]|'[vV][eE]|'[mM]|'[lL][lL]|'[dD])|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+",
        LLAMA3,
    ),
    (
        r"(?:'[sS]|'[tT]|'[rR][eE]|'[vV][eE]|'[mM]|'[lL][lL]|'[dD])|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+",
        QWEN2,
    ),
];

/// A way of dividing text.
pub(super) struct Pre {
    /// Its names; the first is written.
    pub names: &'static [&'static str],
    /// The expressions, first to last.
    pub steps: &'static [&'static str],
    /// Whether a word that is a token is that token, whatever the merges.
    pub ignore_merges: bool,
    /// Whether a text begins with the bos token where the file does not say.
    pub add_bos: bool,
    /// Whether the models' own tokenizers bring text into Unicode's composed form first, which no GGUF file says and llama.cpp does not do.
    pub composes: bool,
}

const fn pre(names: &'static [&'static str], steps: &'static [&'static str]) -> Pre {
    Pre {
        names,
        steps,
        ignore_merges: false,
        add_bos: false,
        composes: false,
    }
}

/// Every known one. Where two divide alike, the first is written.
static KNOWN: &[Pre] = &[
    pre(
        &[
            "gpt-2",
            "phi-2",
            "jina-es",
            "jina-de",
            "jina-v2-es",
            "jina-v2-de",
            "gigachat",
            "mellum",
            "mpt",
            "olmo",
            "jais",
            "trillion",
        ],
        &[GPT2],
    ),
    Pre {
        ignore_merges: true,
        add_bos: true,
        ..pre(
            &[
                "llama-bpe",
                "llama3",
                "llama-v3",
                "falcon3",
                "falcon-h1",
                "pixtral",
                "lfm2",
            ],
            &[LLAMA3],
        )
    },
    pre(&["dbrx", "smaug-bpe"], &[LLAMA3]),
    Pre {
        composes: true,
        ..pre(
            &["qwen2", "deepseek-r1-qwen", "megrez", "stablelm2", "hunyuan"],
            &[QWEN2],
        )
    },
    pre(
        &[
            "smollm",
            "starcoder",
            "refact",
            "command-r",
            "codeshell",
            "exaone",
            "minerva-7b",
        ],
        &[DIGIT, GPT2],
    ),
    pre(&["falcon"], &[r"[\p{P}\$\+<=>\^~\|`]+", GPT2, "[0-9][0-9][0-9]"]),
    pre(
        &["default"],
        &[r"[\p{P}\$\+<=>\^~\|]+", GPT2, r"\p{N}+", "[0-9][0-9][0-9]"],
    ),
];

/// The one of a name.
pub(super) fn find(name: &str) -> Option<&'static Pre> {
    KNOWN.iter().find(|pre| pre.names.contains(&name))
}

/// Those that divide a text as the `pre_tokenizer` of a `tokenizer.json` does.
pub(super) fn matching(pre_tokenizer: &Value) -> Option<Vec<&'static Pre>> {
    let steps = steps(pre_tokenizer)?;
    let found: Vec<_> = KNOWN.iter().filter(|pre| pre.steps == steps).collect();
    (!found.is_empty()).then_some(found)
}

/// Those that divide a text as our own trainer does, but for tags such as `<unk>`, which it keeps whole.
pub(super) fn matching_but_for_tags(pre_tokenizer: &Value) -> Option<Vec<&'static Pre>> {
    let found = || KNOWN.iter().filter(|pre| pre.steps == [GPT2]).collect();
    (steps(pre_tokenizer)? == [WORDS]).then(found)
}

/// Whether a token of this spelling may join what GPT-2's division keeps apart inside of a tag: letters, and the signs around them. Where none
/// does, no merge crosses those places, and a tag has the same ids whole and divided.
pub(super) fn joins_in_tags(spelling: &str) -> bool {
    let mut bytes = Vec::new();
    byte_level::push(spelling, &mut bytes);
    // Of a part of a character it is not known here whether it is a letter.
    let letter = |byte: &u8| byte.is_ascii_alphabetic() || !byte.is_ascii();
    bytes.iter().any(letter) && bytes.iter().any(|byte| b"<|>_".contains(byte))
}

/// All names, for messages.
pub(super) fn known() -> String {
    let names: Vec<&str> = KNOWN.iter().flat_map(|pre| pre.names).copied().collect();
    names.join(", ")
}

impl Pre {
    /// The `pre_tokenizer` of a `tokenizer.json`.
    pub(super) fn json(&self) -> Value {
        let split =
            |step: &&str| json!({"type": "Split", "pattern": {"Regex": step}, "behavior": "Isolated", "invert": false});
        let byte_level = |use_regex: bool| json!({"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": use_regex});
        let (steps, last) = match self.steps {
            // GPT-2's expression is built into the byte-level step.
            [steps @ .., last] if *last == GPT2 => (steps, byte_level(true)),
            steps => (steps, byte_level(false)),
        };
        let mut all: Vec<Value> = steps.iter().map(split).collect();
        match all.is_empty() {
            true => last,
            false => {
                all.push(last);
                json!({"type": "Sequence", "pretokenizers": all})
            }
        }
    }
}

/// The expressions of a pre-tokeniser that ends in bytes; `None` where it does anything else than divide by expressions.
fn steps(pre: &Value) -> Option<Vec<String>> {
    let all = match pre["type"].as_str()? {
        "Sequence" => pre["pretokenizers"].as_array()?.as_slice(),
        _ => std::slice::from_ref(pre),
    };
    let (last, before) = all.split_last()?;
    if last["type"] != "ByteLevel" {
        return None;
    }
    let mut steps = Vec::new();
    for step in before.iter().chain([last]) {
        match step["type"].as_str()? {
            "Split" if step["behavior"] == "Isolated" && step["invert"] != true => {
                let regex = step["pattern"]["Regex"].as_str()?;
                let alias = ALIASES.iter().find(|(other, _)| *other == regex);
                steps.push(alias.map_or(regex, |(_, regex)| regex).to_owned());
            }
            "Digits" if step["individual_digits"] == true => steps.push(DIGIT.to_owned()),
            "ByteLevel" if step["add_prefix_space"] == false => {
                // Absent means true.
                if step["use_regex"] != false {
                    steps.push(GPT2.to_owned());
                }
            }
            _ => return None,
        }
    }
    Some(steps)
}
