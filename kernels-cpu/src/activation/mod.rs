//! Activations of the feed-forward network and their gradients.
//!
//! | kernel | value | gradient |
//! |---|---|---|
//! | `relu2` | `r²`, `r = max(x, 0)` (So et al., "Primer", 2021) | `2·r·dy` |
//! | `relu2_gate` | `max(g, 0)²·u` | `dg = 2·max(g, 0)·u·dy`, `du = max(g, 0)²·dy` |
//! | `silu` | `x·σ(x)` | within `swiglu` |
//! | `swiglu` | `g·σ(g)·u` (Shazeer, "GLU variants", 2020) | `dg = σ(g)·(1 + g·(1 − σ(g)))·u·dy`, `du = g·σ(g)·dy` |
//!
//! Pointwise, each array read or written once. NaN passes through. The logistic function is `math::sigmoid`.

use crate::elementwise::pointwise;
use crate::math::sigmoid;

#[cfg(test)]
mod tests;

pointwise! {
    /// `out = max(x, 0)²`.
    ///
    /// # Panics
    /// If the lengths differ.
    pub fn relu2/relu2_body(s;; x; out) {
        // `max` returns its second operand where either is NaN.
        let r = s.max(s.splat(0.0), x);
        [s.mul(r, r)]
    }
}

pointwise! {
    /// Backward of [`relu2`]: writes `dx`.
    ///
    /// # Panics
    /// If the lengths differ.
    pub fn relu2_backward/relu2_backward_body(s;; x, dy; dx) {
        let r = s.max(s.splat(0.0), x);
        [s.mul(s.add(r, r), dy)]
    }
}

pointwise! {
    /// `out = max(g, 0)² · u`.
    ///
    /// # Panics
    /// If the lengths differ.
    pub fn relu2_gate/relu2_gate_body(s;; g, u; out) {
        let r = s.max(s.splat(0.0), g);
        [s.mul(s.mul(r, r), u)]
    }
}

pointwise! {
    /// Backward of [`relu2_gate`]: writes `dg` and `du`.
    ///
    /// # Panics
    /// If the lengths differ.
    pub fn relu2_gate_backward/relu2_gate_backward_body(s;; g, u, dy; dg, du) {
        let r = s.max(s.splat(0.0), g);
        [s.mul(s.mul(s.add(r, r), u), dy), s.mul(s.mul(r, r), dy)]
    }
}

pointwise! {
    /// `out = x · σ(x)`.
    ///
    /// # Panics
    /// If the lengths differ.
    pub fn silu/silu_body(s;; x; out) { [s.mul(x, sigmoid(s, x))] }
}

pointwise! {
    /// `out = g · σ(g) · u`.
    ///
    /// # Panics
    /// If the lengths differ.
    pub fn swiglu/swiglu_body(s;; g, u; out) { [s.mul(s.mul(g, sigmoid(s, g)), u)] }
}

pointwise! {
    /// Backward of [`swiglu`]: writes `dg` and `du`.
    ///
    /// # Panics
    /// If the lengths differ.
    pub fn swiglu_backward/swiglu_backward_body(s;; g, u, dy; dg, du) {
        let one = s.splat(1.0);
        let sigma = sigmoid(s, g);
        let slope = s.mul(sigma, s.fma(g, s.sub(one, sigma), one));
        [s.mul(s.mul(slope, u), dy), s.mul(s.mul(g, sigma), dy)]
    }
}
