//! Rows of a table by token id, and the scatter-add that is the backward.
//!
//! `table` is `[vocab, dim]`, `ids` `[tokens]`, `out` and `dy` `[tokens, dim]`. Rows are added in token order, so a
//! repeated id gives the same bits on every path. Cost: each row read and written once.

use crate::simd::{LANES, Simd, simd_kernel};

#[cfg(test)]
mod tests;

simd_kernel! {
    /// `out[t] = table[ids[t]]`.
    ///
    /// # Panics
    /// If `out` is not `ids.len()` rows of `dim`, or an id lies outside the table.
    pub fn gather(table: &[f32], dim: usize, ids: &[u32], out: &mut [f32]) = gather_body;
}

#[inline(always)]
fn gather_body<S: Simd>(_: S, table: &[f32], dim: usize, ids: &[u32], out: &mut [f32]) {
    assert_eq!(out.len(), ids.len() * dim, "length of `out`");
    if dim == 0 {
        return;
    }
    for (&id, out) in ids.iter().zip(out.chunks_exact_mut(dim)) {
        let first = id as usize * dim;
        assert!(
            first + dim <= table.len(),
            "id {id} outside a table of {} rows",
            table.len() / dim
        );
        out.copy_from_slice(&table[first..first + dim]);
    }
}

simd_kernel! {
    /// `dtable[ids[t]] += dy[t]` for each token in order.
    ///
    /// # Panics
    /// If `dy` is not `ids.len()` rows of `dim`, or an id lies outside the table.
    pub fn scatter_add(dy: &[f32], dim: usize, ids: &[u32], dtable: &mut [f32]) = scatter_add_body;
}

#[inline(always)]
fn scatter_add_body<S: Simd>(s: S, dy: &[f32], dim: usize, ids: &[u32], dtable: &mut [f32]) {
    assert_eq!(dy.len(), ids.len() * dim, "length of `dy`");
    if dim == 0 {
        return;
    }
    for (&id, dy) in ids.iter().zip(dy.chunks_exact(dim)) {
        let first = id as usize * dim;
        assert!(
            first + dim <= dtable.len(),
            "id {id} outside a table of {} rows",
            dtable.len() / dim
        );
        let (dy, dy_rest) = dy.as_chunks::<LANES>();
        let (row, row_rest) = dtable[first..first + dim].as_chunks_mut::<LANES>();
        for (dy, row) in dy.iter().zip(row) {
            s.store(s.add(s.load(row), s.load(dy)), row);
        }
        s.store_part(s.add(s.load_or(row_rest, 0.0), s.load_or(dy_rest, 0.0)), row_rest);
    }
}
