//! An arena that ranks divide, and what each has of it.

use super::*;

/// In an arena one behind the other; scales and dense weights have gaps.
pub(super) fn layout(matrices: &[(usize, usize, WeightMode)]) -> Vec<WeightTensor> {
    let (mut codes, mut dense, mut scales) = (0, 8, 3);
    let place = |&(rows, cols, mode): &(usize, usize, WeightMode)| {
        let tensor = WeightTensor {
            master: codes + 8,
            rows,
            cols,
            mode,
            codes,
            dense,
            scales,
        };
        codes += rows * cols;
        dense += rows * cols + 16;
        scales += rows + 1;
        tensor
    };
    matrices.iter().map(place).collect()
}

/// What a rank has.
pub(super) struct Rank {
    pub(super) table: ShardTable,
    pub(super) weights: DeviceArray<f32>,
}

pub(super) struct Case {
    pub(super) gpu: Gpu,
    pub(super) whole: WeightTable,
    /// The arena, behind eight elements that are none of its.
    pub(super) weights: Vec<f32>,
    pub(super) master: DeviceArray<f32>,
    pub(super) scales: DeviceArray<f32>,
    pub(super) ranks: Vec<Rank>,
    pub(super) packed: DeviceArray<u8>,
}

impl Case {
    /// An arena of buckets of `bucket` pieces, each divided among `ranks`: all but the last own as many of its pieces, rounded up.
    pub(super) fn new(gpu: &Gpu, matrices: &[(usize, usize, WeightMode)], ranks: usize, bucket: usize) -> Self {
        let tensors = layout(matrices);
        let last = tensors[tensors.len() - 1];
        let elements = last.codes + last.rows * last.cols;
        let mut random = Random::new();
        let mut weights = random.f32s(elements + 8, 0.02);
        weights[8] = -0.0;
        let whole = WeightTable::new(gpu, &tensors).unwrap();
        let pieces = elements / PIECE;
        let mut owned = vec![Vec::new(); ranks];
        for begin in (0..pieces).step_by(bucket) {
            let end = (begin + bucket).min(pieces);
            let share = (end - begin).div_ceil(ranks);
            for (rank, slices) in owned.iter_mut().enumerate() {
                let range = (begin + rank * share).min(end)..(begin + (rank + 1) * share).min(end);
                slices.push(range);
            }
        }
        let rank = |ranges: &Vec<Range<usize>>| {
            let (mut own, mut slices) = (vec![f32::NAN; 4], Vec::new());
            for range in ranges {
                slices.push(Slice {
                    first: range.start * PIECE,
                    len: range.len() * PIECE,
                    at: own.len(),
                });
                own.extend(&weights[8 + range.start * PIECE..8 + range.end * PIECE]);
                own.resize(own.len() + 4, f32::NAN);
            }
            Rank {
                table: ShardTable::new(gpu, &tensors, &slices).unwrap(),
                weights: gpu.upload(&own).unwrap(),
            }
        };
        Case {
            ranks: owned.iter().map(rank).collect(),
            master: gpu.upload(&weights).unwrap(),
            scales: gpu.poisoned(last.scales + last.rows + 1).unwrap(),
            packed: gpu.poisoned(elements / TRITS).unwrap(),
            gpu: gpu.clone(),
            whole,
            weights,
        }
    }

    pub(super) fn tensors(&self) -> &[WeightTensor] {
        self.whole.tensors()
    }

    pub(super) fn len(&self) -> usize {
        self.weights.len() - 8
    }

    /// What the ranks would add up.
    pub(super) fn sums(&self) -> DeviceArray<f32> {
        let mut all = vec![0.0f32; self.len() / PIECE];
        for rank in &self.ranks {
            let sums = self.gpu.poisoned(all.len()).unwrap();
            rank.table.measure(&self.gpu, &rank.weights, &sums).unwrap();
            for (a, s) in all.iter_mut().zip(self.gpu.download(&sums).unwrap()) {
                assert!(*a == 0.0 || s == 0.0, "a piece with two owners");
                *a += s;
            }
        }
        self.gpu.upload(&all).unwrap()
    }

    /// All ranks measure and pack, into one array, as if gathered.
    pub(super) fn exchange(&self) {
        let sums = self.sums();
        for rank in &self.ranks {
            rank.table.scale(&self.gpu, &sums, &self.scales).unwrap();
            let slices = rank.table.slices().len();
            for which in [0..slices / 2, slices / 2..slices] {
                rank.table.pack(&self.gpu, which, &rank.weights, &self.packed).unwrap();
            }
        }
    }
}
