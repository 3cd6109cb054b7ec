//! The rows of query and key projections. Ours has the first values of all pairs of a head and then the second ones, as Hugging Face; a graph that turns
//! adjacent values has them pair by pair.

/// The row of the file that is row `row` of ours, with heads of `head_dim`.
const fn row_in_file(head_dim: usize, row: usize) -> usize {
    let (head, within) = (row / head_dim, row % head_dim);
    let (second, pair) = (within / (head_dim / 2), within % (head_dim / 2));
    head * head_dim + 2 * pair + second
}

/// A matrix with rows of `cols` from the file's order in ours.
pub(super) fn in_our_order<T: Copy>(values: &[T], cols: usize, head_dim: usize) -> Vec<T> {
    let mut out = Vec::with_capacity(values.len());
    for row in 0..values.len() / cols.max(1) {
        let at = row_in_file(head_dim, row) * cols;
        out.extend_from_slice(&values[at..at + cols]);
    }
    out
}

/// A matrix with rows of `cols` from our order in the file's.
pub(super) fn in_file_order<T: Copy + Default>(values: &[T], cols: usize, head_dim: usize) -> Vec<T> {
    let mut out = vec![T::default(); values.len()];
    for (row, values) in values.chunks_exact(cols.max(1)).enumerate() {
        let at = row_in_file(head_dim, row) * cols;
        out[at..at + cols].copy_from_slice(values);
    }
    out
}
