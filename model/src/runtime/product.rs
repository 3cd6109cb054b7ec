//! Where the results of several matrices over one input lie.

use super::executor::{Executor, Shares};
use super::linear::MAX_STACK;

/// Most pieces of a product.
pub(super) const MOST_PIECES: usize = 64;

/// The results of a stack of matrices as threads leave them: one piece of the stack's rows after the other, in each one matrix after the
/// other, `[tokens, rows of it in the piece]`. What reads them gathers rows, or has them laid out.
///
/// ```text
/// rows     gate …                              | up …
/// pieces   0: gate 0..64      1: gate 64..192 …  5: gate 960.., up 0..64     …
/// ```
pub(super) struct Product<'a> {
    values: &'a [f32],
    tokens: usize,
    /// Rows of each matrix.
    rows: [usize; MAX_STACK],
    /// Rows of the stack where pieces begin, and its end.
    cuts: [usize; MOST_PIECES + 1],
    pieces: usize,
}

/// Calls `f(matrix, first row, end row)`, rows counted within the matrix, for each matrix that rows `lo..hi` of the stack touch.
pub(super) fn segments(rows: &[usize], lo: usize, hi: usize, mut f: impl FnMut(usize, usize, usize)) {
    let mut base = 0;
    for (i, rows) in rows.iter().enumerate() {
        let end = base + rows;
        let (a, b) = (lo.max(base), hi.min(end));
        if a < b {
            f(i, a - base, b - base);
        }
        base = end;
    }
}

impl<'a> Product<'a> {
    /// Of `tokens` tokens, `values` having been cut into `shares` of `unit` rows, at most [`MOST_PIECES`].
    pub fn new(values: &'a [f32], tokens: usize, rows: [usize; MAX_STACK], unit: usize, shares: Shares) -> Self {
        let total = rows.iter().sum();
        // The pieces of one token lie one after the other, as in one.
        let pieces = if tokens > 1 { shares.pieces } else { 1 };
        let mut cuts = [total; MOST_PIECES + 1];
        for (i, cut) in cuts[..pieces].iter_mut().enumerate().skip(1) {
            *cut = shares.range(total, unit, i).start;
        }
        cuts[0] = 0;
        Self {
            values,
            tokens,
            rows,
            cuts,
            pieces,
        }
    }

    /// The results themselves, if they lie as `[tokens, rows]`, matrix after matrix.
    fn plain(&self) -> Option<&'a [f32]> {
        (self.pieces == 1).then_some(self.values)
    }

    /// Calls `f(first row, values)` for what `matrix` gave for `token`, in ascending order.
    pub fn each(&self, matrix: usize, token: usize, mut f: impl FnMut(usize, &[f32])) {
        let base: usize = self.rows[..matrix].iter().sum();
        let (from, to) = (base, base + self.rows[matrix]);
        if self.plain().is_some() {
            let at = from * self.tokens + token * (to - from);
            return f(0, &self.values[at..at + to - from]);
        }
        for piece in self.cuts[..=self.pieces].windows(2) {
            let (a, b) = (piece[0].max(from), piece[1].min(to));
            if a < b {
                let at = a * self.tokens + token * (b - a);
                f(a - from, &self.values[at..at + b - a]);
            }
        }
    }

    /// What `matrix` gave for `token`, where it lies or gathered in `spare`, which has room for it.
    pub fn row<'s>(&'s self, matrix: usize, token: usize, spare: &'s mut [f32]) -> &'s [f32] {
        let rows = self.rows[matrix];
        if self.plain().is_some() {
            let at = self.rows[..matrix].iter().sum::<usize>() * self.tokens + token * rows;
            return &self.values[at..at + rows];
        }
        let spare = &mut spare[..rows];
        self.each(matrix, token, |first, values| {
            spare[first..first + values.len()].copy_from_slice(values)
        });
        spare
    }

    /// All results, each matrix's as `[tokens, rows]`, one after the other.
    pub fn lay_out<E: Executor>(&self, exec: &E, out: &mut [f32]) {
        if let Some(values) = self.plain() {
            return out.copy_from_slice(values);
        }
        let mut rest = out;
        for (matrix, &rows) in self.rows.iter().enumerate().filter(|(_, rows)| **rows > 0) {
            let (part, after) = core::mem::take(&mut rest).split_at_mut(rows * self.tokens);
            rest = after;
            let chunk = self.tokens.div_ceil(exec.pieces(size_of_val(part)));
            exec.rows(part, chunk * rows, |first, part| {
                for (i, out) in part.chunks_exact_mut(rows).enumerate() {
                    self.each(matrix, first / rows + i, |first, values| {
                        out[first..first + values.len()].copy_from_slice(values);
                    });
                }
            });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::Serial;
    use super::*;
    use alloc::vec;
    use alloc::vec::Vec;

    #[test]
    fn rows_are_found_wherever_pieces_were_cut() {
        let rows = [10, 0, 7];
        let total: usize = rows.iter().sum();
        // What matrix `m` gives for row `r` and token `t`.
        let value = |m: usize, r: usize, t: usize| (100 * (20 * m + r) + t) as f32;
        for tokens in [1, 2, 5] {
            for (pieces, tapered, unit) in [(1, false, 1), (3, false, 4), (4, true, 1), (30, true, 4)] {
                let shares = Shares { pieces, tapered };
                let mut values = vec![0.0; tokens * total];
                for i in 0..pieces {
                    let piece = shares.range(total, unit, i);
                    let mut at = piece.start * tokens;
                    segments(&rows, piece.start, piece.end, |m, a, b| {
                        for t in 0..tokens {
                            for r in a..b {
                                values[at] = value(m, r, t);
                                at += 1;
                            }
                        }
                    });
                }
                let product = Product::new(&values, tokens, rows, unit, shares);
                let mut laid = vec![0.0; values.len()];
                product.lay_out(&Serial, &mut laid);
                let mut at = 0;
                for (m, &rows) in rows.iter().enumerate() {
                    for t in 0..tokens {
                        let want: Vec<f32> = (0..rows).map(|r| value(m, r, t)).collect();
                        assert_eq!(product.row(m, t, &mut [0.0; 10]), want, "{tokens} tokens, {shares:?}");
                        assert_eq!(laid[at..at + rows], want);
                        at += rows;
                    }
                }
            }
        }
    }
}
