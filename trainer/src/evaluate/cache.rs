//! A neural cache (Grave, Joulin and Usunier 2017, *Improving neural language models with a continuous cache*): what was read not long ago is likely to come again
//! where the model is in a like state.
//!
//! ```text
//! p(w) = (1 − λ)·p_model(w) + λ·p_cache(w)      p_cache(w) ∝ Σ_{i of the last N tokens, word i = w} exp(θ·√n·cos(h_i, h))
//! ```
//! `h_i`, of `n` values, is what the head multiplied before word i came. The cosine in the place of the product makes θ mean the same for models of every width and scale. The model itself does
//! not change.

use onebit_engine::ops::matmul::{Layout, matmul};
use onebit_engine::{Device, Isa, Tensor};
use onebit_model::evaluation::{Score, Text, each_window, surprise};
use onebit_model::runtime::{KvType, PackedModel, Serial, Session};
use rayon::prelude::*;

use super::failed;
use crate::{Result, TrainError};

/// Targets that are compared with the cache together.
const TOGETHER: usize = 64;

/// How much of the past is kept, and how it is weighed.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct NeuralCache {
    /// N: words that are remembered, at least 1.
    pub size: usize,
    /// θ: how much more a like state counts, at least 0.
    pub theta: f32,
    /// λ: the cache's share, in `[0, 1)`.
    pub weight: f64,
}

impl NeuralCache {
    fn check(&self) -> Result<()> {
        let refuse = |option, why: &str| {
            Err(TrainError::Option {
                option,
                why: why.into(),
            })
        };
        if self.size == 0 {
            return refuse("cache", "must be at least 1 token");
        }
        if !(self.theta >= 0.0 && self.theta.is_finite()) {
            return refuse("cache-theta", "must be a number of at least 0");
        }
        if !(0.0..1.0).contains(&self.weight) {
            return refuse("cache-weight", "must be at least 0 and below 1");
        }
        Ok(())
    }
}

/// What a window tells of its targets.
struct Told {
    /// Head inputs of unit length, `[targets, hidden]`.
    states: Vec<f32>,
    /// Nats of each target.
    nats: Vec<f64>,
}

/// As [`score`](onebit_model::evaluation::score), with a neural cache over the tokens before each.
///
/// # Errors
/// As [`score`](onebit_model::evaluation::score); a cache that cannot be.
pub fn score_with_cache(
    model: &PackedModel,
    isa: Isa,
    ids: &[u32],
    (context, stride): (usize, usize),
    kv: KvType,
    cache: NeuralCache,
    progress: &(dyn Fn(u64) + Sync),
) -> Result<Score> {
    cache.check()?;
    let text = Text::new(model.config(), ids, (context, stride))?;
    let windows = each_window(model, isa, &text, kv, progress, |session, window| {
        let told = read(&text, session, window)?;
        let scored = told.nats.len() as u64;
        Ok::<_, TrainError>((told, scored))
    })?;
    let hidden = model.config().hidden_size;
    let mut all = Told {
        states: Vec::with_capacity(text.targets() * hidden),
        nats: Vec::with_capacity(text.targets()),
    };
    for window in windows {
        all.states.extend(window.states);
        all.nats.extend(window.nats);
    }
    let sums: Vec<f64> = (0..text.targets())
        .into_par_iter()
        .step_by(TOGETHER)
        .map(|first| mixed(&text, &all, hidden, cache, first))
        .collect::<Result<_>>()?;
    Ok(text.score(&sums))
}

fn read(text: &Text<'_>, session: &mut Session<&PackedModel, Serial>, window: usize) -> Result<Told> {
    let (span, scored_before) = text.span(window);
    session.truncate(0);
    let mut told = Told {
        states: Vec::new(),
        nats: Vec::new(),
    };
    let each = |i: usize, logits: &[f32], state: &[f32]| {
        let target = span.start + i;
        if target >= scored_before {
            told.nats.push(surprise(logits, text.ids()[target + 1]));
            let squares: f64 = state.iter().map(|x| f64::from(*x).powi(2)).sum();
            let factor = if squares > 0.0 { 1.0 / squares.sqrt() } else { 0.0 };
            told.states
                .extend(state.iter().map(|x| (f64::from(*x) * factor) as f32));
        }
    };
    session
        .prefill_all_inputs(&text.ids()[span.clone()], each)
        .map_err(|e| failed(&e))?;
    Ok(told)
}

/// Nats of [`TOGETHER`] targets from `first` on, with the cache.
fn mixed(text: &Text<'_>, all: &Told, hidden: usize, cache: NeuralCache, first: usize) -> Result<f64> {
    let end = (first + TOGETHER).min(text.targets());
    let oldest = first.saturating_sub(cache.size);
    let rows = |from: usize, to: usize| {
        let states = all.states[from * hidden..to * hidden].to_vec();
        Tensor::from_f32(Device::cpu()?, [to - from, hidden], states)
    };
    let likeness = matmul(Layout::NT, &rows(first, end)?, &rows(oldest, end)?)?;
    let likeness = likeness.f32()?;
    let scale = f64::from(cache.theta) * (hidden as f64).sqrt();
    let mut nats = 0.0;
    for target in first..end {
        let (model, word) = ((-all.nats[target]).exp(), text.ids()[target + 1]);
        let from = target.saturating_sub(cache.size);
        if from == target {
            nats += all.nats[target];
            continue;
        }
        let row = &likeness[(target - first) * (end - oldest)..][from - oldest..target - oldest];
        let most = row.iter().fold(f32::NEG_INFINITY, |most, x| most.max(*x));
        let (mut total, mut hits) = (0.0, 0.0);
        for (x, past) in row.iter().zip(&text.ids()[from + 1..]) {
            let weight = (scale * f64::from(x - most)).exp();
            total += weight;
            hits += if *past == word { weight } else { 0.0 };
        }
        nats -= ((1.0 - cache.weight) * model + cache.weight * hits / total).ln();
    }
    Ok(nats)
}

#[cfg(test)]
mod tests {
    use onebit_model::config::presets;
    use onebit_model::evaluation::score;
    use onebit_model::network::Network;
    use onebit_model::runtime::SessionOptions;

    use super::*;

    fn tiny() -> PackedModel {
        let mut config = presets::by_name("quickstart").unwrap().config;
        config.vocab_size = 64;
        config.max_position_embeddings = 32;
        let network = Network::new(config, Device::cpu().unwrap(), 3).unwrap();
        crate::packed(&network).unwrap()
    }

    fn cached(model: &PackedModel, ids: &[u32], window: (usize, usize), cache: NeuralCache) -> Result<Score> {
        score_with_cache(model, Isa::best(), ids, window, KvType::F32, cache, &|_| ())
    }

    fn cache(size: usize, theta: f32, weight: f64) -> NeuralCache {
        NeuralCache { size, theta, weight }
    }

    #[test]
    fn it_is_its_formula() {
        let model = tiny();
        let ids: Vec<u32> = (0..150).map(|i| (i * 37 + i / 7) % 64).collect();
        let (size, theta, weight) = (20, 0.7, 0.3);
        let mut session = Session::new(&model, Serial, Isa::best(), SessionOptions::new(32)).unwrap();
        let (mut states, mut nats): (Vec<Vec<f64>>, f64) = (Vec::new(), 0.0);
        for target in 0..149 {
            // Windows of 32 without overlap.
            let first = target / 32 * 32;
            let mut seen = Vec::new();
            session.truncate(0);
            session
                .prefill_all_inputs(&ids[first..=target], |_, logits, state| {
                    seen = logits.to_vec();
                    let length = state.iter().map(|x| f64::from(*x).powi(2)).sum::<f64>().sqrt();
                    let unit = state.iter().map(|x| f64::from(*x) / length).collect();
                    states.truncate(target);
                    states.push(unit);
                })
                .unwrap();
            let model_nats = surprise(&seen, ids[target + 1]);
            let now = states[target].clone();
            let weights: Vec<(u32, f64)> = (target.saturating_sub(size)..target)
                .map(|i| {
                    let cosine: f64 = states[i].iter().zip(&now).map(|(a, b)| a * b).sum();
                    (
                        ids[i + 1],
                        (f64::from(theta) * cosine * (now.len() as f64).sqrt()).exp(),
                    )
                })
                .collect();
            let total: f64 = weights.iter().map(|w| w.1).sum();
            let hits: f64 = weights.iter().filter(|w| w.0 == ids[target + 1]).map(|w| w.1).sum();
            nats += match weights.is_empty() {
                true => model_nats,
                false => -((1.0 - weight) * (-model_nats).exp() + weight * hits / total).ln(),
            };
        }
        let found = cached(&model, &ids, (32, 32), cache(size, theta, weight)).unwrap();
        assert_eq!(found.tokens, 149);
        assert!((found.nats - nats).abs() < 1e-3, "{} for {nats}", found.nats);
    }

    #[test]
    fn it_helps_where_words_come_again_and_costs_nothing_without_weight() {
        let model = tiny();
        // Few words, in an order that a model of one seed cannot know.
        let ids: Vec<u32> = (0..300u32).map(|i| 5 + (i * i * 7 + i / 3) % 4).collect();
        let plain = score(&model, Isa::best(), &ids, (32, 16), KvType::F32, &|_| ()).unwrap();
        let without = cached(&model, &ids, (32, 16), cache(50, 0.5, 0.0)).unwrap();
        assert!((without.nats - plain.nats).abs() < 1e-6 * plain.nats);
        let with = cached(&model, &ids, (32, 16), cache(50, 0.0, 0.5)).unwrap();
        assert!(with.loss() < 0.7 * plain.loss(), "{} and {}", with.loss(), plain.loss());
        let threads = rayon::ThreadPoolBuilder::new().num_threads(1).build().unwrap();
        assert_eq!(
            threads.install(|| cached(&model, &ids, (32, 16), cache(50, 0.0, 0.5)).unwrap()),
            with
        );
    }

    #[test]
    fn a_cache_that_cannot_be_is_refused() {
        let (model, ids) = (tiny(), [1, 2, 3]);
        for bad in [
            cache(0, 1.0, 0.1),
            cache(5, -1.0, 0.1),
            cache(5, f32::NAN, 0.1),
            cache(5, 1.0, 1.0),
        ] {
            assert!(cached(&model, &ids, (8, 8), bad).is_err(), "{bad:?}");
        }
    }
}
