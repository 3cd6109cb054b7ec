//! Embeddings and heads in every type: of floats and bytes by kernels of their own ([`head()`]), packed ones by the products of linears.
//!
//! | type | a row of the embedding | as a head, what the normed input becomes | logits |
//! |---|---|---|---|
//! | f32, f16, bf16, bytes | the values | floats | [`head()`] |
//! | binary, ternary | `w · γ` | bytes by the per-token quantiser, as a linear's | `Σ xq·w · γ / s` |
//! | int4 | `q · step` | bytes with a step for each group of 32 columns | as `onebit_kernels_cpu::int4_gemv` |
//!
//! Behind a product a further kernel caps the logits and finds the largest: some 2 µs for 128,256 of them.

use super::head::HeadOutput;
use super::{FloatKind, VocabularyMatrix, embed, head};
use crate::chain_gemv::{ChainInput, ChainKind, ChainMatrix, chain_gemv, groups, quantize_groups};
use crate::device::{CudaError, DeviceArray, Gpu, Launch, Module, Result, ptx};
use crate::mixed_linear::Inputs;
use crate::ternary_gemv::{
    Epilogue, Extent, TernaryCode, TernaryMatrix, need, norm_rows, normed_ternary_gemv, norms_itself, ternary_gemv,
};

static MODULE: Module = ptx!("packed.ptx");
static OVERLAPPED: Module = ptx!("packed_overlapped.ptx");
const THREADS: u32 = 256;
/// Tokens whose largest logits are chosen at once.
const CHOSEN: usize = 4;

/// The type of an embedding or a head.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum VocabularyKind {
    /// Floats, or bytes that meet floats.
    Floats(FloatKind),
    /// Binary or ternary.
    Packed(TernaryCode),
    /// Half bytes with a step for 32 columns.
    Int4,
}

impl VocabularyKind {
    /// Bytes that a matrix of `[rows, cols]` takes on a GPU.
    pub const fn bytes_needed(self, size: [usize; 2]) -> usize {
        match self {
            VocabularyKind::Floats(kind) => VocabularyMatrix::bytes_needed(kind, size),
            VocabularyKind::Packed(code) => TernaryMatrix::bytes_needed(code, size),
            VocabularyKind::Int4 => ChainKind::Int4.bytes_needed(size),
        }
    }

    /// What the input of a head of so many columns needs room for.
    pub fn extent_needed(self, cols: usize) -> Extent {
        match self {
            VocabularyKind::Floats(_) => Extent::default(),
            VocabularyKind::Packed(code) => Extent {
                cols: cols.next_multiple_of(code.block()),
                ..Extent::default()
            },
            VocabularyKind::Int4 => Extent {
                cols: 32 * groups(cols),
                floats: cols,
                ..Extent::default()
            },
        }
    }
}

/// An embedding or a head or both, `[vocabulary, hidden]`.
#[derive(Clone, Debug)]
pub enum Vocabulary {
    /// Floats, or bytes that meet floats.
    Floats(VocabularyMatrix),
    /// Binary or ternary: a stack of one.
    Packed(TernaryMatrix),
    /// Half bytes with a step for 32 columns.
    Int4(ChainMatrix),
}

impl From<VocabularyMatrix> for Vocabulary {
    fn from(matrix: VocabularyMatrix) -> Self {
        Vocabulary::Floats(matrix)
    }
}

impl Vocabulary {
    /// Its type.
    pub fn kind(&self) -> VocabularyKind {
        match self {
            Vocabulary::Floats(matrix) => VocabularyKind::Floats(matrix.kind()),
            Vocabulary::Packed(matrix) => VocabularyKind::Packed(matrix.code),
            Vocabulary::Int4(_) => VocabularyKind::Int4,
        }
    }

    /// Words of the vocabulary.
    pub fn rows(&self) -> usize {
        match self {
            Vocabulary::Floats(matrix) => matrix.rows(),
            Vocabulary::Packed(matrix) => matrix.rows(),
            Vocabulary::Int4(matrix) => matrix.rows(),
        }
    }

    /// Values of a word.
    pub fn cols(&self) -> usize {
        match self {
            Vocabulary::Floats(matrix) => matrix.cols(),
            Vocabulary::Packed(matrix) => matrix.cols(),
            Vocabulary::Int4(matrix) => matrix.cols(),
        }
    }

    /// Bytes on the GPU.
    pub fn bytes(&self) -> usize {
        match self {
            Vocabulary::Floats(matrix) => matrix.bytes(),
            Vocabulary::Packed(matrix) => matrix.bytes(),
            Vocabulary::Int4(matrix) => matrix.bytes(),
        }
    }

    /// What a head's input needs room for.
    pub fn extent(&self) -> Extent {
        self.kind().extent_needed(self.cols())
    }

    /// Scales, or steps, of a token of a head's input.
    pub(super) fn scales(&self) -> usize {
        match self {
            Vocabulary::Int4(matrix) => groups(matrix.cols()),
            _ => 1,
        }
    }

    /// `x[t]`, `[tokens, cols]`, is the row for `ids[position + t]`.
    ///
    /// # Errors
    /// [`CudaError::Shape`] for lengths that do not agree, or a matrix of another type than [`Vocabulary`] says. An id outside the vocabulary or a position outside `ids` gives row 0.
    pub fn embed(
        &self,
        gpu: &Gpu,
        ids: &DeviceArray<u32>,
        position: &DeviceArray<u32>,
        x: &DeviceArray<f32>,
    ) -> Result<()> {
        const OP: &str = "embed";
        if let Vocabulary::Floats(matrix) = self {
            return embed(gpu, matrix, ids, position, x);
        }
        let tokens = x.len() / self.cols().max(1);
        need(OP, "x", tokens * self.cols(), x.len())?;
        need(OP, "position", 1, position.len())?;
        let name = match self.kind() {
            VocabularyKind::Packed(TernaryCode::B1) => "embed_b1",
            VocabularyKind::Packed(TernaryCode::T2) => "embed_t2",
            VocabularyKind::Packed(TernaryCode::T5) => "embed_t3",
            VocabularyKind::Int4 => "embed_int4",
            kind => return Err(CudaError::shape(OP, "a type of embeddings", format!("{kind:?}"))),
        };
        let launch = Launch::chained(gpu, [&MODULE, &OVERLAPPED], name, [tokens, 1], THREADS);
        let launch = match self {
            Vocabulary::Packed(matrix) => launch
                .array(&matrix.weights)
                .array(&matrix.descriptors)
                .u32(matrix.k_blocks()),
            Vocabulary::Int4(matrix) => {
                let (weights, items) = matrix.tiles();
                launch.array(weights).u32(items)
            }
            Vocabulary::Floats(_) => launch,
        };
        let launch = launch
            .u32(self.rows())
            .u32(self.cols())
            .array(ids)
            .array(position)
            .u32(ids.len())
            .array(x);
        // SAFETY: the kernel's parameters in order; it compares position and id with `ids.len()` and the rows, reads the tiles of the matrix, and writes `x` as compared above.
        unsafe { launch.run() }
    }

    /// What [`head()`] does, of any type; `inputs` have room for the tokens ([`extent`](Self::extent)).
    ///
    /// # Errors
    /// [`CudaError::Shape`] for lengths that do not agree, more tokens than a product of few takes, or too little room.
    pub fn head(
        &self,
        gpu: &Gpu,
        x: &DeviceArray<f32>,
        norm: &DeviceArray<f32>,
        (eps, cap): (f32, Option<f32>),
        logits: &DeviceArray<f32>,
        inputs: &Inputs,
        out: &HeadOutput,
        advance: usize,
    ) -> Result<()> {
        const OP: &str = "head";
        if let Vocabulary::Floats(matrix) = self {
            return head(gpu, matrix, x, norm, (eps, cap), Some(logits), out, advance);
        }
        let (cols, rows) = (self.cols(), self.rows());
        let tokens = x.len() / cols.max(1);
        need(OP, "x", tokens * cols, x.len())?;
        need(OP, "logits", tokens * rows, logits.len())?;
        if tokens == 0 || tokens > out.best.len() {
            return Err(CudaError::shape(OP, format!("1 to {} tokens", out.best.len()), tokens));
        }
        let extent = self.extent();
        let scales = tokens * self.scales();
        inputs.check(tokens, extent.floats, extent.cols, scales)?;
        let (bytes, scales) = (
            inputs.bytes.slice(..tokens * extent.cols),
            inputs.scales.slice(..scales),
        );
        match self {
            Vocabulary::Packed(matrix) if norms_itself(gpu, matrix, tokens) => {
                normed_ternary_gemv(gpu, matrix, x, Some(norm), eps, Epilogue::Store(logits))?;
            }
            Vocabulary::Packed(matrix) => {
                norm_rows(gpu, x, cols, Some(norm), eps, Some((&bytes, &scales)), None)?;
                ternary_gemv(gpu, matrix, &bytes, &scales, Epilogue::Store(logits))?;
            }
            Vocabulary::Int4(matrix) => {
                let floats = inputs.floats.slice(..tokens * cols);
                norm_rows(gpu, x, cols, Some(norm), eps, None, Some(&floats))?;
                quantize_groups(gpu, &floats, cols, &bytes, &scales)?;
                let input = ChainInput::Groups(&bytes, &scales);
                chain_gemv(gpu, matrix, input, tokens, Epilogue::Store(logits))?;
            }
            Vocabulary::Floats(_) => {}
        }
        let most = gpu.properties().multiprocessors as usize;
        let blocks = rows.div_ceil(THREADS as usize).clamp(1, most);
        for first in (0..tokens).step_by(CHOSEN) {
            let some = CHOSEN.min(tokens - first);
            let launch = Launch::chained(gpu, [&MODULE, &OVERLAPPED], "choose_largest", [blocks, 1], THREADS)
                .array(&logits.slice(first * rows..(first + some) * rows))
                .u32(rows)
                .f32(cap.unwrap_or(0.0))
                .u32(some);
            let advance = if first + some == tokens { advance } else { 0 };
            let launch = out.receive(launch, first..first + some, advance);
            // SAFETY: the kernel's parameters in order; lengths were compared above, `bests` has room for every multiprocessor, and the kernel compares the position with
            // `ids.len()`.
            unsafe { launch.run()? };
        }
        Ok(())
    }
}
