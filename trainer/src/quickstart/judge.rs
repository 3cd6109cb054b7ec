//! Packing the model, and judging what was packed.

use std::path::Path;

use onebit_model::files::{Extras, HighPrecision, save_packed};
use onebit_model::network::Network;
use onebit_model::runtime::{FloatStorage, PackedModel};
use onebit_model::sampling::SamplingParams;
use onebit_model::tokenizer::Tokenizer;
use serde::Serialize;

use super::{generation, packed_directory};
use crate::evaluate::StoryTeller;
use crate::evaluate::stories::valid_fraction;
use crate::stories::Grammar;
use crate::{Result, TrainError};

/// What the packed model is worth.
#[derive(Clone, Debug, Serialize)]
pub struct Verdict {
    /// Bits per byte of the packed model on unseen stories.
    pub bpb: f64,
    /// Bits per byte of the grammar itself on the same stories: no model can do better on average.
    pub entropy_bpb: f64,
    /// Share of the told stories that the grammar accepts as consistent.
    pub valid_fraction: f64,
    /// Bytes of the packed model's weights in memory.
    pub packed_bytes: usize,
    /// Told stories that were not accepted, with the reason.
    #[serde(skip)]
    pub rejected: Vec<(String, String)>,
}

fn failed(e: impl ToString) -> TrainError {
    TrainError::Runtime(e.to_string())
}

/// Packs `network` into `directory/packed`, loads it from there, and measures it.
///
/// # Errors
/// A disk that is full; anything that the packed runtime refuses.
pub fn judge(
    network: &Network,
    tokenizer: &Tokenizer,
    grammar: &Grammar,
    directory: &Path,
    seed: u64,
) -> Result<(PackedModel, Verdict)> {
    let packed = packed_directory(directory);
    let sampling = generation(tokenizer);
    let extras = Extras {
        tokenizer: Some(tokenizer.json()),
        generation: Some(&sampling),
    };
    save_packed(
        &packed,
        network.config(),
        &network.named_tensors()?,
        extras,
        HighPrecision::F16,
    )?;
    let (model, _) = PackedModel::open(&packed, FloatStorage::Stored).map_err(failed)?;
    let isa = network.device().isa();

    let params = sampling_params(tokenizer);
    let teller = StoryTeller {
        model: &model,
        isa,
        tokenizer,
        params: &params,
    };
    let (bpb, entropy_bpb) = teller.code(grammar, seed)?;
    let rejected = teller.rejected(grammar, seed)?;
    let verdict = Verdict {
        bpb,
        entropy_bpb,
        valid_fraction: valid_fraction(&rejected),
        packed_bytes: model.bytes().total(),
        rejected,
    };
    Ok((model, verdict))
}

/// The settings that the model ships with.
pub fn sampling_params(tokenizer: &Tokenizer) -> SamplingParams {
    let settings = generation(tokenizer);
    let defaults = SamplingParams::default();
    SamplingParams {
        temperature: settings.temperature.unwrap_or(defaults.temperature),
        top_k: settings.top_k.map_or(defaults.top_k, |k| k as usize),
        top_p: settings.top_p.unwrap_or(defaults.top_p),
        repetition_penalty: settings.repetition_penalty.unwrap_or(defaults.repetition_penalty),
        ..defaults
    }
}
