//! Moments on the GPU, on their way there and back, and the copy of a run's state that a checkpoint is made of.

use std::ops::Range;
use std::sync::Mutex;

use onebit_engine::Tensor;
use onebit_kernels_cuda::{Arena, DeviceArray, Gpu, Staging};
use onebit_model::network::cuda::{ALIGNMENT, Bucket, CudaNetwork, Layout, read_into};

use super::CudaOptimizer;
use crate::optimizer::{Moments as HostMoments, Optimizer};
use crate::options::OptimizerKind;
use crate::parallel::nccl::CudaRanks;
use crate::parallel::pieces::Pieces;
use crate::{Result, TrainError};

/// Moments in arenas that are laid out like the parameters.
#[derive(Clone, Debug)]
pub(super) enum Moments {
    /// In f32. With Muon `second` ends where the blocks' matrices begin.
    Wide {
        first: DeviceArray<f32>,
        second: DeviceArray<f32>,
    },
    /// In 8 bits.
    Eight {
        first: DeviceArray<i8>,
        second: DeviceArray<u8>,
        first_scale: DeviceArray<f32>,
        second_scale: DeviceArray<f32>,
    },
}

impl Moments {
    /// Cut out of `arena`: of `pieces`.
    pub(super) fn take(arena: &mut Arena, kind: OptimizerKind, layout: &Layout, pieces: &Pieces) -> Self {
        let len = pieces.len;
        match kind {
            OptimizerKind::AdamW => Moments::Wide {
                first: arena.take(len),
                second: arena.take(len),
            },
            OptimizerKind::Muon => Moments::Wide {
                first: arena.take(len),
                second: arena.take(layout.matrices),
            },
            OptimizerKind::AdamW8bit => Moments::Eight {
                first: arena.take(len),
                second: arena.take(len),
                first_scale: arena.take(len / ALIGNMENT),
                second_scale: arena.take(len / ALIGNMENT),
            },
        }
    }

    /// Copies those of `host` to the GPU, as far as they belong to `pieces`.
    pub(super) fn upload(&self, gpu: &Gpu, layout: &Layout, pieces: &Pieces, host: &Optimizer) -> Result<()> {
        for (index, moments) in host.moments.iter().enumerate() {
            let whole = layout.range(index);
            for (elements, at) in pieces.within(&whole) {
                let from = elements.start - whole.start..elements.end - whole.start;
                match (self, moments) {
                    (Moments::Wide { first, .. }, HostMoments::Muon(momentum)) => {
                        gpu.write(&first.slice(at), &momentum.f32()?[from])?;
                    }
                    (Moments::Wide { first, second }, HostMoments::AdamW { first: m, second: v }) => {
                        gpu.write(&first.slice(at.clone()), &m.f32()?[from.clone()])?;
                        gpu.write(&second.slice(at), &v.f32()?[from])?;
                    }
                    (
                        Moments::Eight {
                            first,
                            second,
                            first_scale,
                            second_scale,
                        },
                        HostMoments::EightBit(host),
                    ) => {
                        gpu.write(&first_scale.slice(blocks(&at)), &host.first_scale[blocks(&from)])?;
                        gpu.write(&second_scale.slice(blocks(&at)), &host.second_scale[blocks(&from)])?;
                        gpu.write(&first.slice(at.clone()), &host.first[from.clone()])?;
                        gpu.write(&second.slice(at), &host.second[from])?;
                    }
                    _ => return Err(other_moments()),
                }
            }
        }
        Ok(())
    }

    /// Copies them, which are of all elements, to `host`.
    pub(super) fn download(&self, layout: &Layout, staging: &mut Staging, host: &mut Optimizer) -> Result<()> {
        self.download_bucket(layout, 0..layout.len, staging, host)
    }

    /// Copies them, which are those of `bucket` from its first element on, to the parameters of `host` that lie in it.
    pub(super) fn download_bucket(
        &self,
        layout: &Layout,
        bucket: Range<usize>,
        staging: &mut Staging,
        host: &mut Optimizer,
    ) -> Result<()> {
        for (index, moments) in host.moments_mut().iter_mut().enumerate() {
            let Range { start, end } = layout.range(index);
            if start < bucket.start || end > bucket.end {
                continue;
            }
            let range = start - bucket.start..end - bucket.start;
            match (self, moments) {
                (Moments::Wide { first, .. }, HostMoments::Muon(momentum)) => {
                    read_into(staging, &first.slice(range), momentum.f32_mut()?)?;
                }
                (Moments::Wide { first, second }, HostMoments::AdamW { first: m, second: v }) => {
                    read_into(staging, &first.slice(range.clone()), m.f32_mut()?)?;
                    read_into(staging, &second.slice(range), v.f32_mut()?)?;
                }
                (
                    Moments::Eight {
                        first,
                        second,
                        first_scale,
                        second_scale,
                    },
                    HostMoments::EightBit(host),
                ) => {
                    read_into(staging, &first_scale.slice(blocks(&range)), &mut host.first_scale)?;
                    read_into(staging, &second_scale.slice(blocks(&range)), &mut host.second_scale)?;
                    read_into(staging, &first.slice(range.clone()), &mut host.first)?;
                    read_into(staging, &second.slice(range), &mut host.second)?;
                }
                _ => return Err(other_moments()),
            }
        }
        Ok(())
    }

    /// Those of a bucket, whose parts all ranks have brought together, in memory of their own.
    pub(super) fn gathered(&self, gpu: &Gpu, ranks: &CudaRanks, bucket: &Bucket, pieces: &Pieces) -> Result<Self> {
        let len = bucket.elements.len();
        let whole = match self {
            Moments::Wide { .. } => Moments::Wide {
                first: gpu.zeros(len)?,
                second: gpu.zeros(len)?,
            },
            Moments::Eight { .. } => Moments::Eight {
                first: gpu.zeros(len)?,
                second: gpu.zeros(len)?,
                first_scale: gpu.zeros(len / ALIGNMENT)?,
                second_scale: gpu.zeros(len / ALIGNMENT)?,
            },
        };
        let dealt = bucket.dealt().len();
        for (elements, at) in pieces.within(&bucket.elements) {
            let to = elements.start - bucket.elements.start..elements.end - bucket.elements.start;
            whole.slice(to).fill(gpu, &self.slice(at))?;
        }
        match &whole {
            Moments::Wide { first, second } => {
                ranks.gather(&first.slice(..dealt))?;
                ranks.gather(&second.slice(..dealt))?;
            }
            Moments::Eight {
                first,
                second,
                first_scale,
                second_scale,
            } => {
                ranks.gather(&first.slice(..dealt))?;
                ranks.gather(&second.slice(..dealt))?;
                ranks.gather(&first_scale.slice(..dealt / ALIGNMENT))?;
                ranks.gather(&second_scale.slice(..dealt / ALIGNMENT))?;
            }
        }
        Ok(whole)
    }

    /// Those at `range`, whole blocks, in the same memory.
    fn slice(&self, range: Range<usize>) -> Self {
        match self {
            Moments::Wide { first, second } => Moments::Wide {
                first: first.slice(range.clone()),
                second: second.slice(range),
            },
            Moments::Eight {
                first,
                second,
                first_scale,
                second_scale,
            } => Moments::Eight {
                first: first.slice(range.clone()),
                second: second.slice(range.clone()),
                first_scale: first_scale.slice(blocks(&range)),
                second_scale: second_scale.slice(blocks(&range)),
            },
        }
    }

    /// Copies `from`, which is alike, on the GPU.
    fn fill(&self, gpu: &Gpu, from: &Moments) -> Result<()> {
        match (from, self) {
            (
                Moments::Wide { first, second },
                Moments::Wide {
                    first: to,
                    second: to_second,
                },
            ) => {
                gpu.copy(first, to)?;
                Ok(gpu.copy(second, to_second)?)
            }
            (
                Moments::Eight {
                    first,
                    second,
                    first_scale,
                    second_scale,
                },
                Moments::Eight {
                    first: to,
                    second: to_second,
                    first_scale: to_scale,
                    second_scale: to_second_scale,
                },
            ) => {
                gpu.copy(first, to)?;
                gpu.copy(second, to_second)?;
                gpu.copy(first_scale, to_scale)?;
                Ok(gpu.copy(second_scale, to_second_scale)?)
            }
            _ => Err(other_moments()),
        }
    }
}

/// A copy of weights and moments in memory of its own on the GPU, which a checkpoint is made of while training goes on.
#[derive(Debug)]
pub(crate) struct CudaCopy {
    parameters: DeviceArray<f32>,
    moments: Moments,
    layout: Layout,
    /// The way out, by a stream of its own; kept from one checkpoint to the next.
    staging: Mutex<Staging>,
}

impl CudaCopy {
    /// Room for a copy of what `network` and `optimizer` have.
    ///
    /// # Errors
    /// No memory.
    pub fn new(kind: OptimizerKind, network: &CudaNetwork) -> Result<Self> {
        let layout = network.layout().clone();
        let pieces = Pieces::whole(&layout);
        let take = |arena: &mut Arena| (arena.take(layout.len), Moments::take(arena, kind, &layout, &pieces));
        let mut plan = Arena::plan();
        take(&mut plan);
        let (parameters, moments) = take(&mut Arena::new(network.gpu(), plan.used())?);
        // Opened again, a GPU has another stream.
        let beside = Gpu::open(network.gpu().ordinal())?;
        Ok(CudaCopy {
            parameters,
            moments,
            layout,
            staging: Mutex::new(Staging::new(&beside)?),
        })
    }

    /// Copies what is there behind everything that was launched.
    ///
    /// # Errors
    /// The driver's.
    pub fn fill(&self, network: &CudaNetwork, optimizer: &CudaOptimizer) -> Result<()> {
        let gpu = network.gpu();
        gpu.copy(network.parameters(), &self.parameters)?;
        self.moments.fill(gpu, &optimizer.arrays.moments)
    }

    /// Copies it to `parameters` and `host`.
    ///
    /// # Errors
    /// What a kernel ran into.
    pub fn download(&self, parameters: &mut [Tensor], host: &mut Optimizer) -> Result<()> {
        let staging = &mut *self.staging.lock().unwrap_or_else(|e| e.into_inner());
        for (index, tensor) in parameters.iter_mut().enumerate() {
            let part = self.parameters.slice(self.layout.range(index));
            read_into(staging, &part, tensor.f32_mut()?)?;
        }
        self.moments.download(&self.layout, staging, host)
    }
}

/// The blocks of a range, the last of which may be filled up.
pub(super) fn blocks(range: &Range<usize>) -> Range<usize> {
    range.start / ALIGNMENT..range.end.div_ceil(ALIGNMENT)
}

/// Moments of another optimiser than the run's, which its caller sees to.
pub(super) fn other_moments() -> TrainError {
    TrainError::Runtime("the moments are those of another optimizer".into())
}
