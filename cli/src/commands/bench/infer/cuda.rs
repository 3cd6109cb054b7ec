//! Decoding and prefill on a GPU, beside its copies and its largest products.

use std::time::Instant;

use onebit_kernels_cuda::Gpu;
use onebit_model::runtime::KvType;
use onebit_model::runtime::cuda::{CudaModel, CudaSession};

use super::super::report::{Timed, block_weights};
use super::{READINGS, ROUNDS, SECONDS, WARM};
use crate::limits::{self, median};
use crate::{Result, random};

/// Times the decoding of `tokens` tokens from an empty context, the median of some rounds: the likeliest next token each time, without the host.
pub(in super::super) fn decode(gpu: &Gpu, model: &CudaModel, tokens: usize, kv: KvType, seed: u64) -> Result<Timed> {
    let config = model.config();
    let ids = random::ids(WARM, config.vocab_size, seed);
    let mut session = CudaSession::new(model, tokens + WARM, kv)?;
    let (mut rounds, mut copies) = (Vec::new(), vec![limits::cuda::copy_bandwidth(gpu)?]);
    while rounds.len() < ROUNDS[0] || (rounds.len() < ROUNDS[1] && rounds.iter().sum::<f64>() < SECONDS) {
        session.reset();
        let mut last = 0;
        for id in &ids {
            last = session.greedy(*id, 1)?.last().copied().unwrap_or(0);
        }
        let start = Instant::now();
        session.greedy(last, tokens)?;
        rounds.push(start.elapsed().as_secs_f64());
        copies.push(limits::cuda::copy_bandwidth(gpu)?);
    }
    // Keys and values of the positions up to each token's own.
    let positions = WARM as f64 + (tokens as f64 + 1.0) / 2.0;
    let values = 2 * config.num_hidden_layers * config.key_value_size();
    let cache = positions * values as f64 * kv.value_bytes() as f64;
    let weights = block_weights(config) + (config.vocab_size * config.hidden_size) as f64;
    Ok(Timed {
        tokens,
        seconds: median(&mut rounds),
        bandwidth: Some(median(&mut copies)),
        peak_ops: Some(limits::cuda::product_rate(gpu)?),
        bytes_per_token: model.bytes_per_token() as f64 + cache,
        ops_per_token: 2.0 * weights,
        decoding: None,
        training: None,
    })
}

/// Times the reading of a prompt of `tokens` tokens.
pub(in super::super) fn prefill(gpu: &Gpu, model: &CudaModel, tokens: usize, kv: KvType, seed: u64) -> Result<Timed> {
    let config = model.config();
    let ids = random::ids(tokens, config.vocab_size, seed);
    let mut session = CudaSession::new(model, tokens, kv)?;
    // Kernels are loaded when they are first used.
    session.prefill(&ids)?;
    let mut readings = Vec::new();
    for _ in 0..READINGS {
        session.reset();
        let start = Instant::now();
        session.prefill(&ids)?;
        readings.push(start.elapsed().as_secs_f64());
    }
    let chunks = tokens.div_ceil(session.chunk());
    Ok(Timed {
        tokens,
        seconds: median(&mut readings),
        bandwidth: Some(limits::cuda::copy_bandwidth(gpu)?),
        peak_ops: Some(limits::cuda::product_rate(gpu)?),
        bytes_per_token: model.bytes_per_prompt(chunks) as f64 / tokens as f64,
        ops_per_token: 2.0 * block_weights(config),
        decoding: None,
        training: None,
    })
}
