//! What a dot product can be at most, by the integer sum that stands for it.
//!
//! A row `w` is kept as bytes, `ŵ = unit · wq`, and an input `x` as `x̂ = step · xq`. Then
//!
//! ```text
//! w·x = ŵ·x̂ + ŵ·(x − x̂) + (w − ŵ)·x  ≤  unit · step · Σ wq·xq + ‖ŵ‖ · ‖x − x̂‖ + ‖w − ŵ‖ · ‖x‖
//! ```
//!
//! (Cauchy and Schwarz). The last two are lengths of rows times lengths of the input.

#[cfg(test)]
mod tests;

use crate::simd::{LANES, Simd, simd_kernel};

/// What is known of the rows, `[rows]` each.
#[derive(Clone, Copy, Debug)]
pub struct Rows<'a> {
    /// What a byte of the row stands for.
    pub unit: &'a [f32],
    /// The row's length, `‖ŵ‖` or more.
    pub length: &'a [f32],
    /// How far its bytes are off, `‖w − ŵ‖` or more.
    pub off: &'a [f32],
}

/// What is known of the input.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Input {
    /// What a byte of it stands for.
    pub step: f32,
    /// Its length, `‖x‖` or more.
    pub length: f32,
    /// How far its bytes are off, `‖x − x̂‖` or more.
    pub off: f32,
}

simd_kernel! {
    /// `most[r] = sums[r] · (unit[r] · step) + ‖ŵ[r]‖ · ‖x − x̂‖ + ‖w[r] − ŵ[r]‖ · ‖x‖`, `[rows]`, and the largest of them (−∞ without rows).
    ///
    /// # Panics
    /// If `sums`, `most` and `rows` differ in length.
    pub fn most(sums: &[i32], rows: Rows<'_>, x: Input, most: &mut [f32]) -> f32 = body;
}

#[inline(always)]
fn body<S: Simd>(s: S, sums: &[i32], rows: Rows<'_>, x: Input, most: &mut [f32]) -> f32 {
    let Rows { unit, length, off } = rows;
    assert!(
        [sums.len(), unit.len(), length.len(), off.len()] == [most.len(); 4],
        "sums, figures of rows and results are as many"
    );
    let [step, x_length, x_off] = [x.step, x.length, x.off].map(|v| s.splat(v));
    let mut largest = s.splat(f32::NEG_INFINITY);
    let whole = most.len() / LANES * LANES;
    let (sums, sums_rest) = sums.split_at(whole);
    let (unit, unit_rest) = unit.split_at(whole);
    let (length, length_rest) = length.split_at(whole);
    let (off, off_rest) = off.split_at(whole);
    let (most, most_rest) = most.split_at_mut(whole);
    let figures = (unit.as_chunks::<LANES>().0.iter())
        .zip(length.as_chunks::<LANES>().0)
        .zip(off.as_chunks::<LANES>().0);
    for ((sum, ((unit, length), off)), most) in
        (sums.as_chunks::<LANES>().0.iter().zip(figures)).zip(most.as_chunks_mut::<LANES>().0)
    {
        let bound = s.fma(s.load(length), x_off, s.mul(s.load(off), x_length));
        let value = s.fma(s.load_i32(sum), s.mul(s.load(unit), step), bound);
        largest = s.max(largest, value);
        s.store(value, most);
    }
    let mut largest = s.reduce_max(largest);
    let figures = unit_rest.iter().zip(length_rest).zip(off_rest);
    for ((sum, ((unit, length), off)), most) in sums_rest.iter().zip(figures).zip(most_rest) {
        *most = *sum as f32 * (unit * x.step) + (length * x.off + off * x.length);
        largest = largest.max(*most);
    }
    largest
}
