//! Known answers of the Philox authors, and the statistics of each kind of number.

use alloc::vec;
use alloc::vec::Vec;

use super::*;

#[test]
fn philox_gives_the_known_answers() {
    assert_eq!(
        philox([0; 4], [0; 2]),
        [0x6627_e8d5, 0xe169_c58d, 0xbc57_ac4c, 0x9b00_dbd8]
    );
    assert_eq!(
        philox([!0; 4], [!0; 2]),
        [0x408f_276d, 0x41c8_3b0e, 0xa20b_c7c6, 0x6d54_51fd]
    );
    let digits_of_pi = philox(
        [0x243f_6a88, 0x85a3_08d3, 0x1319_8a2e, 0x0370_7344],
        [0xa409_3822, 0x299f_31d0],
    );
    assert_eq!(digits_of_pi, [0xd16c_fe09, 0x94fd_cceb, 0x5001_e420, 0x2412_6ea1]);
}

#[test]
fn a_word_is_its_place_in_its_block() {
    let key = Key::new(7, 3, 11);
    for index in (0..20).chain((1 << 34)..(1 << 34) + 5) {
        assert_eq!(key.u32(index), key.block(index / 4)[(index % 4) as usize]);
    }
}

#[test]
fn a_batch_is_sixteen_blocks() {
    let key = Key::new(7, 3, 11);
    for first in [0, 5, (1 << 32) - 3] {
        let want: Vec<u32> = (first..first + 16).flat_map(|b| key.block(b)).collect();
        assert_eq!(key.batch(first).to_vec(), want);
    }
}

#[test]
fn every_part_of_the_key_matters() {
    let keys = [
        Key::new(1, 1, 1),
        Key::new(2, 1, 1),
        Key::new(1 << 32 | 1, 1, 1),
        Key::new(1, 2, 1),
        Key::new(1, 1, 2),
        Key::new(1, 1, 1 << 32 | 1),
    ];
    for (i, a) in keys.iter().enumerate() {
        for b in &keys[..i] {
            assert_ne!(a.words(), b.words());
            assert_ne!(a.block(0), b.block(0));
        }
        assert_ne!(a.block(0), a.block(1));
        assert_ne!(a.block(0), a.block(1 << 32));
    }
}

#[test]
fn uniform_numbers_are_uniform() {
    let key = Key::new(42, 0, 0);
    let n = 200_000;
    let mut bins = [0u32; 16];
    let mut sum = 0.0;
    for i in 0..n {
        let u = key.uniform(i);
        assert!((0.0..1.0).contains(&u));
        bins[(u * 16.0) as usize] += 1;
        sum += f64::from(u);
    }
    // Five standard deviations: of the mean (1/√12n), and of a bin's count (√(n·15/256)).
    assert!((sum / n as f64 - 0.5).abs() < 5.0 / (12.0 * n as f64).sqrt());
    assert!(
        bins.iter()
            .all(|&b| (f64::from(b) - 12_500.0).abs() < 5.0 * (n as f64 * 15.0 / 256.0).sqrt()),
        "{bins:?}"
    );
    assert_eq!(unit(u32::MAX), 1.0 - f32::EPSILON / 2.0);
}

#[test]
fn normal_numbers_have_normal_moments() {
    let key = Key::new(42, 1, 0);
    let n = 200_000usize;
    let x: Vec<f64> = (0..n as u64).map(|i| f64::from(key.normal(i))).collect();
    let moment = |p: i32| x.iter().map(|v| v.powi(p)).sum::<f64>() / n as f64;
    // Variances of the first four sample moments: 1, 2, 15 and 96, over n.
    for (p, want, variance) in [(1, 0.0, 1.0), (2, 1.0, 2.0), (3, 0.0, 15.0), (4, 3.0, 96.0)] {
        assert!(
            (moment(p) - want).abs() < 5.0 * (variance / n as f64).sqrt(),
            "moment {p}: {}",
            moment(p)
        );
    }
    let neighbours = x.windows(2).map(|w| w[0] * w[1]).sum::<f64>() / n as f64;
    assert!(neighbours.abs() < 5.0 / (n as f64).sqrt());
    assert!(normal_pair([0, 0])[0].is_finite() && normal_pair([u32::MAX, 0]) == [0.0, 0.0]);
}

#[test]
fn filled_normals_are_the_normals() {
    let key = Key::new(5, 2, 9);
    for first in 0..5u64 {
        for len in [0, 1, 3, 4, 17] {
            let mut out = vec![0.0; len];
            key.fill_normal(first, &mut out);
            let want: Vec<f32> = (0..len as u64).map(|i| key.normal(first + i)).collect();
            assert_eq!(out, want);
        }
    }
}

#[test]
fn below_stays_below_and_reaches_every_value() {
    let key = Key::new(9, 0, 0);
    let mut seen = [0u32; 7];
    for i in 0..7000 {
        seen[key.below(i, 7) as usize] += 1;
    }
    assert!(
        seen.iter()
            .all(|&c| (f64::from(c) - 1000.0).abs() < 5.0 * 857f64.sqrt()),
        "{seen:?}"
    );
    assert_eq!(key.below(0, 1), 0);
    assert_eq!(key.below(0, 0), 0);
}
