//! Splitting work over rayon's threads by rows.
//!
//! Each closure gets a run of whole rows and their index, so what a row holds cannot depend on how runs are cut.

use rayon::prelude::*;

/// Elements below which a row-wise operation stays on one thread: entering the pool costs some microseconds.
const MIN_ELEMENTS: usize = 16 * 1024;

/// Rows of a run: about two runs a thread, at least `min_elements` elements each.
fn run_rows(rows: usize, row_len: usize) -> usize {
    let wanted = rows.div_ceil(2 * rayon::current_num_threads());
    wanted.max(MIN_ELEMENTS / row_len.max(1)).max(1)
}

/// Calls `f(first_row, rows of out)` over all rows of `out`.
pub(crate) fn over_rows(out: &mut [f32], row_len: usize, f: impl Fn(usize, &mut [f32]) + Sync) {
    if row_len == 0 || out.is_empty() {
        return;
    }
    let run = run_rows(out.len() / row_len, row_len);
    if run * row_len >= out.len() {
        return f(0, out);
    }
    out.par_chunks_mut(run * row_len)
        .enumerate()
        .for_each(|(i, chunk)| f(i * run, chunk));
}

/// As [`over_rows`] with two outputs that have the same number of rows.
pub(crate) fn over_rows2<A: Send, B: Send>(
    (a, a_len): (&mut [A], usize),
    (b, b_len): (&mut [B], usize),
    f: impl Fn(usize, &mut [A], &mut [B]) + Sync,
) {
    if a_len == 0 || b_len == 0 || a.is_empty() {
        return;
    }
    let run = run_rows(a.len() / a_len, a_len);
    if run * a_len >= a.len() {
        return f(0, a, b);
    }
    a.par_chunks_mut(run * a_len)
        .zip(b.par_chunks_mut(run * b_len))
        .enumerate()
        .for_each(|(i, (a, b))| f(i * run, a, b));
}
