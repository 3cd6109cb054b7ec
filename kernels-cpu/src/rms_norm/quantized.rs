//! The norm and the int8 quantiser of the linear behind it in one: the normed row is not stored.

use super::reciprocal_rms;
use crate::quantize::{SCALE_FLOOR, round_clamp};
use crate::simd::{LANES, Simd, simd_kernel};

simd_kernel! {
    /// [`absmax_i8`](crate::quantize::absmax_i8) of [`rms_norm`](super::rms_norm()), bit for bit: for each row of `x`,
    /// `[rows, w.len()]`, `scales[r] = s` and row `r` of `out`, `[rows, out_stride]`, the bytes followed by zeros.
    ///
    /// # Panics
    /// If `w` is empty, `x.len() != scales.len() * w.len()`, `out_stride < w.len()` or `out.len() != scales.len() * out_stride`.
    pub fn rms_norm_i8(
        x: &[f32], w: &[f32], eps: f32, out: &mut [i8], out_stride: usize, scales: &mut [f32],
    ) = body;
}

#[inline(always)]
fn body<S: Simd>(s: S, x: &[f32], w: &[f32], eps: f32, out: &mut [i8], out_stride: usize, scales: &mut [f32]) {
    let n = w.len();
    assert!(n > 0, "a row has values");
    assert_eq!(x.len(), scales.len() * n, "x is [rows, n], with a scale for each row");
    assert!(out_stride >= n, "a row of out holds n bytes");
    assert_eq!(out.len(), scales.len() * out_stride, "out is [rows, out_stride]");
    let (ws, w_rest) = w.as_chunks::<LANES>();
    let w_rest = s.load_or(w_rest, 0.0);
    for (r, scale) in scales.iter_mut().enumerate() {
        let row = &x[r * n..(r + 1) * n];
        let by = s.splat(reciprocal_rms(s, row, eps));
        let (xs, x_rest) = row.as_chunks::<LANES>();
        // Taken again when the scale is known: two products are cheaper than a store and a load.
        macro_rules! normed {
            ($x:expr, $w:expr) => {
                s.mul(s.mul($x, by), $w)
            };
        }
        let rest = normed!(s.load_or(x_rest, 0.0), w_rest);
        // Four chains, as a maximum does not depend on the order. A NaN at the left of `max` is passed over, as in the quantiser.
        let zero = s.splat(0.0);
        let mut most = [zero, zero, zero, s.max(s.abs(rest), zero)];
        let (x_quads, x_more) = xs.as_chunks::<4>();
        let (w_quads, w_more) = ws.as_chunks::<4>();
        for (x, w) in x_quads.iter().zip(w_quads) {
            for i in 0..4 {
                most[i] = s.max(s.abs(normed!(s.load(&x[i]), s.load(&w[i]))), most[i]);
            }
        }
        for (x, w) in x_more.iter().zip(w_more) {
            most[0] = s.max(s.abs(normed!(s.load(x), s.load(w))), most[0]);
        }
        let most = s.reduce_max(s.max(s.max(most[0], most[1]), s.max(most[2], most[3])));
        *scale = 127.0 / most.max(SCALE_FLOOR);
        let v = s.splat(*scale);
        let (bytes, pad) = out[r * out_stride..(r + 1) * out_stride].split_at_mut(n);
        let (outs, out_rest) = bytes.as_chunks_mut::<LANES>();
        for ((x, w), out) in xs.iter().zip(ws).zip(outs) {
            let y = normed!(s.load(x), s.load(w));
            s.store_i8(round_clamp(s, y, v, -128.0, 127.0), out);
        }
        if !out_rest.is_empty() {
            let mut last = [0; LANES];
            s.store_i8(round_clamp(s, rest, v, -128.0, 127.0), &mut last);
            out_rest.copy_from_slice(&last[..out_rest.len()]);
        }
        pad.fill(0);
    }
}

#[cfg(test)]
mod tests {
    use alloc::vec;
    use alloc::vec::Vec;

    use super::*;
    use crate::isa::Isa;
    use crate::quantize::absmax_i8;
    use crate::rms_norm::rms_norm;

    #[test]
    fn the_same_bytes_and_scales_as_one_after_the_other() {
        for n in [1, 3, 15, 16, 17, 63, 64, 65, 80, 127, 128, 511, 1408] {
            for rows in [0, 1, 2, 5] {
                let value = |i: usize| ((i * 7919 % 1013) as f32 - 506.0) / 97.0;
                let mut x: Vec<f32> = (0..rows * n).map(value).collect();
                let w: Vec<f32> = (0..n).map(|i| 0.5 + value(i + 11) / 9.0).collect();
                for odd in [0.0, 1e30, f32::NAN, f32::INFINITY, -0.0] {
                    if let Some(last) = x.last_mut() {
                        *last = odd;
                    }
                    let stride = n + n % 5;
                    for isa in Isa::available() {
                        let mut normed = vec![0.0; rows * n];
                        let mut want = (vec![3i8; rows * stride], vec![0.0; rows]);
                        rms_norm(isa, &x, &w, 1e-5, &mut normed);
                        absmax_i8(isa, &normed, n, &mut want.0, stride, &mut want.1);
                        let mut got = (vec![7i8; rows * stride], vec![0.0; rows]);
                        rms_norm_i8(isa, &x, &w, 1e-5, &mut got.0, stride, &mut got.1);
                        let bits = |x: &[f32]| x.iter().map(|v| v.to_bits()).collect::<Vec<_>>();
                        assert_eq!(bits(&got.1), bits(&want.1), "{} {rows} x {n}", isa.name());
                        // Where a row is not finite bytes are unspecified.
                        if odd.is_finite() {
                            assert_eq!(got.0, want.0, "{} {rows} x {n}", isa.name());
                        }
                    }
                }
            }
        }
    }
}
