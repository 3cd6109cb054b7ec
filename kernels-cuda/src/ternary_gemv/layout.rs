//! Binary and ternary matrices, and those of bytes, as the kernels read them.
//!
//! The runtime's bytes are groups of four rows, block by block; here a tile is eight rows, and a block of it 512 bytes, `[8 rows][64 bytes]`. The last of
//! the four fields of a `t2` byte becomes the weight itself in two's complement, `w` in place of `w + 1`: where it stands it is then 64·w as a signed byte.
//! The byte of `t5` is a code for the byte lookups of CPUs; here it becomes `ceil(256·v / 243)` of the number `v` whose digits to base 3 are the five
//! codes `w + 1`, the first digit first: five weights in a byte as before, and digits come off by multiplying. `b1`
//! becomes blocks of as many bytes as the others' (`binary.rs`). Bytes come row by row and become such blocks of 64 a row, with the steps of eight rows in their tile's descriptor.

use super::binary;
use crate::device::{CudaError, DeviceArray, Gpu, Result};

const TILE: usize = 8;
const GROUP: usize = 4;
const ROW_BYTES: usize = 64;

/// How the packed bytes of a matrix are to be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TernaryCode {
    /// A bit a weight: 1 and −1 alone.
    B1,
    /// Two bits a weight.
    T2,
    /// 1.6 bits a weight.
    T5,
    /// A byte a weight and a step a row: no trits, but the same sums and the same kernels around them.
    Int8,
}

impl TernaryCode {
    /// Weights of a row in a block of 64 bytes.
    pub const fn block(self) -> usize {
        match self {
            TernaryCode::B1 => 512,
            TernaryCode::T2 => 256,
            TernaryCode::T5 => 320,
            TernaryCode::Int8 => 64,
        }
    }

    /// Bytes of a tile's descriptor.
    pub(crate) const fn tile_info(self) -> usize {
        match self {
            TernaryCode::Int8 => 48,
            _ => 16,
        }
    }
}

/// The code of a byte of `t5` (`onebit_kernels_cpu::t5`), as the kernels read it.
const fn base3(byte: u8) -> u8 {
    const PAIRS: [(u32, u32); 8] = [(0, 0), (1, 0), (2, 0), (0, 1), (1, 1), (2, 1), (0, 2), (1, 2)];
    let (v, pair) = (byte as u32 & 31, PAIRS[byte as usize >> 5]);
    let (d0, d1, d2, d3, d4) = match v {
        0..=26 => (v % 3, v / 3 % 3, v / 9, pair.0, pair.1),
        28..=30 => (v - 28, pair.0, pair.1, 2, 2),
        31 => (byte as u32 >> 5 & 1, 2, 2, 2, 2),
        _ => (2, 2, 2, 2, 2),
    };
    ((256 * (81 * d0 + 27 * d1 + 9 * d2 + 3 * d3 + d4)).div_ceil(243)) as u8
}

const BASE3: [u8; 256] = {
    let mut table = [0; 256];
    let mut byte = 0;
    while byte < 256 {
        table[byte] = base3(byte as u8);
        byte += 1;
    }
    table
};

/// A byte of `t2` as the kernels read it.
const fn last_signed(byte: u8) -> u8 {
    byte.wrapping_sub(0x40)
}

/// A matrix as the runtime has it.
#[derive(Clone, Copy, Debug)]
pub struct TernaryPart<'a> {
    /// How `packed` lies.
    pub code: TernaryCode,
    /// Output values.
    pub rows: usize,
    /// Input values.
    pub cols: usize,
    /// Groups of four rows (`onebit_kernels_cpu::{b1, t2, t5}`); of int8 the bytes `[rows, cols]`.
    pub packed: &'a [u8],
    /// γ, what all weights are multiplied by; of int8 nothing.
    pub gamma: f32,
    /// Of int8 what the weights of each row are multiplied by, `[rows]`; else empty.
    pub steps: &'a [f32],
}

impl TernaryPart<'_> {
    /// Bytes that `packed` has to have.
    fn packed_bytes(&self) -> usize {
        match self.code {
            TernaryCode::Int8 => self.rows * self.cols,
            TernaryCode::B1 => self.rows.div_ceil(GROUP) * binary::group_bytes(self.cols),
            code => self.rows.div_ceil(GROUP) * GROUP * self.cols.div_ceil(code.block()) * ROW_BYTES,
        }
    }

    /// Tile `tile` into `out`, `[blocks][8 rows][64 bytes]`, which is 0.
    fn copy_tile(&self, tile: usize, out: &mut [u8]) {
        let blocks = out.chunks_exact_mut(TILE * ROW_BYTES);
        if self.code == TernaryCode::Int8 {
            for (block, out) in blocks.enumerate() {
                let rows = self.packed.chunks_exact(self.cols).skip(tile * TILE);
                for (row, out) in rows.zip(out.chunks_exact_mut(ROW_BYTES)) {
                    let from = &row[block * ROW_BYTES..self.cols.min((block + 1) * ROW_BYTES)];
                    out[..from.len()].copy_from_slice(from);
                }
            }
            return;
        }
        let group_bytes = match self.code {
            TernaryCode::B1 => binary::group_bytes(self.cols),
            _ => blocks.len() * GROUP * ROW_BYTES,
        };
        let mut groups = self.packed.chunks_exact(group_bytes.max(1)).skip(2 * tile);
        let halves = [groups.next(), groups.next()];
        for (block, out) in blocks.enumerate() {
            for (group, to) in halves.iter().zip(out.chunks_exact_mut(GROUP * ROW_BYTES)) {
                let Some(group) = group else { continue };
                if self.code == TernaryCode::B1 {
                    binary::copy_block(group, block, to);
                    continue;
                }
                let from = &group[block * GROUP * ROW_BYTES..][..GROUP * ROW_BYTES];
                match self.code {
                    TernaryCode::T2 => to.iter_mut().zip(from).for_each(|(to, from)| *to = last_signed(*from)),
                    TernaryCode::T5 => to
                        .iter_mut()
                        .zip(from)
                        .for_each(|(to, from)| *to = BASE3[*from as usize]),
                    _ => to.copy_from_slice(from),
                }
            }
        }
    }

    /// The descriptor of tile `tile`, whose first row is `first` of the output.
    fn describe(&self, tile: usize, first: usize) -> impl Iterator<Item = u32> {
        let rows = (self.rows - tile * TILE).min(TILE);
        let words = match self.code {
            TernaryCode::Int8 => [first as u32, rows as u32, 0, 0],
            _ => [self.gamma.to_bits(), first as u32, rows as u32, 0],
        };
        let steps = (self.code == TernaryCode::Int8).then(|| {
            let steps: [u32; TILE] =
                std::array::from_fn(|row| self.steps.get(tile * TILE + row).map_or(0, |step| step.to_bits()));
            steps
        });
        words.into_iter().chain(steps.into_iter().flatten())
    }
}

/// What products with a matrix, or with any of several, need room for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Extent {
    /// Bytes of a token.
    pub cols: usize,
    /// Normed floats of a token.
    pub floats: usize,
    /// Sums of a token ([`TernaryMatrix::sums`]).
    pub sums: usize,
    /// Weights one by one ([`TernaryMatrix::opened`]).
    pub opened: usize,
}

impl Extent {
    /// Room for either.
    #[must_use]
    pub fn max(self, other: Extent) -> Extent {
        Extent {
            cols: self.cols.max(other.cols),
            floats: self.floats.max(other.floats),
            sums: self.sums.max(other.sums),
            opened: self.opened.max(other.opened),
        }
    }
}

/// One or several matrices of one code with the same columns, on the GPU.
#[derive(Clone, Debug)]
pub struct TernaryMatrix {
    pub(crate) code: TernaryCode,
    pub(crate) rows: usize,
    pub(crate) cols: usize,
    pub(crate) tiles: usize,
    pub(crate) paired: bool,
    pub(crate) weights: DeviceArray<u8>,
    /// `[tiles, 4]`: γ, first output row, rows, 0; of int8 `[tiles, 12]`: first output row, rows, 0, 0, eight steps.
    pub(crate) descriptors: DeviceArray<u32>,
}

impl TernaryMatrix {
    /// Matrices one below the other: the output is that of the first, then that of the second, …
    ///
    /// # Errors
    /// [`CudaError::Shape`] if codes or columns differ or a length is not that of its matrix.
    pub fn stacked(gpu: &Gpu, parts: &[TernaryPart<'_>]) -> Result<Self> {
        let firsts = parts.iter().scan(0, |rows, part| {
            let first = *rows;
            *rows += part.rows;
            Some(first)
        });
        let placed: Vec<_> = firsts.zip(parts.iter().copied()).collect();
        Self::within(gpu, &placed, parts.iter().map(|part| part.rows).sum())
    }

    /// Matrices whose rows go to others' output rows from the given ones on, of an output that has `rows` of them for each token: the products write no other rows.
    ///
    /// # Errors
    /// As [`stacked`](Self::stacked), or where a part would end beyond `rows`.
    pub fn within(gpu: &Gpu, parts: &[(usize, TernaryPart<'_>)], rows: usize) -> Result<Self> {
        let order = parts
            .iter()
            .enumerate()
            .flat_map(|(i, (_, part))| (0..part.rows.div_ceil(TILE)).map(move |t| (i, t)));
        Self::upload(gpu, parts, rows, order.collect(), false)
    }

    /// Gate and up of a gated feed-forward network, row beside row: output `i` is made of row `i` of both.
    ///
    /// # Errors
    /// As [`stacked`](Self::stacked), and if their rows differ.
    pub fn paired(gpu: &Gpu, gate: TernaryPart<'_>, up: TernaryPart<'_>) -> Result<Self> {
        super::need("TernaryMatrix", "up", gate.rows, up.rows)?;
        let order = (0..gate.rows.div_ceil(TILE)).flat_map(|t| [(0, t), (1, t)]);
        Self::upload(gpu, &[(0, gate), (0, up)], gate.rows, order.collect(), true)
    }

    fn upload(
        gpu: &Gpu,
        parts: &[(usize, TernaryPart<'_>)],
        rows: usize,
        order: Vec<(usize, usize)>,
        paired: bool,
    ) -> Result<Self> {
        const OP: &str = "TernaryMatrix";
        let Some(&(_, TernaryPart { code, cols, .. })) = parts.first() else {
            return Err(CudaError::shape(OP, "a matrix", "none"));
        };
        for (first, part) in parts {
            if part.code != code || part.cols != cols {
                return Err(CudaError::shape(
                    OP,
                    format!("{cols} columns in {code:?}"),
                    format!("{} in {:?}", part.cols, part.code),
                ));
            }
            super::need(OP, "packed bytes", part.packed_bytes(), part.packed.len())?;
            let steps = if code == TernaryCode::Int8 { part.rows } else { 0 };
            super::need(OP, "steps", steps, part.steps.len())?;
            if first + part.rows > rows {
                return Err(CudaError::shape(OP, format!("{rows} output rows"), first + part.rows));
            }
        }
        let tile_bytes = cols.div_ceil(code.block()) * TILE * ROW_BYTES;
        let mut weights = vec![0u8; order.len() * tile_bytes];
        let mut descriptors = Vec::with_capacity(code.tile_info() / 4 * order.len());
        for (at, &(which, tile)) in order.iter().enumerate() {
            let (first, part) = &parts[which];
            descriptors.extend(part.describe(tile, first + tile * TILE));
            part.copy_tile(tile, &mut weights[at * tile_bytes..][..tile_bytes]);
        }
        Ok(TernaryMatrix {
            code,
            rows,
            cols,
            tiles: order.len(),
            paired,
            weights: gpu.upload(&weights)?,
            descriptors: gpu.upload(&descriptors)?,
        })
    }

    /// For benches: a matrix of one byte throughout, which all codes have.
    #[cfg(test)]
    pub(crate) fn synthetic(gpu: &Gpu, code: TernaryCode, rows: usize, cols: usize, paired: bool) -> Result<Self> {
        let (tiles, blocks) = (rows.div_ceil(TILE), cols.div_ceil(code.block()));
        let order = (0..tiles).flat_map(|tile| std::iter::repeat_n(tile, if paired { 2 } else { 1 }));
        let steps = vec![0.01; if code == TernaryCode::Int8 { rows } else { 0 }];
        let part = TernaryPart {
            code,
            rows,
            cols,
            packed: &[],
            gamma: 0.01,
            steps: &steps,
        };
        let descriptors: Vec<u32> = order.flat_map(|tile| part.describe(tile, tile * TILE)).collect();
        let tiles = descriptors.len() * 4 / code.tile_info();
        let weights = gpu.uninitialized(tiles * blocks * TILE * ROW_BYTES)?;
        gpu.fill_bytes(&weights, 0x15)?;
        Ok(TernaryMatrix {
            code,
            rows,
            cols,
            tiles,
            paired,
            weights,
            descriptors: gpu.upload(&descriptors)?,
        })
    }

    /// Output values of a token: of a pair, those of one of them.
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// Input values.
    pub fn cols(&self) -> usize {
        self.cols
    }

    /// Input values filled up to whole blocks: what a token's bytes are long.
    pub fn padded_cols(&self) -> usize {
        self.k_blocks() * self.code.block()
    }

    pub(crate) fn k_blocks(&self) -> usize {
        self.cols.div_ceil(self.code.block())
    }

    /// Sums of a token: one for each row of every tile.
    pub fn sums(&self) -> usize {
        self.tiles * TILE
    }

    /// Bytes that its weights take one by one, rows and columns filled up.
    pub fn opened(&self) -> usize {
        self.sums() * self.padded_cols()
    }

    /// What its products need room for.
    pub fn extent(&self) -> Extent {
        Extent {
            cols: self.padded_cols(),
            floats: 0,
            sums: self.sums(),
            opened: self.opened(),
        }
    }

    /// The same of matrices of `[rows, cols]` that become one.
    pub fn extent_needed(code: TernaryCode, sizes: &[[usize; 2]]) -> Extent {
        let sums = sizes.iter().map(|[rows, _]| rows.next_multiple_of(TILE)).sum();
        let cols = sizes.first().map_or(0, |[_, cols]| cols.next_multiple_of(code.block()));
        Extent {
            cols,
            floats: 0,
            sums,
            opened: sums * cols,
        }
    }

    /// Bytes that a matrix of `[rows, cols]` takes as it is, or as a part of several.
    pub const fn bytes_needed(code: TernaryCode, [rows, cols]: [usize; 2]) -> usize {
        rows.div_ceil(TILE) * (cols.div_ceil(code.block()) * TILE * ROW_BYTES + code.tile_info())
    }

    /// Bytes that a product reads of it.
    pub fn bytes(&self) -> usize {
        self.weights.bytes() + self.descriptors.bytes()
    }
}

#[cfg(test)]
mod tests {
    use onebit_kernels_cpu::t5;

    #[test]
    fn every_code_of_t5_opens_to_the_same_digits() {
        for byte in 0..=255u8 {
            let digits = t5::digits(byte).map(|d| u32::from(d - 1));
            // Bytes that are no code may become any.
            if byte & 31 == 27 && byte >> 5 != 2 {
                continue;
            }
            let q = u32::from(super::BASE3[byte as usize]);
            let number = |i: usize| (q * 3u32.pow(i as u32)) >> 8;
            let found: [u32; 5] = std::array::from_fn(|i| number(i + 1) - 3 * number(i));
            assert_eq!(found, digits, "{byte}");
        }
    }
}
