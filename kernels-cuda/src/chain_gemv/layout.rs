//! Matrices as [`chain_gemv`](super::chain_gemv) reads them: tiles of eight rows, each a run of items of 512 bytes, `[8 rows][4 parts][16 bytes]`.

use half::{bf16, f16};

use super::need;
use crate::device::{CudaError, DeviceArray, Gpu, Result};

pub(super) const TILE: usize = 8;
/// Threads of a row.
const PARTS: usize = 4;
const ITEM: usize = TILE * PARTS * 16;
/// Columns of a block of int4, and blocks whose steps are one item.
const BLOCK: usize = 128;
const HEADED: usize = 8;

/// The type of a matrix whose sums have an order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ChainKind {
    /// Single precision.
    F32,
    /// Half precision.
    F16,
    /// The upper half of a single.
    Bf16,
    /// Bytes times a step a row; activations are floats.
    Int8,
    /// Half bytes times a step for 32 columns; activations are bytes.
    Int4,
}

impl ChainKind {
    /// Columns of an item.
    const fn columns(self) -> usize {
        match self {
            ChainKind::F32 => 16,
            ChainKind::F16 | ChainKind::Bf16 => 32,
            ChainKind::Int8 => 64,
            ChainKind::Int4 => BLOCK,
        }
    }

    /// Items of a tile.
    const fn items(self, cols: usize) -> usize {
        let items = cols.div_ceil(self.columns());
        match self {
            ChainKind::Int4 => items + items.div_ceil(HEADED),
            _ => items,
        }
    }

    /// Whether the activations are floats.
    pub const fn takes_floats(self) -> bool {
        !matches!(self, ChainKind::Int4)
    }

    /// Bytes that a matrix of `[rows, cols]` takes as it is, or as a part of several.
    pub const fn bytes_needed(self, [rows, cols]: [usize; 2]) -> usize {
        let steps = match self {
            ChainKind::Int8 => 4 * TILE,
            _ => 0,
        };
        rows.div_ceil(TILE) * (self.items(cols) * ITEM + 8 + steps)
    }
}

/// The weights of a matrix as the runtime has them, row by row.
#[derive(Clone, Copy, Debug)]
pub enum ChainValues<'a> {
    /// `[rows, cols]`
    F32(&'a [f32]),
    /// `[rows, cols]`
    F16(&'a [f16]),
    /// `[rows, cols]`
    Bf16(&'a [bf16]),
    /// `w[r, k] = values[r, k] · steps[r]`
    Int8 {
        /// `[rows, cols]`
        values: &'a [i8],
        /// `[rows]`
        steps: &'a [f32],
    },
    /// As `onebit_kernels_cpu::int4_gemv` has them.
    Int4 {
        /// `[rows, blocks of 128 columns, 64]`
        codes: &'a [u8],
        /// `[rows, blocks, 4]`
        steps: &'a [f16],
    },
}

impl ChainValues<'_> {
    /// Their type.
    pub fn kind(&self) -> ChainKind {
        match self {
            ChainValues::F32(_) => ChainKind::F32,
            ChainValues::F16(_) => ChainKind::F16,
            ChainValues::Bf16(_) => ChainKind::Bf16,
            ChainValues::Int8 { .. } => ChainKind::Int8,
            ChainValues::Int4 { .. } => ChainKind::Int4,
        }
    }
}

/// A matrix as the runtime has it.
#[derive(Clone, Copy, Debug)]
pub struct ChainPart<'a> {
    /// Output values.
    pub rows: usize,
    /// Input values.
    pub cols: usize,
    /// The weights.
    pub values: ChainValues<'a>,
}

impl ChainPart<'_> {
    fn check(&self, op: &'static str) -> Result<()> {
        let (rows, values) = (self.rows, self.rows * self.cols);
        let blocks = rows * self.cols.div_ceil(BLOCK);
        match self.values {
            ChainValues::F32(found) => need(op, "weights", values, found.len()),
            ChainValues::F16(found) => need(op, "weights", values, found.len()),
            ChainValues::Bf16(found) => need(op, "weights", values, found.len()),
            ChainValues::Int8 { values: found, steps } => {
                need(op, "weights", values, found.len())?;
                need(op, "steps", rows, steps.len())
            }
            ChainValues::Int4 { codes, steps } => {
                need(op, "codes", blocks * BLOCK / 2, codes.len())?;
                need(op, "steps", blocks * BLOCK / 32, steps.len())
            }
        }
    }

    /// Row `row` into `out`, the tile's items, of which it is row `row % 8`.
    fn copy_row(&self, row: usize, out: &mut [u8]) {
        let at = row * self.cols..(row + 1) * self.cols;
        match self.values {
            ChainValues::F32(w) => spread(&w[at], row, out, |w| w.to_le_bytes()),
            ChainValues::F16(w) => spread(&w[at], row, out, |w| w.to_le_bytes()),
            ChainValues::Bf16(w) => spread(&w[at], row, out, |w| w.to_le_bytes()),
            ChainValues::Int8 { values, .. } => spread(&values[at], row, out, |w| w.to_le_bytes()),
            ChainValues::Int4 { codes, steps } => {
                let blocks = self.cols.div_ceil(BLOCK);
                let own = |item: usize, part: usize| item * ITEM + (row % TILE * PARTS + part) * 16;
                for block in 0..blocks {
                    let head = block / HEADED * (HEADED + 1);
                    for part in 0..PARTS {
                        let group = (row * blocks + block) * PARTS + part;
                        let step = own(head, part) + 2 * (block % HEADED);
                        out[step..step + 2].copy_from_slice(&steps[group].to_le_bytes());
                        let to = &mut out[own(head + 1 + block % HEADED, part)..][..16];
                        // From `q + 8` to two's complement.
                        for (to, code) in to.iter_mut().zip(&codes[group * 16..][..16]) {
                            *to = code ^ 0x88;
                        }
                    }
                }
            }
        }
    }
}

/// The values of a row, of `N` bytes each: four neighbouring columns of each sixteen belong to a thread, which has as many sixteens in an item as make 16 bytes.
fn spread<T: Copy, const N: usize>(values: &[T], row: usize, out: &mut [u8], bytes: impl Fn(T) -> [u8; N]) {
    let sixteens = 4 / N;
    for (i, values) in values.chunks(PARTS).enumerate() {
        let (sixteen, part) = (i / PARTS, i % PARTS);
        let at = sixteen / sixteens * ITEM + (row % TILE * PARTS + part) * 16 + sixteen % sixteens * PARTS * N;
        for (to, value) in out[at..].chunks_exact_mut(N).zip(values) {
            to.copy_from_slice(&bytes(*value));
        }
    }
}

/// One or several matrices of one kind with the same columns, on the GPU.
#[derive(Clone, Debug)]
pub struct ChainMatrix {
    pub(super) kind: ChainKind,
    pub(super) rows: usize,
    pub(super) cols: usize,
    pub(super) tiles: usize,
    pub(super) weights: DeviceArray<u8>,
    /// `[tiles, 2]`: first output row, rows.
    pub(super) descriptors: DeviceArray<u32>,
    /// Of int8, `[tiles, 8]`.
    pub(super) steps: Option<DeviceArray<f32>>,
}

impl ChainMatrix {
    /// A single matrix.
    ///
    /// # Errors
    /// As [`within`](Self::within).
    pub fn new(gpu: &Gpu, part: ChainPart<'_>) -> Result<Self> {
        Self::within(gpu, &[(0, part)], part.rows)
    }

    /// Matrices whose rows go to output rows from the given ones on, of an output that has `rows` of them for each token: the products write no other rows.
    ///
    /// # Errors
    /// [`CudaError::Shape`] for no matrix or one without columns, or if kinds or columns differ, a length is not that of its matrix, or a part would end beyond `rows`.
    pub fn within(gpu: &Gpu, parts: &[(usize, ChainPart<'_>)], rows: usize) -> Result<Self> {
        const OP: &str = "ChainMatrix";
        let Some(&(_, ChainPart { cols, values, .. })) = parts.first() else {
            return Err(CudaError::shape(OP, "a matrix", "none"));
        };
        if cols == 0 {
            return Err(CudaError::shape(OP, "columns", "none"));
        }
        let kind = values.kind();
        let tile_bytes = kind.items(cols) * ITEM;
        let (mut weights, mut descriptors, mut steps) = (Vec::new(), Vec::new(), Vec::new());
        for &(first, part) in parts {
            if part.values.kind() != kind || part.cols != cols {
                return Err(CudaError::shape(
                    OP,
                    format!("{cols} columns of {kind:?}"),
                    format!("{} of {:?}", part.cols, part.values.kind()),
                ));
            }
            part.check(OP)?;
            if first + part.rows > rows {
                return Err(CudaError::shape(OP, format!("{rows} output rows"), first + part.rows));
            }
            for row in 0..part.rows {
                if row % TILE == 0 {
                    weights.resize(weights.len() + tile_bytes, 0);
                    descriptors.extend([(first + row) as u32, (part.rows - row).min(TILE) as u32]);
                }
                let tile = weights.len() - tile_bytes;
                part.copy_row(row, &mut weights[tile..]);
            }
            if let ChainValues::Int8 { steps: found, .. } = part.values {
                steps.extend_from_slice(found);
                steps.resize(steps.len().next_multiple_of(TILE), 0.0);
            }
        }
        Ok(ChainMatrix {
            kind,
            rows,
            cols,
            tiles: descriptors.len() / 2,
            weights: gpu.upload(&weights)?,
            descriptors: gpu.upload(&descriptors)?,
            steps: (kind == ChainKind::Int8).then(|| gpu.upload(&steps)).transpose()?,
        })
    }

    /// Output values of a token.
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// Input values.
    pub fn cols(&self) -> usize {
        self.cols
    }

    /// The type of its values.
    pub fn kind(&self) -> ChainKind {
        self.kind
    }

    /// Its tiles, and the items of each, for kernels that look up a row.
    pub(crate) fn tiles(&self) -> (&DeviceArray<u8>, usize) {
        (&self.weights, self.kind.items(self.cols))
    }

    /// Bytes that a product reads of it.
    pub fn bytes(&self) -> usize {
        self.weights.bytes() + self.descriptors.bytes() + self.steps.as_ref().map_or(0, DeviceArray::bytes)
    }
}
