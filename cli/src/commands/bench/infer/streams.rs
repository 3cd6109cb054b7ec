//! Decoding of many sequences side by side, on a CPU or a GPU: what a server does.

use std::time::Instant;

use onebit_model::config::ModelConfig;
#[cfg(feature = "cuda")]
use onebit_model::runtime::cuda::{CudaBatch, CudaModel};
use onebit_model::runtime::{Batch, KvType, PackedModel, Pool, SessionOptions, Top, Turn, Wanted};
use onebit_model::serving::Engine;

use super::super::report::{Machine, Timed, block_weights};
use super::{ROUNDS, SECONDS, WARM};
#[cfg(feature = "cuda")]
use crate::limits;
use crate::limits::median;
use crate::{CliError, Result, random};

/// What is read.
#[derive(Clone, Copy)]
pub(in super::super) struct Streams {
    /// Sequences.
    pub sequences: usize,
    /// Tokens of each.
    pub tokens: usize,
    pub kv: KvType,
    pub seed: u64,
    /// Whether every logit is computed.
    pub exact: bool,
}

impl Streams {
    pub fn options(&self) -> SessionOptions {
        SessionOptions {
            context: self.tokens + WARM,
            chunk: self.sequences,
            logit_rows: self.sequences,
            kv: self.kv,
        }
    }

    /// Seconds of all tokens from empty contexts, the median of some rounds: of each sequence the likeliest next token, one of each a step. After each round the machine is measured.
    fn time<E: Engine>(&self, engine: &mut E, mut measure: impl FnMut() -> Result<f64>) -> Result<(f64, f64)>
    where
        CliError: From<E::Error>,
    {
        let wanted = match self.exact {
            true => Wanted::All,
            false => Wanted::Top(Top { count: 1, except: &[] }),
        };
        let first = random::ids(self.sequences, engine.vocab_size(), self.seed);
        let (mut rounds, mut measured) = (Vec::new(), vec![measure()?]);
        while rounds.len() < ROUNDS[0] || (rounds.len() < ROUNDS[1] && rounds.iter().sum::<f64>() < SECONDS) {
            (0..self.sequences).for_each(|sequence| engine.truncate(sequence, 0));
            let (mut ids, mut next) = (first.clone(), first.clone());
            let mut start = Instant::now();
            for step in 0..self.tokens + WARM {
                if step == WARM {
                    start = Instant::now();
                }
                let turns: Vec<Turn<'_>> = (ids.chunks(1).enumerate())
                    .map(|(sequence, ids)| Turn {
                        sequence,
                        ids,
                        logits: wanted,
                    })
                    .collect();
                engine.step(&turns, &mut next, |id, logits| *id = likeliest(logits))?;
                ids.copy_from_slice(&next);
            }
            rounds.push(start.elapsed().as_secs_f64());
            measured.push(measure()?);
        }
        Ok((median(&mut rounds), median(&mut measured)))
    }

    /// What was timed, where a step reads `weights` bytes of them once for all sequences.
    fn timed(&self, config: &ModelConfig, weights: usize, (seconds, bandwidth): (f64, f64)) -> Timed {
        // Keys and values of the positions up to each token's own.
        let positions = WARM as f64 + (self.tokens as f64 + 1.0) / 2.0;
        let values = 2 * config.num_hidden_layers * config.key_value_size();
        let cache = positions * values as f64 * self.kv.value_bytes() as f64;
        let operations = block_weights(config) + (config.vocab_size * config.hidden_size) as f64;
        Timed {
            tokens: self.tokens * self.sequences,
            seconds,
            bandwidth: Some(bandwidth),
            peak_ops: None,
            bytes_per_token: weights as f64 / self.sequences as f64 + cache,
            ops_per_token: 2.0 * operations,
            decoding: None,
            training: None,
        }
    }

    pub fn on_cpu(&self, model: &PackedModel, machine: &Machine) -> Result<Timed> {
        let (threads, isa) = (machine.place.threads, machine.place.isa);
        let mut batch = Batch::new(model, Pool::new(threads)?, isa, self.options(), self.sequences)?;
        if !self.exact {
            batch.add_shortlist()?;
        }
        let measured = self.time(&mut batch, || Ok(machine.sweep()))?;
        Ok(self.timed(model.config(), model.bytes_per_token(), measured))
    }

    #[cfg(feature = "cuda")]
    pub fn on_gpu(&self, model: &CudaModel, gpu: &onebit_kernels_cuda::Gpu) -> Result<Timed> {
        let mut batch = CudaBatch::new(model, self.options(), self.sequences)?;
        let measured = self.time(&mut batch, || limits::cuda::copy_bandwidth(gpu))?;
        Ok(Timed {
            peak_ops: Some(limits::cuda::product_rate(gpu)?),
            ..self.timed(model.config(), model.bytes_per_prompt(1), measured)
        })
    }
}

/// Of equal logits the first.
fn likeliest(logits: &[f32]) -> u32 {
    let first = (f32::NEG_INFINITY, 0);
    let best = logits.iter().zip(0u32..).fold(
        first,
        |best, (&logit, id)| {
            if logit > best.0 { (logit, id) } else { best }
        },
    );
    best.1
}
