//! The formula: the oracle of the other paths.

use super::{Columns, LINE_ROWS, Line, place};

/// See [`super::ternary_columns`].
pub(super) fn multiply(w: &[Line], columns: Columns<'_>, out: &mut [i32]) {
    let nonzero = columns.xq.iter().enumerate().filter(|(_, x)| **x != 0);
    for (k, x) in nonzero {
        let column = &w[k * columns.stride..];
        for (line, out) in column.iter().zip(out.chunks_mut(LINE_ROWS)) {
            for (r, out) in out.iter_mut().enumerate() {
                let (byte, bit) = place(r);
                *out += (i32::from((line.0[byte] >> bit) & 3) - 1) * i32::from(*x);
            }
        }
    }
}
