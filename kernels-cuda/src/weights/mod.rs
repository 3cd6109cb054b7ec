//! From f32 master weights to what the matrix products read, for a table of tensors in one launch a pass.
//!
//! ```text
//! ternary       γ = max(mean|W|, 1e-5)            code = clamp(round(W · (1/γ)), −1, 1)       scale = γ
//! binary        γ as above                        code = 1 if W ≥ 0 else −1                   scale = γ
//! int8          step = max(max|w|, 1e-5) / 127     code = clamp(round(w / step), ±127)        scale = step, of each row
//! int4          step of `onebit_kernels_cpu::int4_gemv`  code = clamp(round(w · (1/step)), −8, 7)  scale = step, an f16 as f32, of each 32 columns of a row
//!
//! dense (bf16)  a ≤ 0 or full: W       a ≥ 1: code · scale
//!               0 < a < 1, ternary: (1−a)·W + a·γ·½(tanh(b(W/γ − ½)) + tanh(b(W/γ + ½))),  b = 2/(1−a);   others: (1−a)·W + a·code·scale
//! ```
//! [`WeightTable::measure`] is the first pass (γ, or the steps of rows or groups, and the scales of the rows), [`WeightTable::write`] the second (codes and dense weights),
//! [`WeightTable::rows`] takes rows of the second by id, in f32 (an embedding), [`WeightTable::statistics`] counts for the metrics.
//!
//! **The same bits as the CPU.** γ is added in the CPU's order: sixteen f32 lanes over 4096 elements, folded 8-4-2-1, sixteen such sums in f64 in order, and those of
//! 65536 elements in f64 in order (`onebit_kernels_cpu::quantize::abs_sum` in blocks of 2¹⁶, as `onebit_engine` splits it). Codes round as the CPU's do: `W` times the
//! reciprocal of γ, ternary; a true division by the step, int8; times the step's reciprocal, int4, whose nine steps are tried with the CPU's order of sums. So γ, steps and
//! codes are the CPU's bits. The dense weights are too, but for the soft staircase, whose tanh differs by about 1e-7 of γ before it is rounded to bf16. A group of int4 whose step
//! no f16 holds has an infinite one and codes of 0, which is NaN, as on the CPU.
//!
//! **Cost**, bytes a weight: `measure` 4, `write` 4 read and 1 (codes) + 2 (dense) written, `rows` 4 read and 4 written, `statistics` 4 + 1.

#[cfg(test)]
mod tests;

use std::ops::Range;

use half::bf16;

use crate::device::{CudaError, DeviceArray, Gpu, Kernel, Launch, Module, Result, ptx};
use crate::quantize::{need, need_aligned};

static MODULE: Module = ptx!("kernel.ptx");
const MEASURE: Kernel = MODULE.kernel("measure");
const GAMMAS: Kernel = MODULE.kernel("gammas");
const WRITE: Kernel = MODULE.kernel("write_weights");
const ROWS: Kernel = MODULE.kernel("rows");
const STATISTICS: Kernel = MODULE.kernel("statistics");

/// Columns of an int4 matrix that share a step, as on the CPU.
pub const GROUP_COLUMNS: usize = 32;
/// Elements of a chunk, which is a block's work; the CPU's block of a sum.
const CHUNK: usize = 1 << 16;
/// Threads of a block.
const THREADS: u32 = 256;
/// Words of an entry of the table on the GPU.
const ENTRY: usize = 8;

/// What a tensor's weights become in the hard phase.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WeightMode {
    /// Not quantised.
    Full,
    /// `{−1, 0, 1}·γ`.
    Ternary,
    /// `±γ`.
    Binary,
    /// Whole numbers in ±127, a step for each row.
    Int8,
    /// Whole numbers in −8..=7, a step for each 32 columns of a row; a byte each.
    Int4,
}

impl WeightMode {
    /// Scales of a matrix `[rows, cols]`: one for each row, of int4 one for each group of 32 columns.
    pub const fn scales(self, rows: usize, cols: usize) -> usize {
        match self {
            WeightMode::Full => 0,
            WeightMode::Int4 => rows * cols.div_ceil(GROUP_COLUMNS),
            _ => rows,
        }
    }
}

/// A matrix `[rows, cols]`, and where it lies in each of the arenas, in elements. A full tensor has no place among codes and scales.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WeightTensor {
    /// Its beginning in the f32 arena, a multiple of 4.
    pub master: usize,
    /// Output features.
    pub rows: usize,
    /// Input features, a multiple of 4.
    pub cols: usize,
    /// What it becomes.
    pub mode: WeightMode,
    /// Its beginning in the int8 arena, a multiple of 4.
    pub codes: usize,
    /// Its beginning in the bf16 arena, a multiple of 4.
    pub dense: usize,
    /// Its beginning in the arena of scales, of which it has as many f32 as [`WeightMode::scales`] says.
    pub scales: usize,
}

impl WeightTensor {
    fn len(&self) -> usize {
        self.rows * self.cols
    }

    /// Elements of one of its chunks: whole rows where rows have steps.
    fn chunk(&self) -> usize {
        match self.mode {
            WeightMode::Int8 | WeightMode::Int4 => (CHUNK / self.cols.max(1)).max(1) * self.cols,
            _ => CHUNK,
        }
    }

    fn chunks(&self) -> usize {
        self.len().div_ceil(self.chunk().max(1))
    }
}

/// How many weights of a ternary tensor are what, in the order of [`WeightTable::statistics`].
pub const COUNTS: usize = 3;

/// Tensors, on the GPU.
#[derive(Debug)]
pub struct WeightTable {
    tensors: Vec<WeightTensor>,
    /// The number of the first chunk of each tensor, and of all of them at the end.
    first_chunks: Vec<usize>,
    /// [`ENTRY`] words for each tensor.
    entries: DeviceArray<u64>,
    /// The tensor of each chunk.
    owners: DeviceArray<u32>,
    /// Σ|W| of each chunk, the bits of an f64.
    partials: DeviceArray<u64>,
    gammas: DeviceArray<f32>,
}

impl WeightTable {
    /// The table of `tensors`.
    ///
    /// # Errors
    /// Columns or offsets that are no multiple of 4, a tensor of 2³² elements or more, no memory.
    pub fn new(gpu: &Gpu, tensors: &[WeightTensor]) -> Result<Self> {
        let (mut first_chunks, mut entries, mut owners) = (vec![0], Vec::new(), Vec::new());
        for (i, t) in tensors.iter().enumerate() {
            let aligned = [t.cols, t.master, t.codes, t.dense].iter().all(|n| n.is_multiple_of(4));
            if !aligned || t.len() > u32::MAX as usize {
                let expected = "columns and offsets in multiples of 4, fewer than 2^32 elements";
                return Err(CudaError::shape("weight table", expected, format!("{t:?}")));
            }
            let first = owners.len();
            owners.resize(first + t.chunks(), i as u32);
            let words = [
                t.master,
                t.codes,
                t.dense,
                t.scales,
                t.rows,
                t.cols,
                t.mode as usize,
                first,
            ];
            entries.extend(words.map(|w| w as u64));
            first_chunks.push(owners.len());
        }
        debug_assert_eq!(entries.len(), ENTRY * tensors.len());
        Ok(WeightTable {
            tensors: tensors.to_vec(),
            first_chunks,
            entries: gpu.upload(&entries)?,
            partials: gpu.zeros(owners.len())?,
            owners: gpu.upload(&owners)?,
            gammas: gpu.zeros(tensors.len())?,
        })
    }

    /// The tensors, in order.
    pub fn tensors(&self) -> &[WeightTensor] {
        &self.tensors
    }

    /// γ of each tensor, as [`WeightTable::measure`] last left it; 1 for tensors that have none.
    pub fn gammas(&self) -> &DeviceArray<f32> {
        &self.gammas
    }

    /// Measures tensors `which`: γ, and the scale of each row or group in `scales`.
    ///
    /// # Errors
    /// Tensors that are not in the table, or do not fit the arrays.
    pub fn measure(
        &self,
        gpu: &Gpu,
        which: Range<usize>,
        master: &DeviceArray<f32>,
        scales: &DeviceArray<f32>,
    ) -> Result<()> {
        const OP: &str = "weights: measure";
        let chunks = self.check(OP, &which, master, Some(scales), None, None)?;
        // SAFETY: the chunks are those of tensors that fit the arrays.
        unsafe {
            self.launch(gpu, MEASURE, chunks)
                .array(master)
                .array(scales)
                .array(&self.partials)
                .run()?;
        }
        // SAFETY: there is a block for each tensor of `which`, and those fit the array.
        unsafe {
            Launch::new(gpu, GAMMAS, [which.len() as u32, 1, 1], THREADS)
                .array(&self.entries)
                .u32(which.start)
                .array(&self.partials)
                .array(&self.gammas)
                .array(scales)
                .run()
        }
    }

    /// Writes codes, dense weights or both of tensors `which`, which were measured, at the annealing value in `anneal` `[1]`.
    ///
    /// # Errors
    /// As [`WeightTable::measure`].
    pub fn write(
        &self,
        gpu: &Gpu,
        which: Range<usize>,
        master: &DeviceArray<f32>,
        scales: &DeviceArray<f32>,
        codes: Option<&DeviceArray<i8>>,
        dense: Option<&DeviceArray<bf16>>,
        anneal: &DeviceArray<f32>,
    ) -> Result<()> {
        const OP: &str = "weights: write";
        need(OP, "annealing value", anneal, 1)?;
        let chunks = self.check(OP, &which, master, Some(scales), codes, dense)?;
        // SAFETY: the chunks are those of tensors that fit the arrays.
        unsafe {
            self.launch(gpu, WRITE, chunks)
                .array(master)
                .array(scales)
                .array(&self.gammas)
                .optional(codes)
                .optional(dense)
                .array(anneal)
                .run()
        }
    }

    /// Writes `x[t] = W[ids[t]]`, `[ids.len(), cols]`, of tensor `tensor`, which was measured, at the annealing value in `anneal` `[1]`: what [`WeightTable::write`] rounds to bf16, in
    /// f32. An id outside gives a row of NaN.
    ///
    /// # Errors
    /// As [`WeightTable::measure`], an `x` of another length.
    pub fn rows(
        &self,
        gpu: &Gpu,
        tensor: usize,
        ids: &DeviceArray<u32>,
        master: &DeviceArray<f32>,
        scales: &DeviceArray<f32>,
        anneal: &DeviceArray<f32>,
        x: &DeviceArray<f32>,
    ) -> Result<()> {
        const OP: &str = "weights: rows";
        need(OP, "annealing value", anneal, 1)?;
        self.check(OP, &(tensor..tensor + 1), master, Some(scales), None, None)?;
        let cols = self.tensors[tensor].cols;
        need_aligned(OP, "rows", x, ids.len() * cols)?;
        let threads = (cols / 4).next_multiple_of(32).clamp(32, THREADS as usize);
        // SAFETY: a block a token, of which `x` has a row; an id is compared with the rows of the tensor, which fits the arrays.
        unsafe {
            Launch::new(gpu, ROWS, [ids.len() as u32, 1, 1], threads as u32)
                .array(&self.entries)
                .u32(tensor)
                .array(ids)
                .array(master)
                .array(scales)
                .array(&self.gammas)
                .array(anneal)
                .array(x)
                .run()
        }
    }

    /// Counts of tensor `i` in `counts[3·i..]`: weights whose trit is 0, weights with `|W| ≥ 1.5·γ`, and trits that differ from `previous`, laid out as codes (none where
    /// that is missing). Tensors that are not ternary get zeros.
    ///
    /// # Errors
    /// As [`WeightTable::measure`], `counts` of another length than [`COUNTS`] for each tensor of the table.
    pub fn statistics(
        &self,
        gpu: &Gpu,
        which: Range<usize>,
        master: &DeviceArray<f32>,
        previous: Option<&DeviceArray<i8>>,
        counts: &DeviceArray<u32>,
    ) -> Result<()> {
        const OP: &str = "weights: statistics";
        need(OP, "counts", counts, COUNTS * self.tensors.len())?;
        let chunks = self.check(OP, &which, master, None, previous, None)?;
        gpu.fill_bytes(&counts.slice(COUNTS * which.start..COUNTS * which.end), 0)?;
        // SAFETY: the chunks are those of tensors that fit the arrays, and each tensor has its counts.
        unsafe {
            self.launch(gpu, STATISTICS, chunks)
                .array(master)
                .array(&self.gammas)
                .optional(previous)
                .array(counts)
                .run()
        }
    }

    /// A block for each of `chunks`.
    fn launch<'g>(&self, gpu: &'g Gpu, kernel: Kernel, chunks: Range<usize>) -> Launch<'g> {
        Launch::new(gpu, kernel, [chunks.len() as u32, 1, 1], THREADS)
            .array(&self.entries)
            .array(&self.owners)
            .u32(chunks.start)
    }

    /// Compares the arrays with what tensors `which` take of them; the numbers of their chunks.
    fn check(
        &self,
        op: &'static str,
        which: &Range<usize>,
        master: &DeviceArray<f32>,
        scales: Option<&DeviceArray<f32>>,
        codes: Option<&DeviceArray<i8>>,
        dense: Option<&DeviceArray<bf16>>,
    ) -> Result<Range<usize>> {
        if which.start > which.end || which.end > self.tensors.len() {
            let expected = format!("some of {} tensors", self.tensors.len());
            return Err(CudaError::shape(op, expected, format!("{which:?}")));
        }
        let held = |what: &str, len: Option<usize>, end: &dyn Fn(&WeightTensor) -> usize| match len {
            Some(len) => self.tensors[which.clone()].iter().try_for_each(|t| {
                if end(t) <= len {
                    return Ok(());
                }
                let expected = format!("{what} of {} elements or more", end(t));
                Err(CudaError::shape(op, expected, len))
            }),
            None => Ok(()),
        };
        let quantised = |t: &WeightTensor, end: usize| if t.mode == WeightMode::Full { 0 } else { end };
        held("master weights", Some(master.len()), &|t| t.master + t.len())?;
        held("scales", scales.map(DeviceArray::len), &|t| {
            quantised(t, t.scales + t.mode.scales(t.rows, t.cols))
        })?;
        held("codes", codes.map(DeviceArray::len), &|t| {
            quantised(t, t.codes + t.len())
        })?;
        held("dense weights", dense.map(DeviceArray::len), &|t| t.dense + t.len())?;
        need_aligned(op, "master weights", master, master.len())?;
        codes.map_or(Ok(()), |c| need_aligned(op, "codes", c, c.len()))?;
        dense.map_or(Ok(()), |d| need_aligned(op, "dense weights", d, d.len()))?;
        Ok(self.first_chunks[which.start]..self.first_chunks[which.end])
    }
}
