//! What holds of every layout, and weights for each.

use alloc::vec;
use alloc::vec::Vec;

use super::*;
use crate::t2::tests::{COLS, Lcg};

/// `w`, or where `layout` has no 0 the same with each 0 a −1 or a 1, by its place.
pub(crate) fn held_by(layout: Layout, w: &[i8]) -> Vec<i8> {
    let signed = |(i, w): (usize, &i8)| match w {
        0 if !layout.has_zero() => 1 - 2 * (i % 3 % 2) as i8,
        w => *w,
    };
    w.iter().enumerate().map(signed).collect()
}

#[test]
fn a_layout_says_what_it_holds() {
    let mut rng = Lcg(34);
    for layout in Layout::ALL {
        assert_eq!(Layout::TERNARY.contains(&layout), layout.has_zero());
        for cols in COLS {
            let (rows, w) = (5, held_by(layout, &rng.trits(5 * cols)));
            assert!(padded_cols(cols) >= layout.padded_cols(cols));
            assert_eq!(layout.padded_cols(cols) % layout.block(), 0);
            let mut packed = vec![0; layout.bytes(rows, cols)];
            assert_eq!(packed.len(), 2 * layout.group_bytes(cols));
            layout.pack(&w, rows, cols, &mut packed);
            assert!(layout.is_valid(&packed, rows, cols));
            // The fourth code of `t2`; in `b1` a weight of a row that is not there.
            *packed.last_mut().unwrap() |= 0xc0;
            assert_eq!(layout.is_valid(&packed, rows, cols), layout == Layout::T5);
            let mut back = vec![9; w.len()];
            layout.unpack(&packed, rows, cols, &mut back);
            assert_eq!(back, w, "{} {cols}", layout.name());
        }
    }
}
