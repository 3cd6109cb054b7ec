//! Matrices on both sides, random numbers and clocks, for the tests of every kernel of decoding.

use onebit_kernels_cpu::ternary::Layout;
use onebit_kernels_cpu::{Isa, int8_gemv, quantize};

use super::*;

/// Splitmix64.
pub(crate) struct Random(pub u64);

impl Random {
    /// Of the clock, printed.
    pub fn seeded(name: &str) -> Self {
        let seed = std::time::SystemTime::now()
            .duration_since(std::time::UNIX_EPOCH)
            .unwrap()
            .as_nanos() as u64;
        println!("{name}: seed {seed}");
        Random(seed)
    }

    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// In −1..1.
    pub fn float(&mut self) -> f32 {
        (self.next() >> 40) as f32 / (1u64 << 23) as f32 - 1.0
    }

    pub fn floats(&mut self, len: usize) -> Vec<f32> {
        (0..len).map(|_| self.float() * 3.0).collect()
    }

    pub fn bytes(&mut self, len: usize) -> Vec<i8> {
        (0..len).map(|_| self.next() as i8).collect()
    }

    pub fn trits(&mut self, len: usize) -> Vec<i8> {
        (0..len).map(|_| (self.next() % 3) as i8 - 1).collect()
    }
}

/// Codes whose matrices are made of the runtime's, and of bytes.
pub(crate) const CODES: [TernaryCode; 4] = [TernaryCode::B1, TernaryCode::T2, TernaryCode::T5, TernaryCode::Int8];

/// How the runtime has what the GPU has in `code`; bytes lie row by row.
pub(crate) fn layout_of(code: TernaryCode) -> Option<Layout> {
    match code {
        TernaryCode::B1 => Some(Layout::B1),
        TernaryCode::T2 => Some(Layout::T2),
        TernaryCode::T5 => Some(Layout::T5),
        TernaryCode::Int8 => None,
    }
}

/// A matrix on both sides.
pub(crate) struct Both {
    pub code: TernaryCode,
    pub rows: usize,
    pub cols: usize,
    /// One by one.
    pub weights: Vec<i8>,
    pub packed: Vec<u8>,
    pub gamma: f32,
    /// Of bytes.
    pub steps: Vec<f32>,
}

impl Both {
    pub fn new(random: &mut Random, code: TernaryCode, rows: usize, cols: usize) -> Self {
        let weights = match code {
            TernaryCode::Int8 => random.bytes(rows * cols),
            TernaryCode::B1 => random.bytes(rows * cols).iter().map(|w| 2 * (w & 1) - 1).collect(),
            _ => random.trits(rows * cols),
        };
        let packed = match layout_of(code) {
            Some(layout) => {
                let mut packed = vec![0; layout.bytes(rows, cols)];
                layout.pack(&weights, rows, cols, &mut packed);
                packed
            }
            None => weights.iter().map(|w| *w as u8).collect(),
        };
        let gamma = 0.01 + random.float().abs();
        let steps = match code {
            TernaryCode::Int8 => (0..rows).map(|_| random.float()).collect(),
            _ => Vec::new(),
        };
        Both {
            code,
            rows,
            cols,
            weights,
            packed,
            gamma,
            steps,
        }
    }

    pub fn part(&self) -> TernaryPart<'_> {
        TernaryPart {
            code: self.code,
            rows: self.rows,
            cols: self.cols,
            packed: &self.packed,
            gamma: self.gamma,
            steps: &self.steps,
        }
    }

    /// `[rows]` for one token of at least the columns that its blocks have.
    pub fn product(&self, xq: &[i8], scale: f32) -> Vec<f32> {
        let isa = Isa::best();
        let (mut sums, mut out) = (vec![0; self.rows], vec![0.0; self.rows]);
        match layout_of(self.code) {
            Some(layout) => {
                let xq = &xq[..layout.padded_cols(self.cols)];
                onebit_kernels_cpu::ternary_gemv::ternary_gemv(isa, layout, &self.packed, self.cols, xq, &mut sums);
                quantize::scale_sums(isa, &sums, self.gamma / scale, &mut out);
            }
            None => {
                int8_gemv::int8_gemv(isa, &self.weights, self.cols, &xq[..self.cols], &mut sums);
                for ((y, &sum), step) in out.iter_mut().zip(&sums).zip(&self.steps) {
                    *y = sum as f32 * (step / scale);
                }
            }
        }
        out
    }

    /// So many random tokens, `stride` bytes each, all 0 beyond the columns where that counts.
    pub fn tokens(&self, random: &mut Random, tokens: usize, stride: usize) -> Vec<i8> {
        let mut xq = random.bytes(tokens * stride);
        self.clear_padding(&mut xq, stride);
        xq
    }

    /// What lies beyond the columns counts for bits alone.
    pub fn clear_padding(&self, xq: &mut [i8], stride: usize) {
        if self.code == TernaryCode::B1 {
            xq.chunks_exact_mut(stride).for_each(|xq| xq[self.cols..].fill(0));
        }
    }
}

pub(crate) fn bits(x: &[f32]) -> Vec<u32> {
    x.iter().map(|v| v.to_bits()).collect()
}

/// Sizes that are quick on the emulator.
pub(crate) fn small(gpu: &Gpu) -> bool {
    gpu.properties().name.contains("emulated")
}

/// Of one of `count` launches that are recorded one after the other, the median of many replays.
pub(crate) fn microseconds(gpu: &Gpu, count: usize, launch: impl Fn(usize) -> Result<()>) -> f64 {
    let graph = gpu.record(|| (0..count).try_for_each(&launch)).unwrap();
    let mut times: Vec<f64> = (0..21)
        .map(|_| {
            let before = gpu.mark().unwrap();
            graph.launch().unwrap();
            gpu.mark().unwrap().seconds_since(&before).unwrap()
        })
        .collect();
    times.sort_by(f64::total_cmp);
    times[times.len() / 2] * 1e6 / count as f64
}
