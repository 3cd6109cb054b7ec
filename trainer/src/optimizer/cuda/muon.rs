//! Muon on a GPU: matrices of one size make their steps together.
//!
//! The 60 matrices of a small model are of three sizes. One by one their iterations are 900 products, each of which keeps a few of a GPU's multiprocessors busy
//! for some microseconds; together they are 45. A batch holds as many as [`BATCH_ELEMENTS`] allow, so that what lies beside the weights stays small where the
//! matrices are large, and matrices that fill a GPU alone go one by one.

use std::collections::BTreeMap;

use half::bf16;
use onebit_kernels_cuda::gemm::{Layout as Product, Matrices, gemm_bf16_strided_batched};
use onebit_kernels_cuda::optimizer::muon::{self, Batch, MAX_BATCH};
use onebit_kernels_cuda::{Arena, DeviceArray, Gpu};
use onebit_model::config::{TensorKind, TensorSpec};
use onebit_model::network::cuda::{CudaNetwork, Layout};

use super::super::muon::{ITERATIONS, MOMENTUM, QUINTIC};
use super::Step;
use crate::Result;
use crate::options::OptimizerKind;

/// Elements of all matrices of a batch, unless one alone has more: 16 MiB of bf16.
const BATCH_ELEMENTS: usize = 1 << 23;

/// Tensors of one size that make their steps together.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Group {
    rows: usize,
    cols: usize,
    /// Their places among the model's tensors.
    tensors: Vec<usize>,
}

impl Group {
    fn elements(&self) -> usize {
        self.tensors.len() * self.rows * self.cols
    }

    /// The shorter side, on which squares are taken.
    fn side(&self) -> usize {
        self.rows.min(self.cols)
    }
}

/// The groups of the tensors that Muon has, in the order of their sizes; groups of one size differ by one matrix at most.
fn groups(kind: OptimizerKind, specs: &[TensorSpec]) -> Vec<Group> {
    let is_muon = |spec: &TensorSpec| kind == OptimizerKind::Muon && matches!(spec.kind, TensorKind::Linear(_));
    let mut sizes = BTreeMap::<(usize, usize), Vec<usize>>::new();
    for (index, spec) in specs.iter().enumerate().filter(|(_, spec)| is_muon(spec)) {
        sizes.entry((spec.shape[0], spec.shape[1])).or_default().push(index);
    }
    let mut groups = Vec::new();
    for ((rows, cols), tensors) in sizes {
        let most = (BATCH_ELEMENTS / (rows * cols).max(1)).clamp(1, MAX_BATCH);
        let parts = tensors.len().div_ceil(most);
        for part in 0..parts {
            let range = tensors.len() * part / parts..tensors.len() * (part + 1) / parts;
            groups.push(Group {
                rows,
                cols,
                tensors: tensors[range].to_vec(),
            });
        }
    }
    groups
}

/// Its memory.
#[derive(Clone, Debug)]
pub(super) struct Arrays {
    /// Places of all groups' matrices, one group behind the other.
    tables: Vec<DeviceArray<u64>>,
    /// Twice the matrices of the largest group, and twice the squares.
    matrices: [DeviceArray<bf16>; 2],
    squares: [DeviceArray<bf16>; 2],
}

impl Arrays {
    pub fn take(arena: &mut Arena, kind: OptimizerKind, specs: &[TensorSpec]) -> Self {
        let groups = groups(kind, specs);
        let elements = groups.iter().map(Group::elements).max().unwrap_or(0);
        let square = |group: &Group| group.tensors.len() * group.side() * group.side();
        let squares = groups.iter().map(square).max().unwrap_or(0);
        Arrays {
            tables: groups.iter().map(|group| arena.take(group.tensors.len())).collect(),
            matrices: [arena.take(elements), arena.take(elements)],
            squares: [arena.take(squares), arena.take(squares)],
        }
    }
}

/// Muon of a model's matrices.
#[derive(Debug)]
pub(super) struct Muon {
    groups: Vec<(Group, Batch)>,
    arrays: Arrays,
}

impl Muon {
    /// In the memory that [`Arrays::take`] gave for the same model.
    pub fn new(gpu: &Gpu, kind: OptimizerKind, specs: &[TensorSpec], layout: &Layout, arrays: Arrays) -> Result<Self> {
        let mut all = Vec::new();
        for (group, table) in groups(kind, specs).into_iter().zip(&arrays.tables) {
            let begins: Vec<usize> = group.tensors.iter().map(|&index| layout.range(index).start).collect();
            let batch = Batch::new(gpu, table.clone(), &begins, group.rows * group.cols)?;
            all.push((group, batch));
        }
        Ok(Muon { groups: all, arrays })
    }

    /// Whether it has no matrix.
    pub fn is_empty(&self) -> bool {
        self.groups.is_empty()
    }

    /// Launches a step of every matrix. `moments`: the arena of the momentum.
    pub fn step(&self, network: &CudaNetwork, moments: &DeviceArray<f32>, step: &Step) -> Result<()> {
        for (group, batch) in &self.groups {
            self.group(network, moments, step, group, batch)?;
        }
        Ok(())
    }

    /// As [`super::super::muon::step`], in bf16.
    fn group(
        &self,
        network: &CudaNetwork,
        moments: &DeviceArray<f32>,
        step: &Step,
        group: &Group,
        batch: &Batch,
    ) -> Result<()> {
        let gpu = network.gpu();
        let &Group { rows, cols, .. } = group;
        let (count, side) = (batch.count(), group.side());
        let [mut x, mut next] = [0, 1].map(|i| self.arrays.matrices[i].slice(..group.elements()));
        let [gram, square] = [0, 1].map(|i| self.arrays.squares[i].slice(..count * side * side));
        let gradients = network.gradients();
        muon::momentum(gpu, batch, gradients, moments, MOMENTUM, step.guard, step.partials)?;
        muon::normalize(gpu, batch, gradients, moments, MOMENTUM, step.guard, step.partials, &x)?;
        let (a, b, c) = QUINTIC;
        let wide = rows <= cols;
        let gram_layout = if wide { Product::NT } else { Product::TN };
        for _ in 0..ITERATIONS {
            let sizes = (side, side, rows.max(cols));
            gemm_bf16_strided_batched(
                gpu,
                gram_layout,
                sizes,
                count,
                dense(&x, rows, cols),
                dense(&x, rows, cols),
                dense(&gram, side, side),
            )?;
            let sizes = (side, side, side);
            gemm_bf16_strided_batched(
                gpu,
                Product::NN,
                sizes,
                count,
                dense(&gram, side, side),
                dense(&gram, side, side),
                dense(&square, side, side),
            )?;
            muon::combine(gpu, (b, &gram), (c, &square), &square)?;
            let (left, right) = if wide {
                (dense(&square, side, side), dense(&x, rows, cols))
            } else {
                (dense(&x, rows, cols), dense(&square, side, side))
            };
            gemm_bf16_strided_batched(
                gpu,
                Product::NN,
                (rows, cols, side),
                count,
                left,
                right,
                dense(&next, rows, cols),
            )?;
            muon::combine(gpu, (a, &x), (1.0, &next), &next)?;
            std::mem::swap(&mut x, &mut next);
        }
        let size = 0.2 * (rows.max(cols) as f32).sqrt();
        Ok(muon::update(
            gpu,
            batch,
            network.parameters(),
            &x,
            size,
            step.scalars,
            step.guard,
        )?)
    }
}

/// Matrices one behind the other, without gaps.
fn dense(array: &DeviceArray<bf16>, rows: usize, cols: usize) -> Matrices<'_> {
    Matrices {
        array,
        stride: cols,
        step: rows * cols,
    }
}

#[cfg(test)]
mod tests {
    use onebit_model::config::presets;

    use super::*;

    #[test]
    fn matrices_of_one_size_are_a_batch_unless_they_are_large() {
        let preset = |name| presets::by_name(name).unwrap().config.tensors();
        let specs = preset("wikitext2-25m");
        let small = groups(OptimizerKind::Muon, &specs);
        let sizes: Vec<_> = small.iter().map(|g| (g.rows, g.cols, g.tensors.len())).collect();
        assert_eq!(sizes, [(320, 320, 40), (320, 1280, 10), (1280, 320, 10)]);
        assert!(groups(OptimizerKind::AdamW, &specs).is_empty());

        let large = groups(OptimizerKind::Muon, &preset("2b4t"));
        assert!(
            large
                .iter()
                .all(|g| g.tensors.len() == 1 || g.elements() <= BATCH_ELEMENTS)
        );
        let mut tensors: Vec<usize> = large.into_iter().flat_map(|g| g.tensors).collect();
        tensors.sort_unstable();
        let linear = |(_, spec): &(usize, TensorSpec)| matches!(spec.kind, TensorKind::Linear(_));
        let all = preset("2b4t").into_iter().enumerate().filter(linear);
        assert_eq!(tensors, all.map(|(index, _)| index).collect::<Vec<_>>());
    }
}
