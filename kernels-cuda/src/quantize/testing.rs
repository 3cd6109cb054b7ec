//! What tests of row kernels share: numbers, errors, quantisers of the CPU, and times.

use half::bf16;
use onebit_kernels_cpu::{isa::Isa, quantize};

use super::{Blend, Codes, RowOutputs};
use crate::device::{DeviceArray, Element, Gpu};

/// Whether sizes should be small.
pub(crate) fn emulated(gpu: &Gpu) -> bool {
    gpu.properties().name.contains("emulated")
}

/// Splitmix64, seeded by the clock; the seed is printed.
pub(crate) struct Random(u64);

impl Random {
    pub fn new() -> Self {
        let seed = std::time::UNIX_EPOCH.elapsed().map_or(1, |t| t.as_nanos() as u64);
        println!("seed {seed}");
        Random(seed)
    }

    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// About normal: the sum of four uniform numbers, scaled.
    pub fn normal(&mut self) -> f32 {
        let z = self.next();
        let sum: i64 = (0..4).map(|i| (z >> (16 * i) & 0xffff) as i64 - 0x8000).sum();
        sum as f32 * (3f32.sqrt() / 65536.0)
    }

    pub fn f32s(&mut self, len: usize, scale: f32) -> Vec<f32> {
        (0..len).map(|_| self.normal() * scale).collect()
    }

    pub fn bf16s(&mut self, len: usize, scale: f32) -> Vec<bf16> {
        (0..len).map(|_| bf16::from_f32(self.normal() * scale)).collect()
    }
}

pub(crate) fn widen(x: &[bf16]) -> Vec<f32> {
    x.iter().map(|x| x.to_f32()).collect()
}

/// Bound of the relative error that rounding to bf16 makes, 2⁻⁸.
pub(crate) const BF16: f64 = 1.0 / 256.0;

/// `‖out − reference‖ / ‖reference‖`; not a number where one of `out` is none.
pub(crate) fn distance(out: impl IntoIterator<Item = f32>, reference: &[f64]) -> f64 {
    let (mut difference, mut norm, mut count) = (0.0, 0.0, 0);
    for (x, r) in out.into_iter().zip(reference) {
        difference += (f64::from(x) - r).powi(2);
        norm += r * r;
        count += 1;
    }
    assert_eq!(count, reference.len());
    if norm == 0.0 {
        difference.sqrt()
    } else {
        (difference / norm).sqrt()
    }
}

/// Arrays for every form of rows `[rows, cols]`, unwritten.
pub(crate) struct Forms {
    pub codes: DeviceArray<i8>,
    pub steps: DeviceArray<f32>,
    pub plain: DeviceArray<bf16>,
    pub blend: DeviceArray<bf16>,
    pub anneal: DeviceArray<f32>,
}

impl Forms {
    pub fn new(gpu: &Gpu, rows: usize, cols: usize, anneal: f32) -> Self {
        Forms {
            codes: gpu.poisoned(rows * cols).unwrap(),
            steps: gpu.poisoned(rows).unwrap(),
            plain: gpu.poisoned(rows * cols).unwrap(),
            blend: gpu.poisoned(rows * cols).unwrap(),
            anneal: gpu.upload(&[anneal]).unwrap(),
        }
    }

    pub fn outputs(&self) -> RowOutputs<'_> {
        RowOutputs {
            codes: Some(Codes {
                values: &self.codes,
                steps: &self.steps,
            }),
            plain: Some(&self.plain),
            blend: Some(Blend {
                values: &self.blend,
                anneal: &self.anneal,
            }),
        }
    }

    /// The codes' form alone.
    pub fn codes_only(&self) -> RowOutputs<'_> {
        RowOutputs {
            codes: self.outputs().codes,
            ..RowOutputs::default()
        }
    }

    /// Compares all forms with what the CPU makes of `y`: bit for bit, or, if `close`, with codes one off at most and bf16 near.
    pub fn check(&self, gpu: &Gpu, y: &[f32], cols: usize, close: bool) {
        let rows = y.len() / cols;
        let (mut codes, mut scales) = (vec![0i8; y.len()], vec![0.0; rows]);
        quantize::absmax_i8(Isa::best(), y, cols, &mut codes, cols, &mut scales);
        let mut opened = vec![0.0; y.len()];
        quantize::dequantize_rows(Isa::best(), &codes, cols, cols, &scales, &mut opened);
        let anneal = gpu.download(&self.anneal).unwrap()[0];
        let blend = y
            .iter()
            .zip(&opened)
            .map(|(y, q)| anneal.mul_add(*q, (1.0 - anneal) * y));
        let found = gpu.download(&self.codes).unwrap();
        let off = found.iter().zip(&codes).filter(|(a, b)| a != b).count();
        let worst = found
            .iter()
            .zip(&codes)
            .map(|(&a, &b)| (i32::from(a) - i32::from(b)).abs())
            .max();
        let steps = gpu.download(&self.steps).unwrap();
        let plain = gpu.download(&self.plain).unwrap();
        let blended = gpu.download(&self.blend).unwrap();
        if close {
            assert!(
                worst <= Some(1) && off <= 2 + y.len() / 1000,
                "{off} of {} codes, by {worst:?}",
                y.len()
            );
            let scales: Vec<f64> = scales.iter().map(|s| 1.0 / f64::from(*s)).collect();
            assert!(distance(steps, &scales) < 1e-5);
            let y: Vec<f64> = y.iter().map(|&y| f64::from(y)).collect();
            assert!(distance(widen(&plain), &y) < BF16);
            let blend: Vec<f64> = blend.map(f64::from).collect();
            // A code that is one off moves its element by up to a 127th of the row's largest.
            assert!(distance(widen(&blended), &blend) < BF16 + 1.0 / 127.0);
        } else {
            assert_eq!(off, 0, "codes of {}, by {worst:?}", y.len());
            let expected: Vec<f32> = scales.iter().map(|s| 1.0 / s).collect();
            assert_eq!(steps, expected);
            assert!(
                plain
                    .iter()
                    .zip(y)
                    .all(|(a, y)| a.to_bits() == bf16::from_f32(*y).to_bits())
            );
            // Whether the GPU joins a product and a sum is the compiler's choice where it is not written; here it is.
            assert!(blended.iter().zip(blend).all(|(a, b)| *a == bf16::from_f32(b)));
        }
    }
}

/// Prints the median time of `launch`, which moves `bytes` through memory.
pub(crate) fn bench(gpu: &Gpu, name: &str, bytes: usize, mut launch: impl FnMut()) {
    const TIMES: usize = 30;
    launch();
    let marks: Vec<_> = (0..=TIMES)
        .map(|i| {
            if i > 0 {
                launch();
            }
            gpu.mark().unwrap()
        })
        .collect();
    let mut seconds: Vec<f64> = marks.windows(2).map(|m| m[1].seconds_since(&m[0]).unwrap()).collect();
    seconds.sort_by(f64::total_cmp);
    let time = seconds[TIMES / 2];
    println!(
        "{name:<60} {:>9.1} us {:>7.0} GB/s",
        time * 1e6,
        bytes as f64 / time / 1e9
    );
}

/// An array for a bench, of bytes that are tame numbers in every type: bf16 and f32 near 1.
pub(crate) fn filled<T: Element>(gpu: &Gpu, len: usize) -> DeviceArray<T> {
    let array = gpu.uninitialized(len).unwrap();
    gpu.fill_bytes(&array, 0x3f).unwrap();
    array
}
