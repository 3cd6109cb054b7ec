//! Dropout (Srivastava et al. 2014) as a part of other kernels: its mask is a pure function of a random-number key and the element's index.

use crate::device::{CudaError, DeviceArray, Launch, Result};
use crate::quantize::need;

/// `x[i] / (1 − p)` where number `i` of the stream (`seed`, `purpose`, `step`) is at least `p`, else 0.
///
/// The stream is Philox4x32-10, as `onebit_kernels_cpu::rng::Key` has it, and the mask that of `onebit_kernels_cpu::dropout` over the whole array, bit for bit.
#[derive(Clone, Copy, Debug)]
pub struct Dropout<'a> {
    /// Probability of zeroing an element, in `[0, 1)`.
    pub p: f32,
    /// Seed of the run.
    pub seed: u64,
    /// What the stream is for: the purpose of dropout plus the number of the place in the network.
    pub purpose: u32,
    /// A number that differs for each micro-batch, `[1]`.
    pub step: &'a DeviceArray<u32>,
}

impl Dropout<'_> {
    /// Appends the arguments that kernels take it as; without one, a null pointer to the step.
    pub(crate) fn push<'g>(this: Option<&Self>, op: &'static str, launch: Launch<'g>) -> Result<Launch<'g>> {
        let Some(d) = this else {
            return Ok(launch.u64(0).u64(0).u32(0).u32(0).f32(1.0));
        };
        if !(0.0..1.0).contains(&d.p) {
            return Err(CudaError::shape(op, "a dropout probability in [0, 1)", d.p));
        }
        need(op, "step of dropout", d.step, 1)?;
        // A uniform number is (word >> 8)·2⁻²⁴, so that comparing it with `p` is a comparison of integers.
        let exact = d.p * 16_777_216.0;
        let threshold = exact as usize + usize::from(exact as u32 as f32 != exact);
        Ok(launch
            .array(d.step)
            .u64(d.seed)
            .u32(d.purpose as usize)
            .u32(threshold)
            .f32(1.0 / (1.0 - d.p)))
    }
}
