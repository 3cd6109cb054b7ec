//! The tokenizer's keys, read and written.

use super::container::Gguf;
use super::error::GgufError;
use super::keys::{self, Keys};
use super::value::Value;
use super::write::Metadata;
use crate::config::ModelConfig;
use crate::files::GenerationConfig;
use crate::tokenizer::{BYTE_LEVEL, DEFAULT_PRE, GgmlVocabulary, Tokenizer, TokenizerError};

pub(super) const MODEL: &str = "tokenizer.ggml.model";
pub(super) const PRE: &str = "tokenizer.ggml.pre";
pub(super) const TOKENS: &str = "tokenizer.ggml.tokens";
pub(super) const SCORES: &str = "tokenizer.ggml.scores";
pub(super) const TOKEN_TYPES: &str = "tokenizer.ggml.token_type";
pub(super) const MERGES: &str = "tokenizer.ggml.merges";
pub(super) const BOS: &str = "tokenizer.ggml.bos_token_id";
pub(super) const EOS: &str = "tokenizer.ggml.eos_token_id";
pub(super) const EOT: &str = "tokenizer.ggml.eot_token_id";
pub(super) const EOM: &str = "tokenizer.ggml.eom_token_id";
pub(super) const UNKNOWN: &str = "tokenizer.ggml.unknown_token_id";
pub(super) const PADDING: &str = "tokenizer.ggml.padding_token_id";
pub(super) const ADD_BOS: &str = "tokenizer.ggml.add_bos_token";
pub(super) const ADD_EOS: &str = "tokenizer.ggml.add_eos_token";
pub(super) const ADD_SPACE: &str = "tokenizer.ggml.add_space_prefix";
pub(super) const CHAT_TEMPLATE: &str = "tokenizer.chat_template";
/// `tokenizer.json`, for a tokenizer that ggml has no form for.
pub(super) const HUGGING_FACE: &str = "tokenizer.huggingface.json";

/// The keys that are known. The last ones name tokens and tables that change nothing about what is computed here.
pub(super) const KEYS: [&str; 31] = [
    MODEL,
    PRE,
    TOKENS,
    SCORES,
    TOKEN_TYPES,
    MERGES,
    BOS,
    EOS,
    EOT,
    EOM,
    UNKNOWN,
    PADDING,
    ADD_BOS,
    ADD_EOS,
    ADD_SPACE,
    CHAT_TEMPLATE,
    HUGGING_FACE,
    "tokenizer.chat_templates",
    "tokenizer.ggml.added_tokens",
    "tokenizer.ggml.cls_token_id",
    "tokenizer.ggml.fim_mid_token_id",
    "tokenizer.ggml.fim_pad_token_id",
    "tokenizer.ggml.fim_pre_token_id",
    "tokenizer.ggml.fim_rep_token_id",
    "tokenizer.ggml.fim_sep_token_id",
    "tokenizer.ggml.fim_suf_token_id",
    "tokenizer.ggml.mask_token_id",
    "tokenizer.ggml.seperator_token_id",
    "tokenizer.ggml.token_type_count",
    "tokenizer.ggml.remove_extra_whitespaces",
    "tokenizer.ggml.add_sep_token",
];

/// Whether a key that begins with `tokenizer.` is known. Further templates have names of their own.
pub(super) fn is_known(key: &str) -> bool {
    KEYS.contains(&key) || key.starts_with("tokenizer.chat_template.")
}

/// Tokens that the configuration names.
pub(super) struct SpecialIds {
    /// The token put before a text: none where the file says that none is put.
    pub bos: Option<u32>,
    /// Tokens that end a text.
    pub eos: Vec<u32>,
}

/// The tokens before and after a text.
pub(super) fn special_ids(keys: Keys<'_>) -> Result<SpecialIds, GgufError> {
    let spm = keys.text(MODEL)? == Some("llama");
    let bos = match keys.bool(ADD_BOS)?.unwrap_or(spm) {
        true => keys.id(BOS)?,
        false => None,
    };
    let eos = match keys.u32s(keys::EOS_IDS)? {
        Some(ids) => ids,
        None => {
            let mut ids = Vec::new();
            for key in [EOS, EOT, EOM] {
                ids.extend(keys.id(key)?.filter(|id| !ids.contains(id)));
            }
            ids
        }
    };
    Ok(SpecialIds { bos, eos })
}

/// `tokenizer.ggml.model` of a file without a vocabulary that ggml's programs could use.
const NO_MODEL: &str = "none";

impl Gguf {
    /// The vocabulary under ggml's keys, as it stands there; `None` where the file has none. A file may hold one and no model.
    ///
    /// # Errors
    /// A [`GgufError`] for a key that is missing or of another type.
    pub fn vocabulary(&self) -> Result<Option<GgmlVocabulary>, GgufError> {
        let keys = Keys { gguf: self };
        let Some(model) = keys.text(MODEL)?.filter(|&model| model != NO_MODEL) else {
            return Ok(None);
        };
        let Some(tokens) = keys.texts(TOKENS)? else {
            return Err(GgufError::MissingKey {
                key: TOKENS.to_string(),
            });
        };
        Ok(Some(GgmlVocabulary {
            model: model.to_string(),
            pre: keys.text(PRE)?.map(str::to_string),
            tokens,
            scores: keys.f32s(SCORES)?.unwrap_or_default(),
            token_types: keys.i32s(TOKEN_TYPES)?.unwrap_or_default(),
            merges: keys.texts(MERGES)?.unwrap_or_default(),
            bos: keys.id(BOS)?,
            eos: keys.id(EOS)?,
            unknown: keys.id(UNKNOWN)?,
            padding: keys.id(PADDING)?,
            add_bos: keys.bool(ADD_BOS)?,
            add_eos: keys.bool(ADD_EOS)?,
            add_space_prefix: keys.bool(ADD_SPACE)?,
        }))
    }
}

/// The tokenizer of a file, if it has one: from ggml's keys, or from the `tokenizer.json` in it.
pub(super) fn read(keys: Keys<'_>) -> Result<Option<Tokenizer>, GgufError> {
    let refused = |e: TokenizerError| GgufError::Tokenizer(e.to_string());
    let tokenizer = match keys.gguf.vocabulary()? {
        Some(vocabulary) => Some(Tokenizer::from_ggml(&vocabulary)),
        None => keys.text(HUGGING_FACE)?.map(Tokenizer::from_bytes),
    };
    tokenizer.transpose().map_err(refused)
}

/// What is taken for granted where a file does not say how text is divided into words. It is what the programs that made such files do
/// with them (those of BitNet b1.58 2B4T are of that kind), but they cannot know it either.
pub(super) fn note(keys: Keys<'_>) -> Result<Option<String>, GgufError> {
    let unsaid = keys.text(MODEL)? == Some(BYTE_LEVEL) && !keys.gguf.metadata().contains_key(PRE);
    Ok(unsaid.then(|| {
        format!(
            "{PRE} is absent: text is divided into words by {DEFAULT_PRE:?}, as llama.cpp does then; where the model was trained with \
             another division, some texts get other tokens"
        )
    }))
}

/// Checks what is not read on opening: that there is a token for each row of the embedding, as ggml's programs take it, and that the template is a
/// text.
pub(super) fn check(keys: Keys<'_>, rows: usize) -> Result<(), GgufError> {
    keys.text(CHAT_TEMPLATE)?;
    match keys.gguf.metadata().get(TOKENS) {
        Some(Value::Array(tokens)) if tokens.count != rows => Err(GgufError::Value {
            key: TOKENS.to_string(),
            expected: format!("{rows} tokens, one for each row of token_embd.weight"),
            found: tokens.count.to_string(),
        }),
        _ => Ok(()),
    }
}

/// Whether a file has a tokenizer.
pub(super) fn exists(keys: Keys<'_>) -> bool {
    let named = keys
        .text(MODEL)
        .is_ok_and(|model| model.is_some_and(|model| model != NO_MODEL));
    named || keys.gguf.metadata().contains_key(HUGGING_FACE)
}

/// What is put into a file beside the vocabulary itself.
pub(super) struct Texts<'a> {
    pub config: &'a ModelConfig,
    pub generation: Option<&'a GenerationConfig>,
    pub tokenizer: Option<&'a Tokenizer>,
    pub chat_template: Option<&'a str>,
}

/// Writes the tokenizer, the tokens before and after a text, and the chat template. Returns a note where the tokenizer is one that
/// ggml's programs cannot run.
pub(super) fn write(out: &mut Metadata, texts: &Texts<'_>) -> Result<Option<String>, GgufError> {
    let config = texts.config;
    let (vocabulary, note) = match texts.tokenizer {
        None => (None, None),
        Some(tokenizer) => match tokenizer.to_ggml() {
            Ok(mut vocabulary) => {
                let padded = vocabulary.pad_to(config.vocab_size);
                padded.map_err(|e| GgufError::Tokenizer(e.to_string()))?;
                (Some(vocabulary), None)
            }
            Err(e) => {
                let note = format!("the tokenizer is in the file as tokenizer.json, for this program alone: {e}");
                (None, Some(note))
            }
        },
    };
    match &vocabulary {
        Some(vocabulary) => write_vocabulary(out, vocabulary),
        None => {
            out.text(MODEL, NO_MODEL);
            if let Some(tokenizer) = texts.tokenizer {
                let json = std::str::from_utf8(tokenizer.json());
                out.text(
                    HUGGING_FACE,
                    json.map_err(|_| GgufError::Utf8 {
                        what: "tokenizer.json".to_string(),
                    })?,
                );
            }
        }
    }
    let generation = texts.generation;
    // Models put it there only where model and tokenizer name the same one.
    let wanted = generation.and_then(|g| g.bos_token_id).or(config.bos_token_id);
    let known = vocabulary.as_ref().map_or(wanted, |vocabulary| vocabulary.bos);
    if let Some(bos) = known.or(wanted) {
        out.u32(BOS, bos);
    }
    out.bool(ADD_BOS, wanted.is_some() && wanted == known);
    let mut ends = config.eos_token_ids.clone();
    ends.extend(generation.iter().flat_map(|g| &g.eos_token_ids));
    if ends.is_empty() {
        ends.extend(vocabulary.as_ref().and_then(|vocabulary| vocabulary.eos));
    }
    let mut seen = Vec::new();
    ends.retain(|id| {
        !seen.contains(id) && {
            seen.push(*id);
            true
        }
    });
    for (key, &id) in [EOS, EOT, EOM].iter().zip(&ends) {
        out.u32(key, id);
    }
    if ends.len() > 3 || ends != config.eos_token_ids {
        out.u32s(keys::EOS_IDS, &config.eos_token_ids);
    }
    if let Some(template) = texts.chat_template {
        out.text(CHAT_TEMPLATE, template);
    }
    Ok(note)
}

fn write_vocabulary(out: &mut Metadata, vocabulary: &GgmlVocabulary) {
    out.text(MODEL, &vocabulary.model);
    if let Some(pre) = &vocabulary.pre {
        out.text(PRE, pre);
    }
    out.texts(TOKENS, &vocabulary.tokens);
    if !vocabulary.scores.is_empty() {
        out.f32s(SCORES, &vocabulary.scores);
    }
    if !vocabulary.token_types.is_empty() {
        out.i32s(TOKEN_TYPES, &vocabulary.token_types);
    }
    if !vocabulary.merges.is_empty() {
        out.texts(MERGES, &vocabulary.merges);
    }
    for (key, id) in [(UNKNOWN, vocabulary.unknown), (PADDING, vocabulary.padding)] {
        if let Some(id) = id {
            out.u32(key, id);
        }
    }
    for (key, truth) in [(ADD_EOS, vocabulary.add_eos), (ADD_SPACE, vocabulary.add_space_prefix)] {
        if let Some(truth) = truth {
            out.bool(key, truth);
        }
    }
}
