//! Master weights that are divided among ranks, and the trits that the ranks send each other instead of them: 2 bits a weight.
//!
//! The blocks' matrices lie one behind the other in an *arena* of `codes` elements, as [`WeightTable`](crate::weights::WeightTable) has them. A rank owns *slices*
//! of it: their f32 weights lie in an array of its own, at places of its own. Two arrays of every rank are as long as the whole arena and hold what all ranks know
//! once they have exchanged it:
//!
//! ```text
//! own weights (f32)  --measure-->  sums [codes / 4096]     every rank its own pieces, zeros elsewhere; the ranks' arrays are added (no two are not zero)
//! sums               --scale---->  γ of each tensor, scales of rows
//! own weights and γ  --pack----->  packed [codes / 4]      every rank its own slices; the ranks' slices are gathered in place
//! packed and γ       --unpack--->  int8 codes [codes], bf16 weights: what the products read
//!
//! own weights and γ  --dense---->  bf16 weights of the own slices in their places, at any annealing value: what is gathered before the hard phase, and of full tensors
//! ```
//! **Packed**: weight `i` of the arena is bits `2·(i mod 4)` of byte `i / 4`, as trit + 1; a binary weight −1 is 0 and 1 is 2.
//!
//! **Pieces.** A sum is that of 4096 elements, so slices begin and end at multiples of 4096 of the arena, and tensors are whole numbers of pieces; a table of others is refused
//! ([`piece_fits`] tells beforehand). So is one of int8 or int4, whose rows have steps of their own. Full tensors have their place in the arena, of which only `dense` reads or writes anything.
//!
//! **The same bits as without ranks.** γ, scales, codes and counts are those of [`WeightTable`](crate::weights::WeightTable) on the whole weights, and dense weights those that
//! it writes at an annealing value of 1, however the arena is divided: sums of pieces are f32 there too, and are added here in its order.
//!
//! **Cost**, bytes a weight: of the own ones `measure` 4, `pack` 4 + ¼, `statistics` 4 + ¼, `dense` 4 + 2; of all `unpack` ¼ + 1 (codes) + 2 (dense). Tables: 16 bytes for each own piece
//! and 4 for each piece of the arena, 1/200 byte a weight.

#[cfg(test)]
mod tests;

use std::ops::Range;

use half::bf16;

use crate::device::{CudaError, DeviceArray, Gpu, Kernel, Launch, Module, Result, ptx};
use crate::quantize::{need, need_aligned};
use crate::weights::{COUNTS, WeightMode, WeightTensor};

static MODULE: Module = ptx!("kernel.ptx");
const SUMS: Kernel = MODULE.kernel("piece_sums");
const GAMMAS: Kernel = MODULE.kernel("piece_gammas");
const PACK: Kernel = MODULE.kernel("pack_trits");
const UNPACK: Kernel = MODULE.kernel("unpack_trits");
const DENSE: Kernel = MODULE.kernel("own_dense");
const STATISTICS: Kernel = MODULE.kernel("own_statistics");

/// Elements of a piece, which has one sum and one owner.
pub const PIECE: usize = 4096;
/// Trits of a byte.
pub const TRITS: usize = 4;
/// Threads of a block.
const THREADS: u32 = 256;
/// Own pieces of a block.
const GROUP: usize = 16;
/// Pieces that a block unpacks.
const UNPACKED: usize = 4;

/// Elements of the arena in a row that a rank owns.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Slice {
    /// The first of them, a multiple of [`PIECE`].
    pub first: usize,
    /// How many, a multiple of [`PIECE`].
    pub len: usize,
    /// Where they begin in the rank's own array of weights, a multiple of 4.
    pub at: usize,
}

/// Whether a tensor of `elements` is whole pieces, as a [`ShardTable`] needs all of them.
pub fn piece_fits(elements: usize) -> bool {
    elements.is_multiple_of(PIECE)
}

/// The tensors of an arena and the slices that a rank owns of it, on the GPU.
#[derive(Debug)]
pub struct ShardTable {
    tensors: Vec<WeightTensor>,
    slices: Vec<Slice>,
    /// The number of the first piece of each tensor, and of all of them at the end.
    first_pieces: Vec<usize>,
    /// The number of the first own piece of each slice, and of all of them at the end.
    own_pieces: Vec<usize>,
    /// Six words for each tensor.
    entries: DeviceArray<u64>,
    /// The tensor of each piece.
    owners: DeviceArray<u32>,
    /// Two words for each own piece.
    own: DeviceArray<u64>,
    gammas: DeviceArray<f32>,
}

impl ShardTable {
    /// The table of `tensors`, one behind the other by their `codes` from 0 on, of which the rank owns `slices` in order. Their `master` is not used.
    ///
    /// # Errors
    /// A gap between tensors, one that is not whole pieces or has steps of rows, `dense` that is no multiple of 8; slices that overlap, leave the arena or are not whole pieces, `at` that is no
    /// multiple of 4; no memory.
    pub fn new(gpu: &Gpu, tensors: &[WeightTensor], slices: &[Slice]) -> Result<Self> {
        const OP: &str = "shard table";
        let (mut entries, mut owners, mut first_pieces) = (Vec::new(), Vec::new(), vec![0]);
        for (i, t) in tensors.iter().enumerate() {
            let (first, elements) = (owners.len(), t.rows * t.cols);
            if t.codes != first * PIECE || !piece_fits(elements) || !t.dense.is_multiple_of(8) {
                let expected =
                    "tensors one behind the other, of multiples of 4096 elements, bf16 weights at multiples of 8";
                return Err(CudaError::shape(OP, expected, format!("{t:?}")));
            }
            let mode: u64 = match t.mode {
                WeightMode::Full => 0,
                WeightMode::Ternary => 1,
                WeightMode::Binary => 2,
                WeightMode::Int8 | WeightMode::Int4 => {
                    return Err(CudaError::shape(
                        OP,
                        "full, ternary or binary tensors",
                        format!("{t:?}"),
                    ));
                }
            };
            let pieces = elements / PIECE;
            entries.extend([pieces, t.dense, t.scales, t.rows].map(|n| n as u64));
            entries.extend([mode, first as u64]);
            owners.resize(first + pieces, i as u32);
            first_pieces.push(owners.len());
        }
        let (mut own, mut own_pieces, mut free) = (Vec::new(), vec![0], 0);
        for s in slices {
            let whole = s.first.is_multiple_of(PIECE) && s.len.is_multiple_of(PIECE) && s.at.is_multiple_of(4);
            let end = s.first.checked_add(s.len);
            let Some(end) = end.filter(|&end| whole && s.first >= free && end <= owners.len() * PIECE) else {
                let expected = format!("slices in order, of whole pieces of {} elements", owners.len() * PIECE);
                return Err(CudaError::shape(OP, expected, format!("{s:?}")));
            };
            for (i, piece) in (s.first / PIECE..end / PIECE).enumerate() {
                own.push((s.at + i * PIECE) as u64);
                own.push(piece as u64 | u64::from(owners[piece]) << 32);
            }
            own_pieces.push(own.len() / 2);
            free = end;
        }
        if owners.len() > i32::MAX as usize {
            return Err(CudaError::shape(OP, "fewer than 2^31 pieces", owners.len()));
        }
        Ok(ShardTable {
            tensors: tensors.to_vec(),
            slices: slices.to_vec(),
            first_pieces,
            own_pieces,
            entries: gpu.upload(&entries)?,
            owners: gpu.upload(&owners)?,
            own: gpu.upload(&own)?,
            gammas: gpu.zeros(tensors.len())?,
        })
    }

    /// Elements of the arena.
    pub fn elements(&self) -> usize {
        self.owners.len() * PIECE
    }

    /// The tensors, in order.
    pub fn tensors(&self) -> &[WeightTensor] {
        &self.tensors
    }

    /// What the rank owns, in order.
    pub fn slices(&self) -> &[Slice] {
        &self.slices
    }

    /// γ of each tensor, as [`ShardTable::scale`] last left it; 1 for full ones.
    pub fn gammas(&self) -> &DeviceArray<f32> {
        &self.gammas
    }

    /// Σ|W| of each own piece of a quantised tensor in `sums` `[elements / PIECE]`, and zeros in all other places.
    ///
    /// # Errors
    /// Lengths that do not fit.
    pub fn measure(&self, gpu: &Gpu, weights: &DeviceArray<f32>, sums: &DeviceArray<f32>) -> Result<()> {
        const OP: &str = "shards: measure";
        self.check_own(OP, weights)?;
        need(OP, "sums", sums, self.owners.len())?;
        gpu.fill_bytes(sums, 0)?;
        let launch = self.launch_own(gpu, SUMS, self.count()).u32(self.count());
        // SAFETY: own pieces lie in `weights`, and every piece of the arena has its sum.
        unsafe { launch.array(weights).array(sums).run() }
    }

    /// γ of each tensor, and the scale of each row in `scales`, from the `sums` of all ranks.
    ///
    /// # Errors
    /// Lengths that do not fit.
    pub fn scale(&self, gpu: &Gpu, sums: &DeviceArray<f32>, scales: &DeviceArray<f32>) -> Result<()> {
        const OP: &str = "shards: scale";
        need(OP, "sums", sums, self.owners.len())?;
        let rows = |t: &WeightTensor| {
            if t.mode == WeightMode::Full {
                0
            } else {
                t.scales + t.rows
            }
        };
        self.check_end(OP, "scales", 0..self.tensors.len(), scales.len(), rows)?;
        // SAFETY: there is a block for each tensor; its pieces have sums and its rows scales.
        unsafe {
            Launch::new(gpu, GAMMAS, [self.tensors.len() as u32, 1, 1], THREADS)
                .array(&self.entries)
                .array(sums)
                .array(&self.gammas)
                .array(scales)
                .run()
        }
    }

    /// The trits of own slices `which`, which [`ShardTable::scale`] has given γ, in their places of `packed` `[elements / 4]`.
    ///
    /// # Errors
    /// Slices that there are not, lengths that do not fit.
    pub fn pack(
        &self,
        gpu: &Gpu,
        which: Range<usize>,
        weights: &DeviceArray<f32>,
        packed: &DeviceArray<u8>,
    ) -> Result<()> {
        const OP: &str = "shards: pack";
        self.check_own(OP, weights)?;
        need_aligned(OP, "packed trits", packed, self.elements() / TRITS)?;
        let pieces = some_of(OP, &which, &self.own_pieces, "slices")?;
        let launch = self.launch_own(gpu, PACK, pieces.len());
        // SAFETY: own pieces lie in `weights`, and every piece of the arena has its bytes.
        unsafe {
            launch
                .u32(pieces.start)
                .u32(pieces.end)
                .array(weights)
                .array(&self.gammas)
                .array(packed)
                .run()
        }
    }

    /// Opens the `packed` trits of tensors `which`: as `codes` `[elements]` or more, as `dense` weights, or both.
    ///
    /// # Errors
    /// Tensors that there are not, lengths that do not fit.
    pub fn unpack(
        &self,
        gpu: &Gpu,
        which: Range<usize>,
        packed: &DeviceArray<u8>,
        codes: Option<&DeviceArray<i8>>,
        dense: Option<&DeviceArray<bf16>>,
    ) -> Result<()> {
        const OP: &str = "shards: unpack";
        need_aligned(OP, "packed trits", packed, self.elements() / TRITS)?;
        let pieces = some_of(OP, &which, &self.first_pieces, "tensors")?;
        if let Some(codes) = codes {
            self.check_end(OP, "codes", which.clone(), codes.len(), |t| t.codes + t.rows * t.cols)?;
            need_aligned(OP, "codes", codes, codes.len())?;
        }
        if let Some(dense) = dense {
            self.check_end(OP, "dense weights", which, dense.len(), |t| t.dense + t.rows * t.cols)?;
            need_aligned(OP, "dense weights", dense, dense.len())?;
        }
        let blocks = pieces.len().div_ceil(UNPACKED) as u32;
        // SAFETY: every piece of the arena has its bytes, and those of tensors `which` their places in the outputs.
        unsafe {
            Launch::new(gpu, UNPACK, [blocks, 1, 1], THREADS)
                .array(&self.entries)
                .array(&self.owners)
                .u32(pieces.start)
                .u32(pieces.end)
                .array(&self.gammas)
                .array(packed)
                .optional(codes)
                .optional(dense)
                .run()
        }
    }

    /// The bf16 weights of own slices `which` at the annealing value in `anneal` `[1]`, in the places of `dense` that [`WeightTable::write`](crate::weights::WeightTable::write) gives them, with its bits. Tensors that are quantised have been given γ, unless the annealing
    /// value is 0.
    ///
    /// # Errors
    /// Slices that there are not, lengths that do not fit.
    pub fn dense(
        &self,
        gpu: &Gpu,
        which: Range<usize>,
        weights: &DeviceArray<f32>,
        dense: &DeviceArray<bf16>,
        anneal: &DeviceArray<f32>,
    ) -> Result<()> {
        const OP: &str = "shards: dense";
        self.check_own(OP, weights)?;
        need(OP, "annealing value", anneal, 1)?;
        need_aligned(OP, "dense weights", dense, dense.len())?;
        let pieces = some_of(OP, &which, &self.own_pieces, "slices")?;
        let owners = self.slices[which].iter().filter(|s| s.len > 0).map(|s| {
            let [first, last] =
                [s.first, s.first + s.len - 1].map(|e| self.first_pieces.partition_point(|&p| p <= e / PIECE) - 1);
            first..last + 1
        });
        for owners in owners {
            self.check_end(OP, "dense weights", owners, dense.len(), |t| t.dense + t.rows * t.cols)?;
        }
        let launch = self.launch_own(gpu, DENSE, pieces.len());
        // SAFETY: own pieces lie in `weights`, and the tensors that they are of in `dense`.
        unsafe {
            launch
                .u32(pieces.start)
                .u32(pieces.end)
                .array(weights)
                .array(&self.gammas)
                .array(dense)
                .array(anneal)
                .run()
        }
    }

    /// What this rank's part of the counts of tensor `i` is, in `counts[3·i..]`: own weights whose trit is 0, own weights with `|W| ≥ 1.5·γ`, and own trits that differ from those in `previous`,
    /// packed (none where that is missing). Zeros for tensors that are not ternary. The sums over ranks are those of
    /// [`WeightTable::statistics`](crate::weights::WeightTable::statistics).
    ///
    /// # Errors
    /// Lengths that do not fit.
    pub fn statistics(
        &self,
        gpu: &Gpu,
        weights: &DeviceArray<f32>,
        previous: Option<&DeviceArray<u8>>,
        counts: &DeviceArray<u32>,
    ) -> Result<()> {
        const OP: &str = "shards: statistics";
        self.check_own(OP, weights)?;
        previous.map_or(Ok(()), |p| need(OP, "packed trits", p, self.elements() / TRITS))?;
        need(OP, "counts", counts, COUNTS * self.tensors.len())?;
        gpu.fill_bytes(counts, 0)?;
        let launch = self.launch_own(gpu, STATISTICS, self.count()).u32(self.count());
        // SAFETY: own pieces lie in `weights`, every piece of the arena has its bytes, and each tensor its counts.
        unsafe {
            launch
                .array(weights)
                .array(&self.gammas)
                .optional(previous)
                .array(counts)
                .run()
        }
    }

    /// Own pieces.
    fn count(&self) -> usize {
        self.own.len() / 2
    }

    /// A block for each sixteen of `pieces`.
    fn launch_own<'g>(&self, gpu: &'g Gpu, kernel: Kernel, pieces: usize) -> Launch<'g> {
        Launch::new(gpu, kernel, [pieces.div_ceil(GROUP) as u32, 1, 1], THREADS)
            .array(&self.entries)
            .array(&self.own)
    }

    fn check_own(&self, op: &'static str, weights: &DeviceArray<f32>) -> Result<()> {
        let end = self.slices.iter().map(|s| s.at + s.len).max().unwrap_or(0);
        if end > weights.len() {
            let expected = format!("own weights of {end} elements or more");
            return Err(CudaError::shape(op, expected, weights.len()));
        }
        need_aligned(op, "own weights", weights, weights.len())
    }

    /// Compares `len` with where tensors `which` end.
    fn check_end(
        &self,
        op: &'static str,
        what: &str,
        which: Range<usize>,
        len: usize,
        end: impl Fn(&WeightTensor) -> usize,
    ) -> Result<()> {
        let end = self.tensors[which].iter().map(end).max().unwrap_or(0);
        if end <= len {
            return Ok(());
        }
        Err(CudaError::shape(op, format!("{what} of {end} elements or more"), len))
    }
}

/// The pieces of `which` slices or tensors, whose first pieces are `firsts`.
fn some_of(op: &'static str, which: &Range<usize>, firsts: &[usize], what: &str) -> Result<Range<usize>> {
    if which.start > which.end || which.end >= firsts.len() {
        let expected = format!("some of {} {what}", firsts.len() - 1);
        return Err(CudaError::shape(op, expected, format!("{which:?}")));
    }
    Ok(firsts[which.start]..firsts[which.end])
}
