//! Hugging Face's packing of trits: four ROWS to a byte, a quarter of the matrix apart.
//!
//! With `R = rows/4`, byte `(r, c)` of the `[R, cols]` matrix holds rows `r`, `r + R`, `r + 2R`, `r + 3R` of column `c`
//! in bits 0–1, 2–3, 4–5, 6–7, each as trit + 1. The code 3 stands for nothing.

/// Packs trits `[rows, cols]`, each −1, 0 or +1, into bytes `[rows/4, cols]`. `None` when `rows` is no multiple of 4 or
/// the length is not `rows · cols`.
pub fn pack_rows(trits: &[i8], rows: usize, cols: usize) -> Option<Vec<u8>> {
    if !rows.is_multiple_of(4) || trits.len() != rows.checked_mul(cols)? {
        return None;
    }
    let quarter = trits.len() / 4;
    let mut packed = vec![0u8; quarter];
    for (j, rows) in trits.chunks_exact(quarter.max(1)).enumerate() {
        for (byte, &trit) in packed.iter_mut().zip(rows) {
            *byte |= ((trit + 1) as u8 & 3) << (2 * j);
        }
    }
    Some(packed)
}

/// Unpacks bytes `[rows/4, cols]` into trits `[rows, cols]`.
///
/// # Errors
/// The position in the unpacked matrix, in row-major order, of a code 3.
pub fn unpack_rows(packed: &[u8]) -> Result<Vec<i8>, usize> {
    let quarter = packed.len();
    let mut trits = vec![0i8; quarter * 4];
    for (j, rows) in trits.chunks_exact_mut(quarter.max(1)).enumerate() {
        let mut unused = false;
        for (trit, &byte) in rows.iter_mut().zip(packed) {
            let code = (byte >> (2 * j)) & 3;
            unused |= code == 3;
            *trit = code as i8 - 1;
        }
        if unused {
            let at = packed.iter().position(|byte| (byte >> (2 * j)) & 3 == 3).unwrap_or(0);
            return Err(j * quarter + at);
        }
    }
    Ok(trits)
}
