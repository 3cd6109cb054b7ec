//! The driver of all vector paths, written once over [`Lanes`]: batch after batch, line after line, and the sums of a line in registers.

use super::{BATCH, Batch, Columns, LINE_ROWS, Line};
use crate::prefetch::prefetch_level2;

/// A path's registers of bytes and its sums. Safe as those of [`Simd`](crate::simd::Simd) are: holding the token proves that the CPU has them.
///
/// A register holds 16 bytes of a line or a multiple of them. `low` and `high` are the first and second eight of each sixteen bytes.
pub(super) trait Lanes: Copy {
    /// A register of bytes.
    type V: Copy;
    /// The sums of a field of it, one for each four bytes, over a batch. They may count a power of two times.
    type Sums: Copy;
    /// Registers in a line.
    const PARTS: usize;
    /// Whether the sums of all registers that four lines make fit into the registers, or of half of them.
    const WHOLE: bool;

    /// Part `part % PARTS` of a line.
    fn load(self, line: &Line, part: usize) -> Self::V;
    /// The bytes of `a` and of `b` in turn, low ones.
    fn low_bytes(self, a: Self::V, b: Self::V) -> Self::V;
    /// The bytes of `a` and of `b` in turn, high ones.
    fn high_bytes(self, a: Self::V, b: Self::V) -> Self::V;
    /// Two bytes of `a` and two of `b` in turn, low ones.
    fn low_pairs(self, a: Self::V, b: Self::V) -> Self::V;
    /// Two bytes of `a` and two of `b` in turn, high ones.
    fn high_pairs(self, a: Self::V, b: Self::V) -> Self::V;
    /// The four bytes, again and again.
    fn word(self, x: [i8; 4]) -> Self::V;

    /// No sums yet.
    fn zero(self) -> Self::Sums;
    /// Adds the products of each field's codes with `x` to that field's sums. No sum overflows within a batch.
    fn add(self, sums: [Self::Sums; 4], codes: Self::V, x: Self::V) -> [Self::Sums; 4];
    /// Adds part `part % PARTS` of sixteen rows, the sums of field `field`, to theirs.
    fn finish(self, sums: Self::Sums, field: usize, out: &mut [i32; 16], part: usize);
}

/// See [`super::ternary_columns`].
#[inline(always)]
pub(super) fn multiply<L: Lanes>(l: L, w: &[Line], columns: Columns<'_>, out: &mut [i32]) {
    // Codes are `w + 1`.
    let sum = columns.xq.iter().map(|&x| i32::from(x)).sum::<i32>();
    for out in &mut *out {
        *out -= sum;
    }
    let (mut next, mut batch, mut following) = (0, Batch::EMPTY, Batch::EMPTY);
    batch.fill(columns, &mut next);
    // Nobody asked for these before.
    for k in batch.lines.as_flattened().iter().take(4 * batch.groups) {
        for line in 0..columns.stride {
            prefetch_level2(w.as_ptr().wrapping_add(k + line).cast(), 1);
        }
    }
    while batch.groups > 0 {
        following.fill(columns, &mut next);
        let (whole, rest) = out.as_chunks_mut::<LINE_ROWS>();
        let lines = whole.len();
        for (line, out) in whole.iter_mut().enumerate() {
            add_line(l, w, &batch, &following, line, out);
        }
        if !rest.is_empty() {
            let mut padded = [0; LINE_ROWS];
            padded[..rest.len()].copy_from_slice(rest);
            add_line(l, w, &batch, &following, lines, &mut padded);
            rest.copy_from_slice(&padded[..rest.len()]);
        }
        batch = following;
    }
}

/// Adds a batch's products with line `line` of each column to `out`, and asks for the same line of the batch that follows.
#[inline(always)]
fn add_line<L: Lanes>(l: L, w: &[Line], batch: &Batch, following: &Batch, line: usize, out: &mut [i32; LINE_ROWS]) {
    for part in 0..L::PARTS {
        if L::WHOLE {
            pass::<L, 0, 2>(l, w, batch, following, line, part, out);
        } else {
            pass::<L, 0, 1>(l, w, batch, following, line, part, out);
            pass::<L, 1, 1>(l, w, batch, following, line, part, out);
        }
    }
}

/// What one walk through the columns of a batch adds: those rows of part `part` that are in the halves `FIRST..FIRST + N` of each sixteen bytes.
#[inline(always)]
fn pass<L: Lanes, const FIRST: usize, const N: usize>(
    l: L,
    w: &[Line],
    batch: &Batch,
    following: &Batch,
    line: usize,
    part: usize,
    out: &mut [i32; LINE_ROWS],
) {
    assert!(line < w.len().saturating_sub(batch.last), "the line is in every column");
    // Each pass asks for its share of the lines.
    let share = const { 4usize.div_ceil(L::PARTS * 2 / N) };
    let asked = (part * 2 + FIRST) / N * share;
    // By half, register and field; field `f` counts `4^f` times or less.
    let mut sums = [[[l.zero(); 4]; 2]; N];
    for g in 0..batch.groups.min(BATCH / 4) {
        if g < following.groups
            && let Some(lines) = following.lines[g].get(asked..asked + share)
        {
            for k in lines {
                prefetch_level2(w.as_ptr().wrapping_add(k + line).cast(), 1);
            }
        }
        let [a, b, c, d] = batch.lines[g];
        // SAFETY: no line of a batch is beyond its `last`, and `last + line` was compared with the length.
        let (a, b, c, d) = unsafe {
            (
                w.get_unchecked(a + line),
                w.get_unchecked(b + line),
                w.get_unchecked(c + line),
                w.get_unchecked(d + line),
            )
        };
        let (a, b, c, d) = (l.load(a, part), l.load(b, part), l.load(c, part), l.load(d, part));
        let x = l.word(batch.x[g]);
        for h in 0..N {
            let (ab, cd) = if FIRST + h == 0 {
                (l.low_bytes(a, b), l.low_bytes(c, d))
            } else {
                (l.high_bytes(a, b), l.high_bytes(c, d))
            };
            sums[h][0] = l.add(sums[h][0], l.low_pairs(ab, cd), x);
            sums[h][1] = l.add(sums[h][1], l.high_pairs(ab, cd), x);
        }
    }
    let sixteens = out.as_chunks_mut::<16>().0;
    for h in 0..N {
        for t in 0..2 {
            for f in 0..4 {
                l.finish(sums[h][t][f], f, &mut sixteens[4 * f + 2 * (FIRST + h) + t], part);
            }
        }
    }
}
