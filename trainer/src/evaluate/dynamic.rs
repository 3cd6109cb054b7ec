//! Dynamic evaluation (Krause, Kahembwe, Murray and Renals 2018, *Dynamic evaluation of neural sequence models*): a text is scored piece by piece, and behind each piece the model
//! learns it before it scores the next.
//!
//! ```text
//! w ← w − η·g/√v − η·δ·(w − w₀)      g: gradient of the piece's mean loss, v: mean of its squares so far, w₀: the weights before the text
//! ```
//! The weights that learn are the masters; what scores is what they are quantised to each time, by the forward of the hard phase, which has the bits of the packed runtime. A piece is
//! scored before anything is learned of it, and nothing of what follows is seen.

use onebit_autograd::{Tape, ops};
use onebit_engine::Tensor;
use onebit_engine::ops::cross_entropy::LossTerms;
use onebit_model::evaluation::{Score, Text, surprise};
use onebit_model::network::{ForwardMode, Network};
use rayon::prelude::*;

use crate::{Result, TrainError};

/// How a model learns the text that it scores.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct DynamicEvaluation {
    /// Tokens of a piece, at least 1 and at most the context; what is left of it is context.
    pub piece: usize,
    /// η: the learning rate, at least 0.
    pub lr: f32,
    /// δ: how much the weights are drawn back to what they were, at least 0.
    pub decay: f32,
}

/// The part of the mean of squares that a new one is.
const NEW: f32 = 0.02;
/// Added to its root.
const EPS: f32 = 1e-8;

impl DynamicEvaluation {
    fn check(&self, context: usize) -> Result<()> {
        let refuse = |option, why: String| Err(TrainError::Option { option, why });
        if self.piece == 0 || self.piece > context {
            return refuse(
                "dynamic",
                format!("must lie between 1 and the model's context of {context}"),
            );
        }
        for (option, value) in [("dynamic-lr", self.lr), ("dynamic-decay", self.decay)] {
            if !(value >= 0.0 && value.is_finite()) {
                return refuse(option, "must be a number of at least 0".into());
            }
        }
        Ok(())
    }
}

/// What is known of a parameter.
struct Learned {
    first: Vec<f32>,
    squares: Vec<f32>,
}

/// Scores every token of `ids` but the first, as [`score`](onebit_model::evaluation::score), with a `network` that learns on the way. `progress` gets the number of tokens done.
///
/// # Errors
/// Fewer than two tokens, an id outside the vocabulary, a piece or rate that makes no sense.
pub fn score_dynamically(
    mut network: Network,
    ids: &[u32],
    how: DynamicEvaluation,
    progress: &dyn Fn(u64),
) -> Result<Score> {
    let context = network.config().max_position_embeddings;
    how.check(context)?;
    Text::new(network.config(), ids, (context, how.piece))?;
    let mut learned: Vec<Learned> = Vec::new();
    for parameter in network.parameters() {
        learned.push(Learned {
            first: parameter.f32()?.to_vec(),
            squares: vec![0.0; parameter.len()],
        });
    }
    let (targets, mut nats, mut piece) = (ids.len() - 1, 0.0, 0);
    while piece * how.piece < targets {
        let first = piece * how.piece;
        let end = (first + how.piece).min(targets);
        // As much before it as there is room for.
        let from = end.saturating_sub(context);
        let (loss, gradients) = read(&network, &ids[from..end + 1], first - from)?;
        nats += loss;
        piece += 1;
        progress(end as u64);
        if end == targets || how.lr == 0.0 {
            continue;
        }
        // The mean of so few is biased.
        let unbiased = 1.0 - (1.0 - NEW).powi(piece as i32);
        for ((parameter, gradient), learned) in network.parameters_mut().iter_mut().zip(&gradients).zip(&mut learned) {
            learn(how, parameter.f32_mut()?, gradient.f32()?, learned, unbiased);
        }
    }
    Ok(Score {
        nats,
        tokens: targets as u64,
    })
}

/// Nats of the targets from number `scored` on of a piece with its context, and the gradients of the mean of all its losses.
fn read(network: &Network, ids: &[u32], scored: usize) -> Result<(f64, Vec<Tensor>)> {
    let (device, seq) = (network.device(), ids.len() - 1);
    let inputs = Tensor::from_u32(device, [seq], ids[..seq].to_vec())?;
    let targets = Tensor::from_u32(device, [seq], ids[1..].to_vec())?;
    let tape = Tape::new();
    let leaves = network.leaves(&tape);
    let logits = network.forward(&leaves, &inputs, seq, ForwardMode::evaluation(1.0))?;
    let vocab = network.config().vocab_size;
    let rows = logits.tensor().f32()?.chunks_exact(vocab).zip(&ids[1..]);
    let nats = rows.skip(scored).map(|(logits, id)| surprise(logits, *id)).sum();
    let (loss, _) = ops::cross_entropy(&logits, &targets, LossTerms::default(), None)?;
    let mut gradients = tape.backward(&loss)?;
    let gradients = leaves.iter().map(|leaf| {
        let zeros = || Tensor::zeros(device, leaf.shape().clone());
        gradients.take(leaf).unwrap_or_else(zeros)
    });
    Ok((nats, gradients.collect()))
}

/// Weights that a thread takes at a time.
const CHUNK: usize = 1 << 16;

fn learn(how: DynamicEvaluation, weights: &mut [f32], gradient: &[f32], learned: &mut Learned, unbiased: f32) {
    let weights = weights.par_chunks_mut(CHUNK).zip(gradient.par_chunks(CHUNK));
    let known = learned
        .first
        .par_chunks(CHUNK)
        .zip(learned.squares.par_chunks_mut(CHUNK));
    weights.zip(known).for_each(|((weights, gradient), (first, squares))| {
        for (((w, g), first), squares) in weights.iter_mut().zip(gradient).zip(first).zip(squares) {
            *squares += NEW * (g * g - *squares);
            let step = g / ((*squares / unbiased).sqrt() + EPS);
            *w -= how.lr * (step + how.decay * (*w - first));
        }
    });
}

#[cfg(test)]
mod tests {
    use onebit_engine::{Device, Isa};
    use onebit_model::config::presets;
    use onebit_model::evaluation::score;
    use onebit_model::runtime::KvType;

    use super::*;

    fn tiny() -> Network {
        let mut config = presets::by_name("quickstart").unwrap().config;
        config.vocab_size = 64;
        config.max_position_embeddings = 32;
        Network::new(config, Device::cpu().unwrap(), 3).unwrap()
    }

    fn how(piece: usize, lr: f32, decay: f32) -> DynamicEvaluation {
        DynamicEvaluation { piece, lr, decay }
    }

    #[test]
    fn without_a_rate_it_is_the_score_of_the_packed_model() {
        let network = tiny();
        let packed = crate::packed(&network).unwrap();
        let ids: Vec<u32> = (0..150).map(|i| (i * 37 + i / 7) % 64).collect();
        for piece in [32, 7, 1] {
            // Windows end with their piece: those of `score` where the first is whole.
            let found = score_dynamically(network.clone(), &ids, how(piece, 0.0, 0.0), &|_| ()).unwrap();
            assert_eq!(found.tokens, 149);
            if piece == 32 {
                let plain = score(&packed, Isa::best(), &ids, (32, 32), KvType::F32, &|_| ()).unwrap();
                // The last window of each reaches as far back as it can, or only to the end of the one before.
                assert!(
                    (found.loss() - plain.loss()).abs() < 0.05,
                    "{} {}",
                    found.loss(),
                    plain.loss()
                );
            }
        }
        let short: Vec<u32> = ids[..33].to_vec();
        let plain = score(&packed, Isa::best(), &short, (32, 32), KvType::F32, &|_| ()).unwrap();
        let found = score_dynamically(network, &short, how(32, 0.0, 0.0), &|_| ()).unwrap();
        assert!(
            (found.nats - plain.nats).abs() < 1e-4 * plain.nats,
            "{} {}",
            found.nats,
            plain.nats
        );
    }

    #[test]
    fn it_learns_what_it_reads_and_sees_nothing_before() {
        let network = tiny();
        let ids: Vec<u32> = (0..400u32).map(|i| 5 + (i * 5) % 7).collect();
        let run =
            |ids: &[u32], lr, decay| score_dynamically(network.clone(), ids, how(16, lr, decay), &|_| ()).unwrap();
        let still = run(&ids, 0.0, 0.0);
        let learning = run(&ids, 1e-3, 0.0);
        assert!(
            learning.loss() < 0.8 * still.loss(),
            "{} {}",
            learning.loss(),
            still.loss()
        );
        // Drawn back all the way, it is the model that it was.
        let drawn = run(&ids, 1e-3, 900.0);
        assert!(drawn.loss() > learning.loss());
        // The first piece is scored by the model as it came.
        assert_eq!(run(&ids[..17], 1.0, 0.0).nats, run(&ids[..17], 0.0, 0.0).nats);
        assert_eq!(run(&ids, 1e-3, 0.0), learning);
    }

    #[test]
    fn what_makes_no_sense_is_refused() {
        let refused = |how| score_dynamically(tiny(), &[1, 2, 3], how, &|_| ()).is_err();
        assert!(refused(how(0, 1e-3, 0.0)) && refused(how(33, 1e-3, 0.0)));
        assert!(refused(how(8, f32::NAN, 0.0)) && refused(how(8, 1e-3, -1.0)));
        assert!(score_dynamically(tiny(), &[1, 64], how(8, 1e-3, 0.0), &|_| ()).is_err());
    }
}
