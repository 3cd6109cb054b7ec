//! Matrices on both sides.

use half::{bf16, f16};
use onebit_kernels_cpu::int4_gemv::{self, InputBlock};
use onebit_kernels_cpu::{Isa, dense_gemv};

use super::*;
use crate::ternary_gemv::tests::Random;

pub(crate) const KINDS: [ChainKind; 5] = [
    ChainKind::F32,
    ChainKind::F16,
    ChainKind::Bf16,
    ChainKind::Int8,
    ChainKind::Int4,
];

/// A matrix on both sides.
pub(crate) struct Chains {
    pub rows: usize,
    pub cols: usize,
    kind: ChainKind,
    floats: Vec<f32>,
    halves: Vec<f16>,
    uppers: Vec<bf16>,
    bytes: Vec<i8>,
    byte_steps: Vec<f32>,
    codes: Vec<u8>,
    code_steps: Vec<f16>,
}

impl Chains {
    pub fn new(random: &mut Random, kind: ChainKind, rows: usize, cols: usize) -> Self {
        let floats = random.floats(rows * cols);
        let (mut codes, mut code_steps) = (
            vec![0; rows * int4_gemv::row_bytes(cols)],
            vec![f16::ZERO; rows * int4_gemv::row_steps(cols)],
        );
        int4_gemv::quantize(Isa::best(), &floats, cols, &mut codes, &mut code_steps);
        Chains {
            rows,
            cols,
            kind,
            halves: floats.iter().map(|w| f16::from_f32(*w)).collect(),
            uppers: floats.iter().map(|w| bf16::from_f32(*w)).collect(),
            bytes: random.bytes(rows * cols),
            byte_steps: (0..rows).map(|_| random.float()).collect(),
            codes,
            code_steps,
            floats,
        }
    }

    pub fn part(&self) -> ChainPart<'_> {
        let values = match self.kind {
            ChainKind::F32 => ChainValues::F32(&self.floats),
            ChainKind::F16 => ChainValues::F16(&self.halves),
            ChainKind::Bf16 => ChainValues::Bf16(&self.uppers),
            ChainKind::Int8 => ChainValues::Int8 {
                values: &self.bytes,
                steps: &self.byte_steps,
            },
            ChainKind::Int4 => ChainValues::Int4 {
                codes: &self.codes,
                steps: &self.code_steps,
            },
        };
        ChainPart {
            rows: self.rows,
            cols: self.cols,
            values,
        }
    }

    /// Row `row` as floats, of int4.
    pub fn row(&self, row: usize) -> Vec<f32> {
        let (bytes, steps) = (int4_gemv::row_bytes(self.cols), int4_gemv::row_steps(self.cols));
        let mut out = vec![0.0; self.cols];
        let (codes, steps) = (
            &self.codes[row * bytes..][..bytes],
            &self.code_steps[row * steps..][..steps],
        );
        int4_gemv::dequantize(codes, steps, self.cols, &mut out);
        out
    }

    /// `[rows]` for one token of floats.
    pub fn product(&self, x: &[f32]) -> Vec<f32> {
        let (isa, mut out) = (Isa::best(), vec![0.0; self.rows]);
        match self.kind {
            ChainKind::F32 => dense_gemv::gemv_f32(isa, &self.floats, x, 1, &mut out),
            ChainKind::F16 => dense_gemv::gemv_f16(isa, &self.halves, x, 1, &mut out),
            ChainKind::Bf16 => dense_gemv::gemv_bf16(isa, &self.uppers, x, 1, &mut out),
            ChainKind::Int8 => dense_gemv::gemv_i8(isa, &self.bytes, &self.byte_steps, x, 1, &mut out),
            ChainKind::Int4 => {
                let mut blocks = vec![InputBlock::ZERO; int4_gemv::blocks(self.cols)];
                int4_gemv::quantize_input(isa, x, self.cols, &mut blocks);
                int4_gemv::gemv(isa, &self.codes, &self.code_steps, &blocks, 1, &mut out);
            }
        }
        out
    }

    /// The formula of an int4 linear for one token of bytes with its scale.
    pub fn product_of_bytes(&self, xq: &[i8], scale: f32) -> Vec<f32> {
        let (row_bytes, row_steps) = (int4_gemv::row_bytes(self.cols), int4_gemv::row_steps(self.cols));
        let value = |column: usize| {
            xq.get(column)
                .filter(|_| column < self.cols)
                .map_or(0, |x| i32::from(*x))
        };
        let rows = self
            .codes
            .chunks_exact(row_bytes)
            .zip(self.code_steps.chunks_exact(row_steps));
        let product = |(codes, steps): (&[u8], &[f16])| {
            let mut lanes = [0.0f32; 16];
            for (group, (codes, step)) in codes.chunks_exact(16).zip(steps).enumerate() {
                let scale = step.to_f32() * (1.0 / scale);
                for s in 0..4 {
                    let sum: i32 = (4 * s..4 * s + 4)
                        .map(|j| {
                            let (low, high) = (i32::from(codes[j] & 15) - 8, i32::from(codes[j] >> 4) - 8);
                            low * value(32 * group + j) + high * value(32 * group + 16 + j)
                        })
                        .sum();
                    let lane = &mut lanes[4 * (group % 4) + s];
                    *lane = (sum as f32).mul_add(scale, *lane);
                }
            }
            for half in [8, 4, 2, 1] {
                for i in 0..half {
                    lanes[i] += lanes[i + half];
                }
            }
            lanes[0]
        };
        rows.map(product).collect()
    }
}
