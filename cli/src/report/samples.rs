//! What the model of a run says, drawn with seeds that are told.

use std::path::Path;

use onebit_model::config::LinearMode;
use onebit_model::files::{ModelSource, Recast};
use onebit_model::generation::{Finish, GeneratorOptions, Request};
use onebit_model::runtime::{FloatStorage, KvType, PackedModel};
use onebit_model::sampling::{Sampler, StopStrings};
use serde::Serialize;

use crate::device::Placement;
use crate::generation::{Given, generator};
use crate::model::ModelDirectory;
use crate::{CliError, Result, interrupt};

/// A model that is not ternary yet.
fn in_full_precision(source: &dyn ModelSource) -> Result<Recast<'_>> {
    Ok(Recast::new(source, |_| LinearMode::F16)?)
}

/// What is asked for.
pub(crate) struct Samples {
    pub count: u32,
    /// Tokens of each at most.
    pub max_tokens: usize,
    pub prompt: String,
    /// Of the first.
    pub seed: u64,
}

/// A text.
#[derive(Debug, Serialize)]
pub(crate) struct Sample {
    seed: u64,
    prompt: String,
    pub text: String,
}

/// Texts of the model in `directory`, as it is packed or with its linears in `full_precision`, on the CPU of `place`: there they are the same everywhere.
pub(crate) fn sample(
    directory: &Path,
    wanted: &Samples,
    full_precision: bool,
    mut place: Placement,
) -> Result<Vec<Sample>> {
    let model = ModelDirectory::open(directory)?;
    let given = |seed| Given {
        temperature: None,
        top_k: None,
        top_p: None,
        min_p: None,
        repetition_penalty: None,
        seed: Some(seed),
    };
    let tokenizer = model.tokenizer()?;
    let packed = match full_precision {
        true => PackedModel::from_source(&in_full_precision(model.source())?, FloatStorage::Stored)?,
        false => model.load(FloatStorage::Stored)?,
    };
    let config = packed.config().clone();
    let ids = model.prompt(&config, &tokenizer, &wanted.prompt)?;
    let context = ids
        .len()
        .saturating_add(wanted.max_tokens)
        .clamp(1, config.max_position_embeddings);
    let options = GeneratorOptions {
        isa: place.isa,
        threads: place.threads,
        context,
        lookahead: None,
        exact_head: false,
        kv: KvType::default(),
    };
    let first = Sampler::new(given(wanted.seed).resolve(&model.generation)?, config.vocab_size)?;
    let mut generator = generator(&mut place, &model, packed, tokenizer, &first, options)?;
    let mut samples = Vec::new();
    for i in 0..u64::from(wanted.count) {
        let seed = wanted.seed.wrapping_add(i);
        let mut sampler = Sampler::new(given(seed).resolve(&model.generation)?, config.vocab_size)?;
        let request = Request {
            prompt: &ids,
            max_tokens: wanted.max_tokens,
            logprobs: None,
        };
        let mut stops = StopStrings::new(Vec::<String>::new())
            .map_err(|_| CliError::Failed("an empty stop; report this".into()))?;
        let mut text = String::new();
        let made =
            generator.generate::<CliError>(request, &mut sampler, &mut stops, interrupt::poll(), &mut |piece| {
                text.push_str(piece);
                Ok(())
            })?;
        if made.finish == Finish::Interrupted {
            return Err(CliError::Interrupted("interrupted".into()));
        }
        samples.push(Sample {
            seed,
            prompt: wanted.prompt.clone(),
            text,
        });
    }
    Ok(samples)
}
