//! Against plain indexing, on every path.

use alloc::vec;

use super::*;
use crate::elementwise::testing::*;
use crate::isa::Isa;

const IDS: [u32; 6] = [3, 0, 3, 6, 1, 3];

#[test]
fn gather_copies_rows() {
    for dim in SIZES {
        let table = numbers(1, 7 * dim);
        let got = on_every_path("gather", |isa| {
            let mut out = vec![9.0; IDS.len() * dim];
            gather(isa, &table, dim, &IDS, &mut out);
            out
        });
        for (t, &id) in IDS.iter().enumerate() {
            assert_eq!(got[t * dim..][..dim], table[id as usize * dim..][..dim]);
        }
    }
}

#[test]
fn scatter_adds_rows_in_order() {
    for dim in SIZES {
        let (before, dy) = (numbers(2, 7 * dim), numbers(3, IDS.len() * dim));
        let got = on_every_path("scatter_add", |isa| {
            let mut dtable = before.clone();
            scatter_add(isa, &dy, dim, &IDS, &mut dtable);
            dtable
        });
        let mut want = before.clone();
        for (t, &id) in IDS.iter().enumerate() {
            for i in 0..dim {
                want[id as usize * dim + i] += dy[t * dim + i];
            }
        }
        assert_eq!(got, want);
    }
}

#[test]
#[should_panic(expected = "id 7 outside a table of 7 rows")]
fn an_id_outside_the_table_is_refused() {
    gather(Isa::best(), &[0.0; 14], 2, &[7], &mut [0.0; 2]);
}
