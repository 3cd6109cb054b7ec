//! Binary matrices: the runtime's blocks of 128 columns as the blocks of 512 that the kernels read.
//!
//! ```text
//! runtime   block of a row 16 bytes, four rows take turns: bit f of byte j is column j + 16·f of 128      (`onebit_kernels_cpu::b1`)
//! kernels   block of a row 64 bytes:                       bit f of byte j is column j + 64·f of 512
//! ```
//!
//! Column `64·f + j` of 512 is column `64·(f mod 2) + j` of the runtime's block `⌊f/2⌋` of four: there bit `4·(f mod 2) + ⌊j/16⌋` of byte
//! `j mod 16`. So bits `2q` and `2q + 1` come from one byte of block `q`. What the runtime's blocks do not reach is 0, as its padding is.

/// Columns and bytes of the runtime's block of a row.
const COLS: usize = 128;
const BYTES: usize = 16;
/// Rows of a group.
const GROUP: usize = 4;

/// Bytes of a group of four rows of the runtime.
pub(super) const fn group_bytes(cols: usize) -> usize {
    GROUP * BYTES * cols.div_ceil(COLS)
}

/// Block `block` of the four rows of `group` into `out`, `[4 rows][64 bytes]`, which is 0.
pub(super) fn copy_block(group: &[u8], block: usize, out: &mut [u8]) {
    let blocks = group.chunks_exact(GROUP * BYTES).skip(4 * block).take(4);
    for (q, rows) in blocks.enumerate() {
        for (row, out) in rows.chunks_exact(BYTES).zip(out.chunks_exact_mut(4 * BYTES)) {
            for (j, out) in out.iter_mut().enumerate() {
                let bits = row[j % BYTES] >> (j / BYTES);
                *out |= (bits & 1 | bits >> 3 & 2) << (2 * q);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ternary_gemv::tests::Random;
    use onebit_kernels_cpu::b1;

    #[test]
    fn every_column_comes_to_its_place() {
        let mut random = Random(7);
        for (rows, cols) in [(1, 1), (4, 127), (5, 128), (3, 129), (8, 512), (6, 1100)] {
            let signs: Vec<i8> = random.bytes(rows * cols).iter().map(|w| 2 * (w & 1) - 1).collect();
            let mut packed = vec![0; b1::bytes(rows, cols)];
            b1::pack(&signs, rows, cols, &mut packed);
            assert_eq!(group_bytes(cols), b1::group_bytes(cols));
            for (g, group) in packed.chunks_exact(group_bytes(cols)).enumerate() {
                for block in 0..cols.div_ceil(512) {
                    let mut out = [0; 256];
                    copy_block(group, block, &mut out);
                    for (at, byte) in out.iter().enumerate() {
                        for f in 0..8 {
                            let (row, col) = (4 * g + at / 64, 512 * block + 64 * f + at % 64);
                            let one = row < rows && col < cols && signs[row * cols + col] == 1;
                            assert_eq!(byte >> f & 1 == 1, one, "{rows} x {cols}, row {row}, column {col}");
                        }
                    }
                }
            }
        }
    }
}
