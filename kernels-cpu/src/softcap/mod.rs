//! The soft-cap of logits (Gemma 2, 2024) and its gradient, both in place.
//!
//! ```text
//! y  = cap · tanh(x / cap)
//! dx = dy · (1 − (y / cap)²)
//! ```
//!
//! What is small beside the cap stays as it is, nothing passes it. Pointwise: each array read and written once, `tanh` is `math::tanh`. ±∞ become ±cap, NaN passes
//! through. The function is computed within [`ROUNDING`], and may therefore turn two values around that are closer than that.

use crate::elementwise::pointwise;
use crate::math::tanh;

#[cfg(test)]
mod tests;

/// The most that [`softcap`] is off, as a part of its result: a division, `tanh` within 1.5 units in the last place, and a product. This is so where `x / cap` is a normal
/// number.
pub const ROUNDING: f32 = 4.8e-7;

pointwise! {
    /// `y = cap · tanh(y / cap)`.
    pub fn softcap/softcap_body(s; cap: f32; ; y) {
        let cap = s.splat(cap);
        [s.mul(cap, tanh(s, s.div(y, cap)))]
    }
}

pointwise! {
    /// Backward of [`softcap`] from its result `y`: the gradient of that becomes the gradient of what was capped.
    ///
    /// # Panics
    /// If the lengths differ.
    pub fn softcap_backward/softcap_backward_body(s; cap: f32; y; dx) {
        let t = s.div(y, s.splat(cap));
        [s.mul(dx, s.fnma(t, t, s.splat(1.0)))]
    }
}
