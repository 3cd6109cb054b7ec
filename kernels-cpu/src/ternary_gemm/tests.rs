//! Every path against an i64 oracle on the unpacked weights.

use alloc::vec;
use alloc::vec::Vec;

use super::*;
use crate::t2::tests::{COLS, Lcg, packed};
use crate::ternary::tests::held_by;

/// Runs every path on operands placed off alignment, with rubbish in the padding of `x` and in the scratch.
fn check(w: &[i8], rows: usize, cols: usize, x: &[i8], tokens: usize, rng: &mut Lcg) {
    for layout in Layout::ALL {
        let w = &held_by(layout, w);
        let mut want = Vec::new();
        for x in x.chunks_exact(cols) {
            for w in w.chunks_exact(cols) {
                want.push(w.iter().zip(x).map(|(a, b)| i64::from(*a) * i64::from(*b)).sum::<i64>() as i32);
            }
        }
        let offset = 1 + rng.below(63) as usize;
        let mut bytes = vec![0; offset + layout.bytes(rows, cols)];
        layout.pack(w, rows, cols, &mut bytes[offset..]);
        // The stride that all layouts can read, or just what this one needs.
        let stride = if tokens.is_multiple_of(2) {
            padded_cols(cols)
        } else {
            layout.padded_cols(cols)
        };
        let mut xq = vec![0; offset];
        for x in x.chunks_exact(cols) {
            xq.extend(x);
            xq.extend(rng.bytes(stride - cols));
        }
        for isa in Isa::available() {
            let mut out = vec![77; tokens * rows];
            let mut scratch = vec![0xee; scratch_len(cols) + offset];
            let (w, x) = (&bytes[offset..], &xq[offset..]);
            ternary_gemm(isa, layout, w, rows, cols, x, tokens, &mut out, &mut scratch[offset..]);
            let (name, code) = (isa.name(), layout.name());
            assert_eq!(out, want, "{name} {code} {rows} x {cols}, {tokens} tokens");
            let factors: Vec<f32> = (0..tokens).map(|t| 0.37 + 0.013 * t as f32).collect();
            let mut scaled = vec![f32::NAN; tokens * rows];
            let scratch = &mut scratch[offset..];
            ternary_gemm_scaled(isa, layout, w, rows, cols, x, &factors, &mut scaled, scratch);
            let by_token = want.chunks_exact(rows).zip(&factors);
            let want: Vec<f32> = by_token
                .flat_map(|(sums, f)| sums.iter().map(move |&sum| sum as f32 * f))
                .collect();
            assert_eq!(scaled, want, "{name} {code} {rows} x {cols}, {tokens} tokens, scaled");
        }
    }
}

/// A CPU with AVX-512 but without VBMI opens `t5` byte by byte.
#[cfg(target_arch = "x86_64")]
#[test]
fn without_vbmi_the_answer_is_the_same() {
    let Some(token) = crate::isa::Avx512::detect() else {
        std::println!("SKIPPED: no AVX-512 here");
        return;
    };
    let mut rng = Lcg(15);
    for (rows, cols, tokens) in [(70, 700, 20), (17, 319, 13), (1, 1, 14)] {
        let (w, xq) = (rng.trits(rows * cols), rng.bytes(tokens * padded_cols(cols)));
        let mut packed = vec![0; Layout::T5.bytes(rows, cols)];
        Layout::T5.pack(&w, rows, cols, &mut packed);
        let job = Job {
            layout: Layout::T5,
            rows,
            cols,
            stride: padded_cols(cols),
            factors: None,
        };
        let mut scratch = vec![0; scratch_len(cols)];
        let (mut with, mut without) = (vec![0; tokens * rows], vec![0; tokens * rows]);
        ternary_gemm(
            Isa::Avx512(token),
            Layout::T5,
            &packed,
            rows,
            cols,
            &xq,
            tokens,
            &mut with,
            &mut scratch,
        );
        // SAFETY: the token proves AVX-512, and VBMI is not used.
        unsafe { avx512vnni::gemm(&job, false, &packed, &xq, &mut without, aligned(&mut scratch)) };
        assert_eq!(with, without);
    }
}

#[test]
fn every_path_is_exact_on_random_values() {
    let mut rng = Lcg(11);
    for isa in Isa::available() {
        std::println!("ternary_gemm path: {}", isa.name());
    }
    for cols in COLS {
        for rows in [1, 3, 5, 9, 16, 17] {
            let tokens = FEW - 2 + rng.below(9) as usize;
            let (w, x) = (rng.trits(rows * cols), rng.bytes(tokens * cols));
            check(&w, rows, cols, &x, tokens, &mut rng);
        }
    }
}

#[test]
fn every_tile_shape() {
    let mut rng = Lcg(12);
    for rows in [15, 16, 31, 33, 48, 63, 64, 65, 79, 127, 131] {
        for tokens in [1, 2, FEW - 1, FEW, FEW + 1, FEW + 2, FEW + 3, FEW + 4, FEW + 5, FEW + 6] {
            let cols = 1 + rng.below(600) as usize;
            let (w, x) = (rng.trits(rows * cols), rng.bytes(tokens * cols));
            check(&w, rows, cols, &x, tokens, &mut rng);
        }
    }
}

#[test]
fn more_tokens_than_one_pass() {
    let mut rng = Lcg(13);
    let (rows, cols, tokens) = (20, 70, 2051);
    let (w, x) = (rng.trits(rows * cols), rng.bytes(tokens * cols));
    check(&w, rows, cols, &x, tokens, &mut rng);
}

#[test]
fn every_path_is_exact_on_extremes() {
    let mut rng = Lcg(14);
    let (rows, tokens) = (6, FEW + 3);
    for cols in [1, 64, 127, 128, 129, 256, 1281, 6912] {
        for weight in [-1i8, 0, 1] {
            for value in [-128i8, -127, 127] {
                check(
                    &vec![weight; rows * cols],
                    rows,
                    cols,
                    &vec![value; tokens * cols],
                    tokens,
                    &mut rng,
                );
            }
        }
    }
}

#[test]
fn nothing_to_do() {
    for isa in Isa::available() {
        let mut scratch = vec![0; scratch_len(300)];
        ternary_gemm(
            isa,
            Layout::T2,
            &[],
            0,
            300,
            &[1; 2 * FEW * 512],
            2 * FEW,
            &mut [],
            &mut scratch,
        );
        ternary_gemm(
            isa,
            Layout::T2,
            &packed(&[1; 300], 1, 300),
            1,
            300,
            &[],
            0,
            &mut [],
            &mut scratch,
        );
        let mut out = [5; 6 * FEW];
        ternary_gemm(isa, Layout::T2, &[], 3, 0, &[], 2 * FEW, &mut out, &mut scratch);
        assert_eq!(out, [0; 6 * FEW]);
    }
}

#[test]
fn the_widest_matrix_does_not_overflow() {
    let (cols, tokens) = (t2::MAX_COLS, FEW + 1);
    let mut scratch = vec![0; scratch_len(cols)];
    // The fourth code counts as weight 2 on every path: it is the largest that bytes from a file can hold.
    let w = vec![0xffu8; t2::bytes(1, cols)];
    let x = vec![-128i8; tokens * cols];
    for isa in Isa::available() {
        let mut out = vec![0; tokens];
        ternary_gemm(isa, Layout::T2, &w, 1, cols, &x, tokens, &mut out, &mut scratch);
        assert_eq!(out, vec![-256 * cols as i32; tokens], "{}", isa.name());
    }
    for (byte, weight) in [(0x00u8, -1), (0xff, 1)] {
        let w = vec![byte; Layout::B1.bytes(1, cols)];
        for isa in Isa::available() {
            let mut out = vec![0; tokens];
            ternary_gemm(isa, Layout::B1, &w, 1, cols, &x, tokens, &mut out, &mut scratch);
            assert_eq!(out, vec![-128 * weight * cols as i32; tokens], "{}", isa.name());
        }
    }
}

#[test]
#[should_panic(expected = "scratch holds")]
fn scratch_must_be_large_enough() {
    ternary_gemm(
        Isa::best(),
        Layout::T2,
        &packed(&[1; 4], 1, 4),
        1,
        4,
        &[0; 1280],
        5,
        &mut [0; 5],
        &mut [],
    );
}
