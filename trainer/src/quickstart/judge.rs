//! Packing the model, and judging what was packed.

use std::path::Path;

use onebit_engine::Isa;
use onebit_model::files::{Extras, HighPrecision, save_packed};
use onebit_model::network::Network;
use onebit_model::runtime::{FloatStorage, KvType, PackedModel, Serial, Session, SessionOptions};
use onebit_model::sampling::{Sampler, SamplingParams};
use onebit_model::tokenizer::Tokenizer;
use rayon::prelude::*;
use serde::Serialize;

use super::{generation, packed_directory};
use crate::evaluate::score;
use crate::stories::{Grammar, Split, stream};
use crate::{Result, TrainError};

/// Unseen stories that are scored.
const SCORED: usize = 300;
/// Stories that the model tells and the grammar reads.
const TOLD: usize = 100;
/// Longest story told, in tokens.
const LONGEST: usize = 150;

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

    let mut random = stream(seed, Split::HeldOut);
    let stories: Vec<_> = (0..SCORED).map(|_| grammar.generate(&mut random)).collect();
    let bits: f64 = stories.iter().map(|s| -s.log2_probability).sum();
    let bytes: usize = stories.iter().map(|s| s.text.len() + 1).sum();
    // Each story by itself: a line break, which is context, the story, and the line break that ends it.
    let context = model.config().max_position_embeddings;
    let mut nats = 0.0;
    for story in &stories {
        let ids = tokenizer.encode(&format!("\n{}\n", story.text)).map_err(failed)?;
        nats += score(&model, isa, &ids, (context, context), KvType::F32, &|_| ())?.nats;
    }

    let told = (0..TOLD as u64)
        .into_par_iter()
        .map(|i| tell_story(&model, isa, tokenizer, seed.wrapping_add(i), &mut |_| ()))
        .collect::<Result<Vec<_>>>()?;
    let rejected: Vec<_> = told
        .into_iter()
        .filter_map(|s| grammar.parse(&s).err().map(|e| (s, e.to_string())))
        .collect();
    let verdict = Verdict {
        bpb: nats / std::f64::consts::LN_2 / bytes as f64,
        entropy_bpb: bits / bytes as f64,
        valid_fraction: 1.0 - rejected.len() as f64 / TOLD as f64,
        packed_bytes: model.bytes().total(),
        rejected,
    };
    Ok((model, verdict))
}

/// Lets the model tell a story, piece by piece, with the settings that it ships with.
///
/// # Errors
/// Anything that the packed runtime refuses.
pub fn tell_story(
    model: &PackedModel,
    isa: Isa,
    tokenizer: &Tokenizer,
    seed: u64,
    piece: &mut dyn FnMut(&str),
) -> Result<String> {
    let settings = generation(tokenizer);
    let defaults = SamplingParams::default();
    let params = SamplingParams {
        temperature: settings.temperature.unwrap_or(defaults.temperature),
        top_k: settings.top_k.map_or(defaults.top_k, |k| k as usize),
        top_p: settings.top_p.unwrap_or(defaults.top_p),
        repetition_penalty: settings.repetition_penalty.unwrap_or(defaults.repetition_penalty),
        seed,
        ..defaults
    };
    let mut sampler = Sampler::new(params, model.config().vocab_size).map_err(failed)?;
    let context = model.config().max_position_embeddings;
    let mut session = Session::new(model, Serial, isa, SessionOptions::new(context)).map_err(failed)?;
    let mut ids = tokenizer.encode("\n").map_err(failed)?;
    let mut stream = tokenizer.stream(true);
    let mut story = String::new();
    let mut logits = session.prefill(&ids).map_err(failed)?.to_vec();
    while ids.len() < LONGEST.min(context) {
        let id = sampler.sample(&mut logits, &ids).map_err(failed)?;
        let text = stream.push(id).map_err(failed)?;
        if let Some(end) = text.find('\n') {
            piece(&text[..end]);
            story.push_str(&text[..end]);
            return Ok(story);
        }
        piece(&text);
        story.push_str(&text);
        ids.push(id);
        logits.copy_from_slice(session.decode(id).map_err(failed)?);
    }
    Ok(story)
}
