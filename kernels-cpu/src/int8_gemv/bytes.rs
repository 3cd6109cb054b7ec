//! The body over [`Bytes`]: two accumulators along one row, and the formula for what is left of 64.

use crate::bytes::{Bytes, byte_kernel};

byte_kernel! {
    /// See [`super::int8_gemv`].
    pub(super) fn gemv(w: &[i8], xq: &[i8], out: &mut [i32]) = gemv_body;
}

#[inline(always)]
fn gemv_body<B: Bytes>(b: B, w: &[i8], xq: &[i8], out: &mut [i32]) {
    let (xs, x_tail) = xq.as_chunks::<64>();
    let sum: i32 = xs.as_flattened().iter().map(|v| i32::from(*v)).sum();
    let correction = sum.wrapping_mul(B::OFFSET);
    for (row, out) in w.chunks_exact(xq.len()).zip(out) {
        let (row, tail) = row.as_chunks::<64>();
        let (zero, mut acc) = (b.sums(0), [b.sums(0); 2]);
        for (w, x) in row.iter().zip(xs) {
            for part in 0..B::PARTS {
                let sum = &mut acc[part % 2];
                *sum = b.dot_any(*sum, b.signed(b.load(w, part)), b.load(x, part));
            }
        }
        let whole = b.total([[b.add(acc[0], acc[1]), zero, zero], [zero; 3], [zero; 3], [zero; 3]])[0];
        let rest: i32 = tail
            .iter()
            .zip(x_tail)
            .map(|(w, x)| i32::from(*w) * i32::from(*x))
            .sum();
        *out = whole.wrapping_sub(correction).wrapping_add(rest);
    }
}
