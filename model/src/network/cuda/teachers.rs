//! Models whose probabilities another one learns (Hinton et al. 2015): their forward beside its own, logits and probabilities for some tokens at a time.

use std::ops::Range;

use onebit_engine::ops::cross_entropy::LossTerms;
use onebit_kernels_cuda::DeviceArray;
use onebit_kernels_cuda::cross_entropy::{Likely, soften};

use super::buffers::{head_rows, vocab_stride};
use super::{BatchShape, CudaNetwork, HostBatch, Stage};
use crate::config::ModelConfig;
use crate::network::{Network, NetworkError, Result};

/// Teachers of a model in training.
#[derive(Debug)]
pub struct CudaTeachers {
    networks: Vec<CudaNetwork>,
    /// Their share of the target.
    share: f32,
    /// Their mean probabilities for as many tokens as there are logits of the learner at one time.
    likely: DeviceArray<f32>,
}

impl CudaTeachers {
    /// `teachers` of `learner`, with a share of the target. Their weights are copied, and never change.
    ///
    /// # Errors
    /// Another vocabulary, a context shorter than the learner's sequences, no memory.
    pub fn new(learner: &CudaNetwork, teachers: &[Network], share: f32) -> Result<Self> {
        let shape = Self::shape(learner.shape());
        let networks = teachers.iter().map(|teacher| {
            let (found, vocab) = (teacher.config().vocab_size, learner.config.vocab_size);
            if found != vocab {
                return Err(NetworkError::NotOnCuda {
                    what: "words of a teacher",
                    expected: vocab.to_string(),
                    found,
                });
            }
            let network = CudaNetwork::new(&learner.gpu, teacher, shape, 1, (None, LossTerms::default()))?;
            learner.gpu.write(&network.arrays.anneal, &[1.0])?;
            network.quantize_weights(Stage::Hard)?;
            Ok(network)
        });
        Ok(CudaTeachers {
            networks: networks.collect::<Result<_>>()?,
            share,
            likely: learner
                .gpu
                .zeros(learner.buffers.head_rows * learner.buffers.vocab_stride)?,
        })
    }

    /// A teacher keeps nothing for a backward.
    fn shape(learner: BatchShape) -> BatchShape {
        BatchShape {
            recompute: true,
            soft_phases: false,
            bf16_gradients: true,
            ..learner
        }
    }

    /// Bytes that teachers of these configurations take beside a learner with batches of `shape`.
    ///
    /// # Errors
    /// A configuration that the kernels have no form for.
    pub fn bytes_needed(teachers: &[ModelConfig], shape: &BatchShape) -> Result<u64> {
        let plans = teachers
            .iter()
            .map(|config| CudaNetwork::plan(config, &Self::shape(*shape), 1));
        let networks = plans.map(|plan| Ok(plan?.total())).sum::<Result<u64>>()?;
        let likely = teachers.first().map_or(0, |config| {
            let stride = vocab_stride(config);
            4 * head_rows(stride, shape.tokens()) * stride
        });
        Ok(networks + likely as u64)
    }

    /// Starts copying the ids of `batch` to each of them.
    ///
    /// # Errors
    /// The driver's.
    pub fn send(&self, batch: &HostBatch) -> Result<()> {
        self.networks.iter().try_for_each(|network| network.send_ids(batch))
    }

    /// Launches their blocks.
    pub(super) fn forward(&self) -> Result<()> {
        self.networks
            .iter()
            .try_for_each(|network| network.forward(Stage::Hard, false))
    }

    /// Launches their heads for tokens `rows`, and the mean of their probabilities.
    pub(super) fn likely(&self, rows: Range<usize>) -> Result<(DeviceArray<f32>, f32)> {
        let weight = 1.0 / self.networks.len() as f32;
        let mut likely = self.likely.slice(..0);
        for (i, network) in self.networks.iter().enumerate() {
            let vocabulary = network.vocabulary();
            likely = self.likely.slice(..rows.len() * vocabulary.stride);
            let logits = network.logits(rows.clone())?;
            soften(&network.gpu, &logits, vocabulary, weight, i > 0, &likely)?;
        }
        Ok((likely, self.share))
    }
}

/// As the kernel takes it.
pub(super) fn as_argument((probabilities, share): &(DeviceArray<f32>, f32)) -> Likely<'_> {
    Likely {
        probabilities,
        share: *share,
    }
}
