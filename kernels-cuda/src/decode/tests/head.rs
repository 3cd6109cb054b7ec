//! Embedding and head.

use half::{bf16, f16};
use onebit_kernels_cpu::{Isa, dense_gemv, rms_norm, softcap};

use crate::decode::*;
use crate::device::Gpu;
use crate::ternary_gemv::tests::{Random, bits, small};

/// A matrix of floats on both sides.
pub(super) struct Floats {
    pub kind: FloatKind,
    pub rows: usize,
    pub cols: usize,
    /// As `kind` keeps them, widened; of int8 without the steps.
    pub values: Vec<f32>,
    steps: Vec<f32>,
}

impl Floats {
    pub fn new(random: &mut Random, kind: FloatKind, rows: usize, cols: usize) -> Self {
        let keep = |v: f32| match kind {
            FloatKind::F32 => v,
            FloatKind::F16 => f16::from_f32(v).to_f32(),
            FloatKind::Bf16 => bf16::from_f32(v).to_f32(),
            // No negative zero, which a byte does not have.
            FloatKind::Int8 => (v * 42.0).round() + 0.0,
        };
        let values = random.floats(rows * cols).into_iter().map(keep).collect();
        let steps = (0..rows).map(|_| 0.01 + random.float().abs()).collect();
        Floats {
            kind,
            rows,
            cols,
            values,
            steps,
        }
    }

    pub fn upload(&self, gpu: &Gpu) -> VocabularyMatrix {
        let bytes: Vec<u8> = match self.kind {
            FloatKind::F32 => self.values.iter().flat_map(|v| v.to_le_bytes()).collect(),
            FloatKind::F16 => self
                .values
                .iter()
                .flat_map(|v| f16::from_f32(*v).to_le_bytes())
                .collect(),
            FloatKind::Bf16 => self
                .values
                .iter()
                .flat_map(|v| bf16::from_f32(*v).to_le_bytes())
                .collect(),
            FloatKind::Int8 => self.values.iter().map(|v| *v as i8 as u8).collect(),
        };
        let steps = (self.kind == FloatKind::Int8).then_some(&self.steps[..]);
        VocabularyMatrix::upload(gpu, self.kind, [self.rows, self.cols], &bytes, steps).unwrap()
    }

    pub fn row(&self, row: usize) -> Vec<f32> {
        let step = if self.kind == FloatKind::Int8 {
            self.steps[row]
        } else {
            1.0
        };
        self.values[row * self.cols..][..self.cols]
            .iter()
            .map(|v| v * step)
            .collect()
    }

    /// Logits of one token.
    pub fn product(&self, x: &[f32]) -> Vec<f32> {
        let (isa, mut out) = (Isa::best(), vec![0.0; self.rows]);
        match self.kind {
            FloatKind::Int8 => {
                let bytes: Vec<i8> = self.values.iter().map(|v| *v as i8).collect();
                dense_gemv::gemv_i8(isa, &bytes, &self.steps, x, 1, &mut out);
            }
            _ => dense_gemv::gemv_f32(isa, &self.values, x, 1, &mut out),
        }
        out
    }
}

/// Of the largest, the lowest.
pub(super) fn greedy(logits: &[f32]) -> u32 {
    (1..logits.len()).fold(0, |best, i| if logits[i] > logits[best] { i } else { best }) as u32
}

pub(super) const KINDS: [FloatKind; 4] = [FloatKind::F32, FloatKind::F16, FloatKind::Bf16, FloatKind::Int8];

#[test]
fn embedding_and_head_have_the_bits_of_the_cpu() {
    let Some(gpu) = Gpu::for_test("embedding and head") else {
        return;
    };
    let mut random = Random::seeded("embedding and head");
    let mut sizes = vec![(1, 1), (31, 16), (33, 17), (200, 80), (517, 100)];
    if !small(&gpu) {
        sizes.extend([(32_000, 768), (128_256, 2560)]);
    }
    for (rows, cols) in sizes {
        for kind in KINDS {
            let mut both = Floats::new(&mut random, kind, rows, cols);
            if rows > 100 {
                // A tie.
                both.values.copy_within(70 * cols..71 * cols, 99 * cols);
                both.steps[99] = both.steps[70];
            }
            let (matrix, norm) = (both.upload(&gpu), random.floats(cols));
            let w = gpu.upload(&norm).unwrap();
            for tokens in [1, 2, 4, 5, 13] {
                let mut values = random.floats(tokens * cols);
                if rows > 100 {
                    let row = both.row(70);
                    values[..cols]
                        .iter_mut()
                        .zip(row)
                        .zip(&norm)
                        .for_each(|((v, row), w)| *v = 4.0 * row * w.signum());
                }
                let x = gpu.upload(&values).unwrap();
                let output = HeadOutput::new(&gpu, tokens, 20).unwrap();
                gpu.write(&output.position, &[3]).unwrap();
                let logits = gpu.poisoned::<f32>(tokens * rows).unwrap();
                // Where the cap is small, much is equal behind it.
                let cap = [None, Some(3.0), Some(0.01)][(rows + tokens) % 3];
                head(&gpu, &matrix, &x, &w, (1e-5, cap), Some(&logits), &output, tokens).unwrap();
                let (found, best) = (gpu.download(&logits).unwrap(), gpu.download(&output.best).unwrap());
                for t in 0..tokens {
                    let mut normed = vec![0.0; cols];
                    rms_norm::rms_norm(Isa::best(), &values[t * cols..][..cols], &norm, 1e-5, &mut normed);
                    let mut want = both.product(&normed);
                    if let Some(cap) = cap {
                        softcap::softcap(Isa::best(), cap, &mut want);
                    }
                    assert_eq!(
                        bits(&found[t * rows..][..rows]),
                        bits(&want),
                        "{kind:?} {rows} x {cols}, {t} of {tokens}"
                    );
                    assert_eq!(best[t], greedy(&want), "{kind:?} {rows} x {cols}, {t} of {tokens}");
                }
                assert_eq!(gpu.download(&output.position).unwrap(), [3 + tokens as u32]);
                assert_eq!(gpu.download(&output.ids).unwrap()[3 + tokens], best[tokens - 1]);

                let ids: Vec<u32> = (0..20).map(|_| (random.next() % rows as u64) as u32).collect();
                gpu.write(&output.ids, &ids).unwrap();
                gpu.write(&output.position, &[2]).unwrap();
                let x = gpu.poisoned::<f32>(tokens * cols).unwrap();
                embed(&gpu, &matrix, &output.ids, &output.position, &x).unwrap();
                let want: Vec<f32> = ids[2..2 + tokens]
                    .iter()
                    .flat_map(|id| both.row(*id as usize))
                    .collect();
                assert_eq!(
                    bits(&gpu.download(&x).unwrap()),
                    bits(&want),
                    "{kind:?} {rows} x {cols}"
                );
            }
        }
    }
    let matrix = Floats::new(&mut random, FloatKind::F32, 40, 16).upload(&gpu);
    let (x, output) = (gpu.zeros::<f32>(16).unwrap(), HeadOutput::new(&gpu, 1, 4).unwrap());
    assert!(head(&gpu, &matrix, &x, &x.slice(1..), (0.0, None), None, &output, 0).is_err());
    assert!(
        head(
            &gpu,
            &matrix,
            &gpu.zeros(32).unwrap(),
            &x,
            (0.0, None),
            None,
            &output,
            0
        )
        .is_err()
    );
    assert!(embed(&gpu, &matrix, &output.ids, &output.ids, &x).is_err());
    assert!(VocabularyMatrix::upload(&gpu, FloatKind::Int8, [2, 2], &[0; 4], None).is_err());
}
