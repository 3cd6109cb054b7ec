//! Against the definition, on every path.

use alloc::vec;
use alloc::vec::Vec;

use super::*;
use crate::elementwise::testing::*;
use crate::isa::Isa;

fn run(isa: Isa, x: &[f32], p: f32, offset: u64) -> Vec<f32> {
    let mut out = vec![9.0; x.len()];
    dropout(isa, x, p, Key::new(3, 1, 4), offset, &mut out);
    out
}

#[test]
fn the_mask_is_its_definition() {
    let key = Key::new(3, 1, 4);
    for n in SIZES.into_iter().chain([63, 64, 65, 129]) {
        for (p, offset) in [(0.0, 0), (0.1, 0), (0.1, 1), (0.5, 6), (0.9, (1 << 34) - 5), (1e-9, 3)] {
            let x = numbers(1, n);
            let got = on_every_path("dropout", |isa| run(isa, &x, p, offset));
            for (i, (&x, &y)) in x.iter().zip(&got).enumerate() {
                let kept = key.uniform(offset + i as u64) >= p;
                assert_eq!(y, if kept { x * (1.0 / (1.0 - p)) } else { 0.0 });
            }
        }
    }
}

#[test]
fn a_share_p_is_dropped_and_the_mean_kept() {
    let n = 100_000;
    for p in [0.1f32, 0.5] {
        let y = run(Isa::best(), &vec![1.0; n], p, 0);
        let dropped = y.iter().filter(|&&v| v == 0.0).count() as f64;
        let spread = (n as f64 * f64::from(p) * f64::from(1.0 - p)).sqrt();
        assert!((dropped - n as f64 * f64::from(p)).abs() < 5.0 * spread);
    }
}

#[test]
fn parts_with_their_offsets_make_the_whole() {
    let x = numbers(2, 301);
    let whole = run(Isa::best(), &x, 0.3, 17);
    for cut in [0, 1, 2, 3, 64, 150, 301] {
        let (a, b) = x.split_at(cut);
        let parts = [run(Isa::best(), a, 0.3, 17), run(Isa::best(), b, 0.3, 17 + cut as u64)].concat();
        assert_eq!(parts, whole);
    }
}

#[test]
#[should_panic(expected = "not in [0, 1)")]
fn probability_one_is_refused() {
    run(Isa::best(), &[1.0], 1.0, 0);
}
