//! From bytes with one scale a token to blocks.

use super::{BLOCK, BLOCK_STEPS, GROUP, InputBlock, blocks};
use crate::simd::LANES;

impl InputBlock {
    /// Where the sums of each lane begin: −8 times the bytes that it is multiplied by.
    pub(super) fn set_offsets(&mut self) {
        let (low, high) = (self.low.as_chunks::<4>().0, self.high.as_chunks::<4>().0);
        for (offset, (low, high)) in self.offsets.iter_mut().zip(low.iter().zip(high)) {
            let sum: i32 = low.iter().chain(high).map(|byte| i32::from(*byte)).sum();
            *offset = -8 * sum;
        }
    }
}

/// The blocks, `out` `[tokens, blocks]`, of activations that are bytes already, `xq` `[tokens, stride]` of which the first `cols` of a token
/// count, with a scale for each token: `x = xq / scales[t]`. The bytes stay what they are, any of −128..=127, and every group's step is
/// `1/scales[t]`, rounded to f32. So [`gemv`](super::gemv) is `Σ_g step_w · (1/s) · Σ q·xq` in its fixed order.
///
/// Portable: bytes change their places, once for all rows.
///
/// # Panics
/// If `xq` is not `[scales.len(), stride]`, `stride < cols` or `out.len()` is not `scales.len() * blocks(cols)`.
pub fn block_input(xq: &[i8], stride: usize, cols: usize, scales: &[f32], out: &mut [InputBlock]) {
    assert!(stride >= cols, "a token has cols bytes");
    assert_eq!(xq.len(), scales.len() * stride, "xq is [tokens, stride]");
    assert_eq!(out.len(), scales.len() * blocks(cols), "out is [tokens, blocks]");
    if out.is_empty() {
        return;
    }
    let tokens = xq.chunks_exact(stride).zip(scales);
    for (out, (xq, scale)) in out.chunks_exact_mut(blocks(cols)).zip(tokens) {
        for (out, xq) in out.iter_mut().zip(xq[..cols].chunks(BLOCK)) {
            let mut whole = [0i8; BLOCK];
            whole[..xq.len()].copy_from_slice(xq);
            let groups = whole.as_chunks::<GROUP>().0;
            let (low, high) = (out.low.as_chunks_mut::<LANES>().0, out.high.as_chunks_mut::<LANES>().0);
            for (group, (low, high)) in groups.iter().zip(low.iter_mut().zip(high)) {
                low.copy_from_slice(&group[..LANES]);
                high.copy_from_slice(&group[LANES..]);
            }
            out.set_offsets();
            out.steps = [1.0 / scale; BLOCK_STEPS];
        }
    }
}
