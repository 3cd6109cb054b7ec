//! Master weights of the blocks' matrices that are divided among ranks: of each block a rank has one part of as many, and updates it.
//!
//! What the products read is made where the master weights are, and sent:
//!
//! ```text
//! hard phase   γ from sums of |W| that all ranks have (a f32 for 4096 weights); then trits, 2 bits a weight, opened on every rank to the codes and bf16 weights that undivided ones would give
//! before it    bf16 weights, 16 bits a weight
//! ```
//! Matrices in full precision are sent in bf16 in every phase. A rank sends and gets each weight once a step: what was gathered is kept, a byte a weight, for all micro-batches, forward and backward. Only
//! where bf16 weights are kept of one block at a time (models of more than two billion weights) are they, before the hard phase, gathered twice a micro-batch.
//!
//! Every number is that of a model whose weights are not divided, to the bit. All ranks launch the same: a forward of one is a forward of all.

use std::ops::Range;
use std::sync::Arc;

use half::bf16;
use onebit_engine::Tensor;
use onebit_kernels_cuda::nccl::Communicator;
use onebit_kernels_cuda::shards::{PIECE, ShardTable, Slice, TRITS};
use onebit_kernels_cuda::weights::{COUNTS, WeightMode, WeightTensor};
use onebit_kernels_cuda::{DeviceArray, Element, Gpu, Staging};

use super::arrays::{Arrays, keeps_dense};
use super::deal::Deal;
use super::{CudaNetwork, Layout, Stage, read_into};
use crate::config::LinearMode;
use crate::network::{Network, NetworkError, Result};

/// A block's matrices.
#[derive(Debug)]
struct Share {
    /// In the arenas that have the blocks' matrices alone.
    codes: Range<usize>,
    /// How many of these elements, from the first on, are dealt out to the ranks in equal parts.
    dealt: usize,
    /// This rank's slices of them: its part, and what is left over, which every rank has.
    slices: Range<usize>,
    /// Their numbers in the table.
    tensors: Range<usize>,
    /// Where their bf16 weights begin.
    dense: usize,
    /// Whether one of them is never quantised.
    has_full: bool,
}

/// What a rank has, and how it comes by the rest.
#[derive(Debug)]
pub(super) struct Divided {
    pub links: Arc<Communicator>,
    /// Of all that this rank has, in the order of blocks; its slices begin in `own` where they say.
    table: ShardTable,
    /// Of what it counts: of what every rank has, the first rank's alone.
    counted: ShardTable,
    blocks: Vec<Share>,
    own: DeviceArray<f32>,
    packed: DeviceArray<u8>,
    sums: DeviceArray<f32>,
    keeps_dense: bool,
}

/// Elements of the blocks' matrices that a rank of `size` has.
///
/// # Errors
/// Matrices that cannot be divided so.
pub(super) fn own_elements(layout: &Layout, size: usize) -> Result<usize> {
    let refused = |what, expected: String, found| NetworkError::NotOnCuda { what, expected, found };
    for (index, block) in layout.blocks.iter().enumerate() {
        if block
            .matrices
            .iter()
            .any(|m| matches!(m.mode, LinearMode::Int8 | LinearMode::Int4))
        {
            let expected = "ternary, binary or in full precision".into();
            return Err(refused(
                "a block of int8 or int4 matrices, divided among ranks,",
                expected,
                index,
            ));
        }
        if let Some(m) = block.matrices.iter().find(|m| !(m.rows * m.cols).is_multiple_of(PIECE)) {
            let expected = format!("a multiple of {PIECE}");
            return Err(refused(
                "elements of a matrix that is divided among ranks",
                expected,
                m.rows * m.cols,
            ));
        }
    }
    let deal = Deal::new(layout, (0, size));
    let blocks = deal.buckets.iter().filter(|b| b.elements.start >= layout.matrices);
    Ok(blocks.map(|b| b.part(0, size).len() + b.tail().len()).sum())
}

impl Divided {
    /// This rank's side, in memory of `arrays`.
    pub fn new(
        gpu: &Gpu,
        links: Arc<Communicator>,
        layout: &Layout,
        tensors: &[WeightTensor],
        arrays: &Arrays,
    ) -> Result<Self> {
        let (rank, size) = (links.rank(), links.size());
        let deal = Deal::new(layout, (rank, size));
        let mut buckets: Vec<_> = deal
            .buckets
            .iter()
            .filter(|b| b.elements.start >= layout.matrices)
            .collect();
        buckets.sort_by_key(|b| b.elements.start);
        let (mut slices, mut counted, mut blocks) = (Vec::new(), Vec::new(), Vec::new());
        let (mut at, mut first) = (0, 0);
        for (bucket, block) in buckets.iter().zip(&layout.blocks) {
            let before = slices.len();
            for (elements, counts) in [(bucket.part(rank, size), true), (bucket.tail(), rank == 0)] {
                let slice = Slice {
                    first: elements.start - layout.matrices,
                    len: elements.len(),
                    at,
                };
                at += slice.len;
                slices.push(slice);
                counted.extend(counts.then_some(slice));
            }
            let end = first + block.matrices.len();
            blocks.push(Share {
                codes: bucket.elements.start - layout.matrices..bucket.elements.end - layout.matrices,
                dealt: bucket.dealt().len(),
                slices: before..slices.len(),
                dense: tensors[first].dense,
                has_full: tensors[first..end].iter().any(|t| t.mode == WeightMode::Full),
                tensors: first..end,
            });
            first = end;
        }
        Ok(Divided {
            links,
            table: ShardTable::new(gpu, &tensors[..first], &slices)?,
            counted: ShardTable::new(gpu, &tensors[..first], &counted)?,
            blocks,
            own: arrays.parameters.slice(layout.matrices..),
            packed: arrays.packed.clone(),
            sums: arrays.piece_sums.clone(),
            keeps_dense: keeps_dense(layout),
        })
    }

    /// γ of each tensor.
    pub fn gammas(&self) -> &DeviceArray<f32> {
        self.table.gammas()
    }

    /// What this rank has of `elements` of the arena of matrices, which lie in its part of one block.
    pub fn own(&self, elements: &Range<usize>) -> Option<DeviceArray<f32>> {
        let holds = |s: &&Slice| s.first <= elements.start && elements.end <= s.first + s.len;
        let slice = self.table.slices().iter().find(holds)?;
        let at = slice.at + elements.start - slice.first;
        Some(self.own.slice(at..at + elements.len()))
    }

    /// Launches γ and the rows' scales.
    fn measure(&self, gpu: &Gpu, scales: &DeviceArray<f32>) -> Result<()> {
        self.counted.measure(gpu, &self.own, &self.sums)?;
        self.links.fork()?;
        self.links.all_reduce(&self.sums)?;
        self.links.join()?;
        self.counted.scale(gpu, &self.sums, scales)?;
        Ok(self.table.scale(gpu, &self.sums, scales)?)
    }

    fn pack(&self, gpu: &Gpu) -> Result<()> {
        Ok(self
            .table
            .pack(gpu, 0..self.table.slices().len(), &self.own, &self.packed)?)
    }

    /// Launches all that products read of the weights in `stage`, but for bf16 weights that are kept of one block at a time.
    pub fn quantize(&self, gpu: &Gpu, a: &Arrays, stage: Stage) -> Result<()> {
        if stage != Stage::Full {
            self.measure(gpu, &a.scales)?;
        }
        if stage == Stage::Hard {
            self.pack(gpu)?;
            self.gather(self.blocks.iter().map(|block| {
                let start = block.codes.start;
                self.packed.slice(start / TRITS..(start + block.dealt) / TRITS)
            }))?;
            let dense = self.keeps_dense.then_some(&a.dense);
            let all = 0..self.table.tensors().len();
            self.table.unpack(gpu, all, &self.packed, Some(&a.codes), dense)?;
        }
        if self.keeps_dense {
            let in_full = |block: &&Share| stage != Stage::Hard || block.has_full;
            let blocks = || self.blocks.iter().filter(in_full);
            for block in blocks() {
                let slices = block.slices.clone();
                self.table.dense(gpu, slices, &self.own, &a.dense, &a.anneal)?;
            }
            self.gather(blocks().map(|block| block.dense_of(&a.dense)))?;
        }
        Ok(())
    }

    /// Launches the bf16 weights of `block`, which alone are kept.
    pub fn dense(&self, gpu: &Gpu, a: &Arrays, stage: Stage, block: usize) -> Result<()> {
        let share = &self.blocks[block];
        if stage == Stage::Hard && !share.has_full {
            let tensors = share.tensors.clone();
            return Ok(self.table.unpack(gpu, tensors, &self.packed, None, Some(&a.dense))?);
        }
        let slices = share.slices.clone();
        self.table.dense(gpu, slices, &self.own, &a.dense, &a.anneal)?;
        self.gather([share.dense_of(&a.dense)].into_iter())
    }

    /// Brings every rank's part of each array to all.
    fn gather<T: Element>(&self, arrays: impl Iterator<Item = DeviceArray<T>>) -> Result<()> {
        self.links.fork()?;
        for array in arrays {
            self.links.all_gather(&array)?;
        }
        Ok(self.links.join()?)
    }

    /// Launches the trits that [`Divided::count`] compares with.
    pub fn quantize_codes(&self, gpu: &Gpu, a: &Arrays) -> Result<()> {
        self.measure(gpu, &a.scales)?;
        self.pack(gpu)
    }

    /// Launches the counts of zeros, clipped weights and flips of all ranks.
    pub fn count(&self, gpu: &Gpu, a: &Arrays) -> Result<()> {
        self.measure(gpu, &a.scales)?;
        let counts = a.counts.slice(..COUNTS * self.table.tensors().len());
        self.counted.statistics(gpu, &self.own, Some(&self.packed), &counts)?;
        self.links.fork()?;
        self.links.all_reduce(&counts)?;
        Ok(self.links.join()?)
    }
}

impl Share {
    /// Its bf16 weights that are dealt out.
    fn dense_of(&self, dense: &DeviceArray<bf16>) -> DeviceArray<bf16> {
        dense.slice(self.dense..self.dense + self.dealt)
    }
}

impl CudaNetwork {
    /// Copies this rank's part of the blocks' matrices of `network` to the GPU.
    pub(super) fn upload_divided(&self, divided: &Divided, network: &Network) -> Result<()> {
        for (index, tensor) in network.parameters().iter().enumerate() {
            let Some(range) = self.layout.codes_range(index) else {
                self.gpu.write(&self.parameter(index), tensor.f32()?)?;
                continue;
            };
            for slice in divided.table.slices() {
                let common = range.start.max(slice.first)..range.end.min(slice.first + slice.len);
                if common.is_empty() {
                    continue;
                }
                let Some(own) = divided.own(&common) else { continue };
                let values = &tensor.f32()?[common.start - range.start..common.end - range.start];
                self.gpu.write(&own, values)?;
            }
        }
        Ok(())
    }

    /// Copies the master weights from the GPUs of all ranks to `network` of the first.
    pub(super) fn download_divided(
        &self,
        divided: &Divided,
        staging: &mut Staging,
        network: &mut Network,
    ) -> Result<()> {
        let parameters = network.parameters_mut();
        for share in &divided.blocks {
            let whole: DeviceArray<f32> = self.gpu.zeros(share.codes.len())?;
            for slice in &divided.table.slices()[share.slices.clone()] {
                let begin = slice.first - share.codes.start;
                let own = divided.own.slice(slice.at..slice.at + slice.len);
                self.gpu.copy(&own, &whole.slice(begin..begin + slice.len))?;
            }
            divided.gather([whole.slice(..share.dealt)].into_iter())?;
            if divided.links.rank() == 0 {
                self.read_block(staging, (&whole, &share.codes), parameters)?;
            }
        }
        for (index, tensor) in parameters.iter_mut().enumerate() {
            if self.layout.codes_range(index).is_none() {
                read_into(staging, &self.parameter(index), tensor.f32_mut()?)?;
            }
        }
        Ok(())
    }

    /// Fills the parameters that lie in a block from its weights.
    fn read_block(
        &self,
        staging: &mut Staging,
        (whole, codes): (&DeviceArray<f32>, &Range<usize>),
        parameters: &mut [Tensor],
    ) -> Result<()> {
        for (index, tensor) in parameters.iter_mut().enumerate() {
            let range = self.layout.codes_range(index).filter(|r| codes.contains(&r.start));
            if let Some(Range { start, end }) = range {
                let part = whole.slice(start - codes.start..end - codes.start);
                read_into(staging, &part, tensor.f32_mut()?)?;
            }
        }
        Ok(())
    }
}
