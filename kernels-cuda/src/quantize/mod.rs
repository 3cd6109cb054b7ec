//! Rows of activations to bytes and back.
//!
//! ```text
//! s = 127 / max(max|y|, 1e-5)     q = clamp(round(y · s), −128, 127)     step = 1 / s     per row, ties to even
//! plain = bf16(y)                 blend = bf16((1 − a) · y + a · q · step)
//! ```
//! [`blend_groups`] has a step for each 32 columns instead, `most = max(max|y|, 1e-30)`, `q = clamp(round(y · 127/most), ±127)`, `step = most/127` (NaN where a `y` is not finite): an
//! int4 head's input, as `onebit_kernels_cpu::int4_gemv` has it.
//!
//! The divisions are true divisions and `y` is f32, so that `q` and `q · step` are the CPU's bits (`onebit_kernels_cpu::quantize`) for equal `y`. A NaN never raises
//! the maximum, and is itself −128.
//!
//! [`RowOutputs`] says which of the three forms of a row a kernel leaves behind: the norms, the activation and [`quantize`] share it.
//!
//! **Cost**: `quantize` reads 2 bytes an element once and writes what is asked for; `blend_groups` reads 2 and writes 2; `dequantize` reads 1 byte and writes 2.

#[cfg(test)]
pub(crate) mod testing;
#[cfg(test)]
mod tests;

use half::bf16;

use crate::device::{CudaError, DeviceArray, Gpu, Kernel, Launch, Module, Result, ptx};
use crate::weights::GROUP_COLUMNS;

static MODULE: Module = ptx!("kernel.ptx");
const QUANTIZE: [Kernel; 4] = [
    MODULE.kernel("quantize_warp16"),
    MODULE.kernel("quantize_warp32"),
    MODULE.kernel("quantize_block16"),
    MODULE.kernel("quantize_block32"),
];
const BLEND_GROUPS: Kernel = MODULE.kernel("blend_groups");
const DEQUANTIZE: Kernel = MODULE.kernel("dequantize");

/// Rows as int8, a step for each.
#[derive(Clone, Copy, Debug)]
pub struct Codes<'a> {
    /// `[rows, cols]`.
    pub values: &'a DeviceArray<i8>,
    /// What 1 stands for, `[rows]`.
    pub steps: &'a DeviceArray<f32>,
}

/// Rows mixed with their quantised form: the activations of the anneal phase.
#[derive(Clone, Copy, Debug)]
pub struct Blend<'a> {
    /// `[rows, cols]`.
    pub values: &'a DeviceArray<bf16>,
    /// The annealing value `a`, `[1]`: 0 leaves the rows as they are, 1 takes the quantised form.
    pub anneal: &'a DeviceArray<f32>,
}

/// What a kernel that ends in rows writes of them; any of the three, or several.
#[derive(Clone, Copy, Debug, Default)]
pub struct RowOutputs<'a> {
    /// As int8 with a step.
    pub codes: Option<Codes<'a>>,
    /// As they are, rounded to bf16, `[rows, cols]`.
    pub plain: Option<&'a DeviceArray<bf16>>,
    /// Mixed with their quantised form.
    pub blend: Option<Blend<'a>>,
}

impl RowOutputs<'_> {
    /// Compares the lengths with `[rows, cols]`.
    pub(crate) fn check(&self, op: &'static str, rows: usize, cols: usize) -> Result<()> {
        if let Some(codes) = &self.codes {
            need_aligned(op, "codes", codes.values, rows * cols)?;
            need(op, "steps", codes.steps, rows)?;
        }
        if let Some(plain) = self.plain {
            need_aligned(op, "plain rows", plain, rows * cols)?;
        }
        if let Some(blend) = &self.blend {
            need_aligned(op, "blended rows", blend.values, rows * cols)?;
            need(op, "annealing value", blend.anneal, 1)?;
        }
        Ok(())
    }

    /// The five pointers that kernels take them as.
    pub(crate) fn push<'g>(&self, launch: Launch<'g>) -> Launch<'g> {
        launch
            .optional(self.codes.map(|c| c.values))
            .optional(self.codes.map(|c| c.steps))
            .optional(self.plain)
            .optional(self.blend.map(|b| b.values))
            .optional(self.blend.map(|b| b.anneal))
    }
}

/// `op` needs `len` elements of `what`.
pub(crate) fn need<T>(op: &'static str, what: &str, array: &DeviceArray<T>, len: usize) -> Result<()> {
    if array.len() == len {
        Ok(())
    } else {
        let expected = format!("{what} of {len} elements");
        Err(CudaError::shape(op, expected, array.len()))
    }
}

/// As [`need`], at an address that 16-byte accesses may use.
pub(crate) fn need_aligned<T>(op: &'static str, what: &str, array: &DeviceArray<T>, len: usize) -> Result<()> {
    need(op, what, array, len)?;
    if len == 0 || array.address().is_multiple_of(16) {
        return Ok(());
    }
    let expected = format!("{what} at a multiple of 16 bytes");
    Err(CudaError::shape(op, expected, format!("{array:?}")))
}

/// How the threads of a kernel lie over rows: a warp a row or a block a row, 16 or 32 elements a thread.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct RowForm {
    /// Which of `[warp16, warp32, block16, block32]`.
    pub kernel: usize,
    /// Threads of a block.
    pub threads: u32,
    /// Rows that a block has in hand at once.
    pub rows: usize,
}

/// Columns that the row kernels take at most.
pub const MAX_COLS: usize = 16384;
/// Warps of a block whose warps have a row each.
const WARPS: usize = 8;

impl RowForm {
    /// For rows of `cols` elements, which must be a multiple of `multiple`.
    pub fn new(op: &'static str, cols: usize, multiple: usize) -> Result<Self> {
        if cols == 0 || cols > MAX_COLS || !cols.is_multiple_of(multiple) {
            return Err(CudaError::shape(
                op,
                format!("a multiple of {multiple} columns, at most {MAX_COLS}"),
                cols,
            ));
        }
        Ok(match cols {
            ..=512 => RowForm::WARP16,
            513..=1024 => RowForm {
                kernel: 1,
                ..RowForm::WARP16
            },
            _ => RowForm::block(cols),
        })
    }

    /// A warp a row of at most 512 elements.
    pub const WARP16: RowForm = RowForm {
        kernel: 0,
        threads: 32 * WARPS as u32,
        rows: WARPS,
    };

    /// A block a row, however short it is.
    pub fn block(cols: usize) -> Self {
        let (kernel, each) = if cols <= 6144 { (2, 16) } else { (3, 32) };
        RowForm {
            kernel,
            threads: 32 * cols.div_ceil(32 * each) as u32,
            rows: 1,
        }
    }

    /// The grid that gives every row its own place.
    pub fn grid(&self, op: &'static str, rows: usize) -> Result<[u32; 3]> {
        match i32::try_from(rows) {
            Ok(_) => Ok([rows.div_ceil(self.rows) as u32, 1, 1]),
            Err(_) => Err(CudaError::shape(op, "fewer than 2^31 rows", rows)),
        }
    }
}

/// Quantises rows of bf16: `x` `[rows, stride]`, of which the first `cols` columns count.
///
/// # Errors
/// `cols` or `stride` that are no multiple of 8, more than [`MAX_COLS`], lengths that differ.
pub fn quantize(
    gpu: &Gpu,
    x: &DeviceArray<bf16>,
    rows: usize,
    cols: usize,
    stride: usize,
    out: &RowOutputs<'_>,
) -> Result<()> {
    const OP: &str = "quantize";
    let form = RowForm::new(OP, cols, 8)?;
    need_strided(OP, "x", x, rows, cols, stride)?;
    out.check(OP, rows, cols)?;
    let launch = Launch::new(gpu, QUANTIZE[form.kernel], form.grid(OP, rows)?, form.threads)
        .array(x)
        .u64(stride as u64);
    // SAFETY: `x` and the outputs hold `rows` rows, and threads leave alone what is at or behind column `cols`.
    unsafe { out.push(launch).u32(rows).u32(cols).run() }
}

/// `out = (1 − a) · x + a · q · step` for each of `rows` rows of `x`, with a step for each 32 columns, at the annealing value in `anneal` `[1]`; `x` and `out` `[rows, cols]`.
///
/// # Errors
/// `cols` that is no multiple of 8, lengths that differ.
pub fn blend_groups(
    gpu: &Gpu,
    x: &DeviceArray<bf16>,
    rows: usize,
    anneal: &DeviceArray<f32>,
    out: &DeviceArray<bf16>,
) -> Result<()> {
    const OP: &str = "blend groups";
    /// Groups of a block.
    const BLOCK: usize = 64;
    need_aligned(OP, "x", x, out.len())?;
    need_aligned(OP, "out", out, x.len())?;
    need(OP, "annealing value", anneal, 1)?;
    if x.is_empty() {
        return Ok(());
    }
    let cols = x.len().checked_div(rows).unwrap_or(0);
    let of_row = cols.div_ceil(GROUP_COLUMNS);
    let groups = rows * of_row;
    if rows * cols != x.len() || !cols.is_multiple_of(8) || groups > i32::MAX as usize {
        let expected = format!("{rows} rows of a multiple of 8 elements, fewer than 2^31 groups");
        return Err(CudaError::shape(OP, expected, x.len()));
    }
    // SAFETY: `x` and `out` hold `rows` rows of `cols` elements, and threads leave alone what is at or behind column `cols`.
    unsafe {
        Launch::new(gpu, BLEND_GROUPS, [groups.div_ceil(BLOCK) as u32, 1, 1], 256)
            .array(x)
            .array(out)
            .array(anneal)
            .u32(groups)
            .u32(of_row)
            .u32(cols)
            .run()
    }
}

/// `array` holds `rows` rows of `cols` bf16 that begin `stride` elements apart, both multiples of 8.
pub(crate) fn need_strided(
    op: &'static str,
    what: &str,
    array: &DeviceArray<bf16>,
    rows: usize,
    cols: usize,
    stride: usize,
) -> Result<()> {
    if stride < cols || !stride.is_multiple_of(8) {
        return Err(CudaError::shape(
            op,
            format!("rows of {what} a multiple of 8 and at least {cols} elements apart"),
            stride,
        ));
    }
    let len = rows.saturating_sub(1) * stride + if rows > 0 { cols } else { 0 };
    if array.len() < len {
        return Err(CudaError::shape(
            op,
            format!("{what} of {len} elements or more"),
            array.len(),
        ));
    }
    need_aligned(op, what, &array.slice(..len), len)
}

/// `out = codes · step` for each row: `out` `[rows, cols]`, `rows` as many as there are steps.
///
/// # Errors
/// Lengths that differ, `cols` that is no multiple of 16.
pub fn dequantize(gpu: &Gpu, codes: &Codes<'_>, out: &DeviceArray<bf16>) -> Result<()> {
    const OP: &str = "dequantize";
    /// Vectors of 16 elements that a block opens.
    const BLOCK: usize = 256;
    let (rows, len) = (codes.steps.len(), out.len());
    need_aligned(OP, "codes", codes.values, len)?;
    need_aligned(OP, "out", out, len)?;
    let vectors = len / 16;
    if len == 0 {
        return Ok(());
    }
    if rows == 0 || !len.is_multiple_of(16 * rows) || vectors > i32::MAX as usize {
        return Err(CudaError::shape(
            OP,
            format!("{rows} rows of a multiple of 16 elements, fewer than 2^35 in all"),
            len,
        ));
    }
    // SAFETY: `codes` and `out` hold `16·vectors` elements, and `vectors / rows` vectors belong to each step.
    unsafe {
        Launch::new(gpu, DEQUANTIZE, [vectors.div_ceil(BLOCK) as u32, 1, 1], BLOCK as u32)
            .array(codes.values)
            .array(codes.steps)
            .array(out)
            .u32(vectors)
            .u32(vectors / rows)
            .run()
    }
}
