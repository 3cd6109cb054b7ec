//! Which probabilities are dropped, one by one. That what follows from a mask is right is tested beside attention without one.

use super::*;

/// Outputs of equal probabilities, with values that tell which is which: row i of head h is `p[h,i,·]`.
fn probabilities(isa: Isa, s: &AttentionShape, dropout: Option<&AttentionDropout>) -> Vec<f32> {
    assert!(s.head_dim >= s.seq);
    let (q, k) = (vec![0.0; s.seq * s.row()], vec![0.0; s.seq * s.kv_row()]);
    let v: Vec<f32> = (0..k.len())
        .map(|i| f32::from(u8::from(i / s.kv_row() == i % s.head_dim)))
        .collect();
    let (mut out, mut lse) = (vec![9.0; q.len()], vec![9.0; s.heads * s.seq]);
    let mut scratch = vec![9.0; scratch_len(s)];
    causal_attention(isa, s, dropout, &q, &k, &v, &mut out, &mut lse, &mut scratch);
    out
}

#[test]
fn a_probability_is_dropped_by_the_number_of_its_place() {
    // Rows of whole and of broken blocks of four numbers; more than one block of queries.
    for s in [shape(8, 3, 1, 8), shape(13, 4, 2, 16), shape(70, 2, 2, 72)] {
        for sequence in [0, 7] {
            let dropout = AttentionDropout {
                sequence,
                ..three_tenths()
            };
            for isa in Isa::available() {
                let p = probabilities(isa, &s, Some(&dropout));
                for (i, row) in p.chunks(s.row()).enumerate() {
                    for (h, row) in row.chunks(s.head_dim).enumerate() {
                        let mask = oracle_mask(&s, Some(&dropout), h, i);
                        for (j, p) in row.iter().enumerate() {
                            let want = mask.get(j).map_or(0.0, |m| m / (i + 1) as f64);
                            assert!(
                                (f64::from(*p) - want).abs() < 1e-6,
                                "{s:?}: {h}, {i}, {j}: {p} for {want}"
                            );
                        }
                    }
                }
            }
        }
    }
}

#[test]
fn a_share_p_is_dropped_and_no_two_heads_or_sequences_alike() {
    let s = shape(64, 2, 1, 64);
    let dropped = |p: f32, sequence| -> Vec<Vec<bool>> {
        let dropout = AttentionDropout {
            p,
            sequence,
            ..three_tenths()
        };
        let out = probabilities(Isa::best(), &s, Some(&dropout));
        (0..s.heads)
            .map(|h| {
                let seen = (0..s.seq).flat_map(|i| (0..=i).map(move |j| (i, j)));
                seen.map(|(i, j)| out[i * s.row() + h * s.head_dim + j] == 0.0)
                    .collect()
            })
            .collect()
    };
    for p in [0.1f32, 0.5] {
        let masks: Vec<Vec<bool>> = (0..4).flat_map(|sequence| dropped(p, sequence)).collect();
        let n: usize = masks.iter().map(Vec::len).sum();
        let count = masks.iter().flatten().filter(|d| **d).count() as f64;
        let spread = sqrt_f64(n as f64 * f64::from(p) * f64::from(1.0 - p));
        assert!((count - n as f64 * f64::from(p)).abs() < 5.0 * spread, "{count} of {n}");
        for (i, mask) in masks.iter().enumerate() {
            assert!(masks[..i].iter().all(|other| other != mask), "mask {i}");
        }
    }
}

#[test]
fn probability_nought_changes_no_bit() {
    let s = shape(70, 4, 2, 16);
    let none = AttentionDropout {
        p: 0.0,
        ..three_tenths()
    };
    let x = inputs(&s);
    let [plain, dropped] = [None, Some(&none)].map(|dropout| run_dropped(Isa::best(), &s, dropout, &x));
    for (a, b) in plain.iter().zip(&dropped) {
        assert_eq!(bits(a), bits(b));
    }
}

#[test]
#[should_panic(expected = "not in [0, 1)")]
fn probability_one_is_refused() {
    let all = AttentionDropout {
        p: 1.0,
        ..three_tenths()
    };
    probabilities(Isa::best(), &shape(2, 1, 1, 2), Some(&all));
}
