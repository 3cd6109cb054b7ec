//! The activation of the feed-forward network, the sub-norm behind it and the quantiser, in one pass.
//!
//! ```text
//! h = relu(g)²·u  |  silu(g)·u  |  relu(u)²        r = 1 / sqrt(mean(h²) + eps)     y = (h·r)·w     → int8, bf16, or their blend (RowOutputs)
//! backward: dh = r·(dy·w − ĥ·mean(dy·w·ĥ)), ĥ = h·r    (dh = dy without sub-norm)      dw = Σ_rows dy·ĥ
//!           dg = 2·relu(g)·u·dh,  du = relu(g)²·dh     |  dg = σ(g)·(1 + g·(1 − σ(g)))·u·dh,  du = g·σ(g)·dh     |  du = 2·relu(u)·dh
//! ```
//! `gate_up` `[rows, 2·width]` has the gate in its first `width` columns. `h` is never stored: the backward computes it again from `gate_up`.
//!
//! **Cost**, bytes for an element of `h`: forward 4 (2 without a gate) and the outputs, backward 6 and 4 written (4 and 2 without a gate). A block has a row, of at most
//! [`MAX_COLS`] elements, in registers. The order of sums is that of the norms ([`rms_norm`](crate::rms_norm)).

#[cfg(test)]
mod tests;

use half::bf16;

use crate::device::{DeviceArray, Gpu, Kernel, Launch, Module, Result, ptx};
use crate::quantize::{MAX_COLS, RowForm, RowOutputs, need, need_aligned};
use crate::rms_norm::{Norm, WeightGradient, Workers, check_weight_gradient, column_sums};

static MODULE: Module = ptx!("kernel.ptx");
const FORWARD: [Kernel; 2] = [MODULE.kernel("activation_16"), MODULE.kernel("activation_32")];
const BACKWARD: [Kernel; 2] = [
    MODULE.kernel("activation_backward_16"),
    MODULE.kernel("activation_backward_32"),
];

/// What happens between the up projection and the down projection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Activation {
    /// `relu(g)²·u`, BitNet b1.58 2B4T.
    Relu2Gate,
    /// `silu(g)·u`, SwiGLU (Shazeer 2020).
    SiluGate,
    /// `relu(u)²`, without a gate.
    Relu2,
}

impl Activation {
    /// Columns of `gate_up` for `width` columns of `h`.
    pub fn inputs(self, width: usize) -> usize {
        match self {
            Activation::Relu2 => width,
            _ => 2 * width,
        }
    }

    fn number(self) -> usize {
        match self {
            Activation::Relu2Gate => 0,
            Activation::SiluGate => 1,
            Activation::Relu2 => 2,
        }
    }
}

/// The sub-norm of a forward.
#[derive(Clone, Copy, Debug)]
pub struct SubNorm<'a> {
    /// Its weight `[width]` and eps.
    pub norm: Norm<'a>,
    /// Written, `[rows]`: what the backward reads.
    pub rstd: &'a DeviceArray<f32>,
}

/// The sub-norm of a backward.
#[derive(Clone, Copy, Debug)]
pub struct SubNormBackward<'a> {
    /// `[width]`.
    pub weight: &'a DeviceArray<f32>,
    /// As the forward left it, `[rows]`.
    pub rstd: &'a DeviceArray<f32>,
    /// Gradient of the weight.
    pub dw: WeightGradient<'a>,
}

/// The activation of `gate_up` `[rows, 2·width]` (`[rows, width]` without a gate), normalised by `sub_norm`, in the forms of `out` `[rows, width]`.
///
/// # Errors
/// `width` that is no multiple of 8 or above [`MAX_COLS`], lengths that differ.
pub fn activation(
    gpu: &Gpu,
    kind: Activation,
    gate_up: &DeviceArray<bf16>,
    rows: usize,
    width: usize,
    sub_norm: Option<&SubNorm<'_>>,
    out: &RowOutputs<'_>,
) -> Result<()> {
    const OP: &str = "activation";
    let form = form(OP, width)?;
    need_aligned(OP, "gate_up", gate_up, rows * kind.inputs(width))?;
    if let Some(sub) = sub_norm {
        need_aligned(OP, "weight", sub.norm.weight, width)?;
        need(OP, "rstd", sub.rstd, rows)?;
    }
    out.check(OP, rows, width)?;
    let launch = Launch::new(gpu, FORWARD[form.kernel - 2], form.grid(OP, rows)?, form.threads)
        .array(gate_up)
        .u32(kind.number())
        .optional(sub_norm.map(|s| s.norm.weight))
        .f32(sub_norm.map_or(0.0, |s| s.norm.eps))
        .optional(sub_norm.map(|s| s.rstd));
    // SAFETY: every array holds `rows` rows, and threads leave alone what is at or behind column `width`.
    unsafe { out.push(launch).u32(rows).u32(width).run() }
}

/// The backward of [`activation`]: from `dy` `[rows, width]`, the gradient of what the forward wrote, to `dgate_up`, laid out as `gate_up` (and not the same array).
///
/// # Errors
/// As [`activation`].
pub fn activation_backward(
    gpu: &Gpu,
    kind: Activation,
    dy: &DeviceArray<bf16>,
    gate_up: &DeviceArray<bf16>,
    rows: usize,
    width: usize,
    sub_norm: Option<&SubNormBackward<'_>>,
    dgate_up: &DeviceArray<bf16>,
) -> Result<()> {
    const OP: &str = "activation_backward";
    form(OP, width)?.grid(OP, rows)?;
    need_aligned(OP, "dy", dy, rows * width)?;
    need_aligned(OP, "gate_up", gate_up, rows * kind.inputs(width))?;
    need_aligned(OP, "dgate_up", dgate_up, rows * kind.inputs(width))?;
    if let Some(sub) = sub_norm {
        need_aligned(OP, "weight", sub.weight, width)?;
        need(OP, "rstd", sub.rstd, rows)?;
        check_weight_gradient(OP, &sub.dw, width)?;
    }
    let workers = Workers::new(rows, width, false);
    // SAFETY: every array holds `rows` rows, threads leave alone what is at or behind column `width`, and there is a row of partial sums for each block.
    unsafe {
        Launch::new(
            gpu,
            BACKWARD[workers.kernel - 1],
            [workers.blocks as u32, 1, 1],
            workers.threads,
        )
        .array(dy)
        .array(gate_up)
        .u32(kind.number())
        .optional(sub_norm.map(|s| s.weight))
        .optional(sub_norm.map(|s| s.rstd))
        .array(dgate_up)
        .optional(sub_norm.map(|s| s.dw.partials))
        .u32(rows)
        .u32(width)
        .run()?;
    }
    match sub_norm {
        Some(sub) => column_sums(gpu, &sub.dw, workers.blocks, width),
        None => Ok(()),
    }
}

fn form(op: &'static str, width: usize) -> Result<RowForm> {
    RowForm::new(op, width, 8)?;
    debug_assert!(width <= MAX_COLS);
    Ok(RowForm::block(width))
}
