//! What both shortcuts to the largest logits do: rows of the head that are computed exactly, and where a threshold lies before the cap.

use onebit_kernels_cpu::{Isa, dense_gemv, int4_gemv, softcap};

use super::floats::{FloatMatrix, FloatValues};
use super::linear::Input;
use super::sketch::Top;
use crate::sampling::filters::Candidate;

/// Rows computed exactly for the threshold beside the `count` that are needed at least: a better threshold leaves fewer rows.
pub(super) const MORE: usize = 8;

/// Some rows of the product of `head` and `x`.
pub(super) fn some_rows(isa: Isa, head: &FloatMatrix, x: Input<'_>, rows: &[u32], out: &mut [f32]) {
    match &head.values {
        FloatValues::F32(w) => dense_gemv::gather_f32(isa, w, x.float, rows, out),
        FloatValues::F16(w) => dense_gemv::gather_f16(isa, w, x.float, rows, out),
        FloatValues::Bf16(w) => dense_gemv::gather_bf16(isa, w, x.float, rows, out),
        FloatValues::Int8 { values, steps } => dense_gemv::gather_i8(isa, values, steps, x.float, rows, out),
        FloatValues::Int4 { codes, steps, .. } => int4_gemv::gather(isa, codes, steps, x.blocks, rows, out),
        // Such a head has no sketch, which would be as large.
        FloatValues::Trits { .. } => out.fill(0.0),
    }
}

/// What the logits that are among the `top` reach before the cap, by the rows that `candidates` names, of which those that count are at least as many: computed exactly, `top.count`-th of all. `None` if it is no
/// number. `chosen` and `exact` have room for the rows.
pub(super) fn threshold(
    isa: Isa,
    (head, cap): (&FloatMatrix, Option<f32>),
    x: Input<'_>,
    top: Top<'_>,
    candidates: &[Candidate],
    chosen: &mut [u32],
    exact: &mut [f32],
) -> Option<f32> {
    let (chosen, exact) = (&mut chosen[..candidates.len()], &mut exact[..candidates.len()]);
    chosen.iter_mut().zip(candidates).for_each(|(row, c)| *row = c.id);
    some_rows(isa, head, x, chosen, exact);
    let (_, threshold, _) = exact.select_nth_unstable_by(top.count - 1, |a, b| b.total_cmp(a));
    let threshold = threshold.is_finite().then_some(*threshold)?;
    Some(cap.map_or(threshold, |cap| surely_below(isa, cap, threshold)))
}

/// A logit below `threshold`: what is below it is also capped to less than what is at least `threshold`. The cap takes different logits to one and its roundings may turn
/// two around, and of those that are equal when they are capped the lowest id is wanted, so that rows just below the threshold count.
fn surely_below(isa: Isa, cap: f32, threshold: f32) -> f32 {
    /// More than what is lost where numbers are too small to have all their digits.
    const TINY: f32 = 1e-36;
    let capped = |x: f32| {
        let mut y = [x];
        softcap::softcap(isa, cap, &mut y);
        y[0]
    };
    // Once from the logit to what is computed of it, and once for the bound itself.
    let room = |y: f32| 2.0 * softcap::ROUNDING * y.abs();
    let least = capped(threshold);
    let least = least - room(least);
    let mut step = (threshold.abs() * softcap::ROUNDING).max(TINY);
    loop {
        let below = threshold - step;
        let most = capped(below);
        // Where the cap is flat on both sides nothing is below, and the whole head is read.
        if most + room(most) + TINY < least || below == f32::NEG_INFINITY {
            return below;
        }
        step *= 2.0;
    }
}
