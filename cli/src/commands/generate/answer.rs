//! One answer, as JSON and for people.

use onebit_model::generation::{Finish, Generated, TokenLogprob};
use onebit_model::tokenizer::Tokenizer;
use serde::Serialize;

/// An answer and what it is an answer to.
pub(super) struct Answer<'a> {
    /// The prompt's place among several.
    pub index: Option<usize>,
    /// The answer's number, where there may be several.
    pub sample: Option<u32>,
    pub prompt: &'a str,
    pub prompt_tokens: usize,
    pub seed: u64,
    pub made: &'a Generated,
    pub tokenizer: &'a Tokenizer,
    /// Whether to tell how likely the tokens were.
    pub logprobs: bool,
}

/// The same as JSON.
#[derive(Serialize)]
pub(super) struct Json<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    index: Option<usize>,
    #[serde(skip_serializing_if = "Option::is_none")]
    sample: Option<u32>,
    prompt: &'a str,
    text: &'a str,
    ids: &'a [u32],
    #[serde(skip_serializing_if = "Option::is_none")]
    logprobs: Option<Vec<Chosen>>,
    tokens: usize,
    prompt_tokens: usize,
    reused_tokens: usize,
    dropped_tokens: usize,
    shifted_tokens: usize,
    drafted_tokens: usize,
    accepted_tokens: usize,
    finish: Finish,
    tok_s: f64,
    ttft_ms: f64,
    seed: u64,
}

/// A token with its probability.
#[derive(Serialize)]
struct Token {
    id: u32,
    token: String,
    logprob: f64,
}

/// A chosen token with the likeliest ones.
#[derive(Serialize)]
struct Chosen {
    #[serde(flatten)]
    chosen: Token,
    top: Vec<Token>,
}

impl<'a> Answer<'a> {
    /// For `--json`.
    pub fn json(&self) -> Json<'a> {
        let made = self.made;
        Json {
            index: self.index,
            sample: self.sample,
            prompt: self.prompt,
            text: &made.text,
            ids: &made.ids,
            logprobs: self.logprobs.then(|| self.chosen()),
            tokens: made.ids.len(),
            prompt_tokens: self.prompt_tokens,
            reused_tokens: made.reused,
            dropped_tokens: made.dropped,
            shifted_tokens: made.shifted,
            drafted_tokens: made.drafted,
            accepted_tokens: made.accepted,
            finish: made.finish,
            tok_s: made.tokens_per_second(),
            ttft_ms: made.first_ms(),
            seed: self.seed,
        }
    }

    /// A line for each token: `" cow"  -0.105  (90.0 %)   " cow" 90.0 %, " hen" 5.1 %`.
    pub fn logprob_lines(&self) -> Vec<String> {
        let percent = |logprob: f64| format!("{:.1} %", 100.0 * logprob.exp());
        let line = |chosen: &Chosen| {
            let top: Vec<String> = (chosen.top.iter())
                .map(|token| format!("{:?} {}", token.token, percent(token.logprob)))
                .collect();
            let Token { token, logprob, .. } = &chosen.chosen;
            let token = format!("{token:?}");
            format!(
                "{token:<16} {logprob:>9.4} {:>8}   {}",
                percent(*logprob),
                top.join(", ")
            )
            .trim_end()
            .to_string()
        };
        self.chosen().iter().map(line).collect()
    }

    fn chosen(&self) -> Vec<Chosen> {
        let token = |token: &TokenLogprob| Token {
            id: token.id,
            token: self.spelling(token.id),
            logprob: token.logprob,
        };
        let all = self.made.logprobs.iter();
        all.map(|logprobs| Chosen {
            chosen: token(&logprobs.chosen),
            top: logprobs.top.iter().map(token).collect(),
        })
        .collect()
    }

    /// A token by itself: its text, or what stands for it in the vocabulary if it is none.
    fn spelling(&self, id: u32) -> String {
        let bytes = self.tokenizer.decode_bytes(&[id]).unwrap_or_default();
        match bytes.is_empty() || self.tokenizer.is_special(id) {
            true => self.tokenizer.token_of(id).unwrap_or_default(),
            false => String::from_utf8_lossy(&bytes).into_owned(),
        }
    }
}
