//! What `generate` and `chat` share: sampling options, the generator on its device, and what is said when a text outgrows the context.

use onebit_model::files::GenerationConfig;
use onebit_model::generation::{Generated, Generator, GeneratorOptions};
use onebit_model::runtime::PackedModel;
use onebit_model::sampling::{Sampler, SamplingParams, StopStrings};
use onebit_model::tokenizer::Tokenizer;

use crate::device::Placement;
use crate::model::ModelDirectory;
use crate::{CliError, Result, output};

/// Tokens generated when neither the command line nor the model says how many.
pub(crate) const MAX_TOKENS: usize = 100;

/// Sampling as given on the command line; what is not given comes from the model, and otherwise from [`SamplingParams::default`].
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Given {
    pub temperature: Option<f32>,
    pub top_k: Option<usize>,
    pub top_p: Option<f32>,
    pub min_p: Option<f32>,
    pub repetition_penalty: Option<f32>,
    pub seed: Option<u64>,
}

impl Given {
    /// The parameters, checked.
    pub(crate) fn resolve(&self, model: &GenerationConfig) -> Result<SamplingParams> {
        let default = SamplingParams::default();
        // A `top_p` of 0 is what some models write for "only the likeliest token".
        let params = SamplingParams {
            temperature: self.temperature.or(model.temperature).unwrap_or(default.temperature),
            top_k: self.top_k.or(model.top_k.map(|k| k as usize)).unwrap_or(default.top_k),
            top_p: self.top_p.or(model.top_p.filter(|p| *p > 0.0)).unwrap_or(default.top_p),
            min_p: self.min_p.or(model.min_p).unwrap_or(default.min_p),
            repetition_penalty: self
                .repetition_penalty
                .or(model.repetition_penalty)
                .unwrap_or(default.repetition_penalty),
            seed: self.seed.unwrap_or(default.seed),
        };
        params.validate().map_err(|e| CliError::Usage(e.to_string()))?;
        Ok(params)
    }
}

/// What ends a text, besides the model's own tokens.
pub(crate) fn stops(texts: impl IntoIterator<Item = String>) -> Result<StopStrings> {
    StopStrings::new(texts).map_err(|_| CliError::Usage("--stop: an empty text would end at once; leave it out".into()))
}

/// A generator on the GPU that was chosen, or on the CPU.
pub(crate) fn generator(
    place: &mut Placement,
    directory: &ModelDirectory,
    model: PackedModel,
    tokenizer: Tokenizer,
    sampler: &Sampler,
    options: GeneratorOptions,
) -> Result<Generator> {
    let ends = directory.end_tokens(model.config(), &tokenizer);
    let mut generator = match place.upload(&model, options.context, options.kv)? {
        #[cfg(feature = "cuda")]
        Some(cuda) => Generator::on_gpu(&cuda, &model, tokenizer, ends, options)?,
        None => Generator::new(model, tokenizer, ends, sampler, options)?,
    };
    generator.suppress(&directory.generation.suppress_tokens);
    Ok(generator)
}

/// Says that tokens were let go, if any were: a text that is not read whole may be answered as if it said something else.
pub(crate) fn note_dropped(made: &Generated, context: usize) {
    let Generated { dropped, shifted, .. } = made;
    let what = match (dropped, shifted) {
        (0, 0) => return,
        (dropped, 0) => format!("the oldest {dropped} tokens of the prompt were not read"),
        (0, shifted) => format!("the oldest {shifted} tokens were dropped while the text went on"),
        (dropped, shifted) => {
            format!(
                "the oldest {dropped} tokens of the prompt were not read, and {shifted} more were dropped while the text went on"
            )
        }
    };
    output::note(&format!(
        "note: the context of {context} tokens is full: {what}; only the most recent count"
    ));
}
