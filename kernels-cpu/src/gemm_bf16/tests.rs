//! The suite of the f32 product against the documented chain, and the instruction itself at the edges of the number range.

use alloc::vec;
use alloc::vec::Vec;

use half::bf16;

use super::{Layout, gemm_bf16, gemm_bf16_packed, pack_region, regions, round_bits, scratch_len};
use crate::gemm::KC;
use crate::gemm::testing::{Product, suite};
use crate::isa::Isa;

/// Subnormal numbers become zeros.
fn flush(x: f32) -> f32 {
    if x.is_subnormal() { 0.0f32.copysign(x) } else { x }
}

fn rounded(x: f32) -> f32 {
    bf16::from_f32(flush(x)).to_f32()
}

/// The documented order: of each pair the odd value, then the even one.
fn chain(a: &[f32], b: &[f32]) -> f32 {
    let mut t = 0.0;
    for (a, b) in a.chunks(2).zip(b.chunks(2)) {
        // A last value has a zero for a partner, which adds nothing but turns a sum of −0 into 0.
        let odd = |x: &[f32]| x.get(1).copied().map_or(0.0, rounded);
        t = flush(odd(a).mul_add(odd(b), t));
        t = flush(rounded(a[0]).mul_add(rounded(b[0]), t));
    }
    t
}

#[test]
fn every_path_keeps_the_promise() {
    suite(&Product {
        name: "gemm_bf16",
        gemm: gemm_bf16,
        stale: u32::MAX,
        block: 2 * KC,
        chain,
        // Two factors of eight bits: (1 + 2⁻⁹)² − 1, and a little for what the sum's own rounding makes of it.
        rounding: 2.01 / 512.0,
    });
}

/// The product with B packed ahead, one region after the other.
fn packed_ahead(
    isa: Isa,
    layout: Layout,
    m: usize,
    n: usize,
    k: usize,
    a: &[f32],
    lda: usize,
    b: &[f32],
    ldb: usize,
    accumulate: bool,
    c: &mut [f32],
    ldc: usize,
    scratch: &mut [u32],
) {
    let mut packed = vec![u32::MAX; regions(n, k).map(|r| r.len).sum()];
    let mut rest = &mut packed[..];
    for region in regions(n, k) {
        let (out, after) = rest.split_at_mut(region.len);
        pack_region(isa, layout, &region, b, ldb, out);
        rest = after;
    }
    gemm_bf16_packed(isa, layout, m, n, k, a, lda, &packed, accumulate, c, ldc, scratch);
}

#[test]
fn a_b_that_is_packed_ahead_changes_nothing() {
    suite(&Product {
        name: "gemm_bf16_packed",
        gemm: packed_ahead,
        stale: u32::MAX,
        block: 2 * KC,
        chain,
        rounding: 2.01 / 512.0,
    });
}

#[test]
fn rounding_is_that_of_half_and_flushes() {
    for high in 0..=u32::from(u16::MAX) {
        for low in [0, 1, 0x7fff, 0x8000, 0x8001, 0xffff] {
            let x = f32::from_bits(high << 16 | low);
            let got = bf16::from_bits(round_bits(x) as u16);
            let want = bf16::from_f32(flush(x));
            assert!(
                got.to_bits() == want.to_bits() || got.is_nan() && want.is_nan(),
                "{x:e}"
            );
        }
    }
}

/// Random bit patterns whose products lie in the middle of the range, at its subnormal end and at its infinite end, and all bits at
/// random: one row of A against sixteen columns, two pairs.
#[test]
fn every_path_has_the_bits_of_the_instruction_everywhere() {
    let key = crate::rng::Key::new(5, 0, 0);
    let mut index = 0;
    let mut bits = || {
        index += 1;
        key.below(index, u32::MAX)
    };
    // The smallest exponent of a factor, and how many there are.
    for (factor, spread) in [(120, 16), (60, 8), (187, 8), (0, 255)] {
        let mut edges = 0;
        for _ in 0..2_000 {
            let mut value = || {
                let exponent = factor + bits() % spread;
                f32::from_bits(bits() & 0x807f_ffff | exponent << 23)
            };
            let a = [value(), value(), value(), value()];
            let b: Vec<f32> = (0..64).map(|_| value()).collect();
            let column = |j: usize| [b[j], b[16 + j], b[32 + j], b[48 + j]];
            let want: Vec<f32> = (0..16).map(|j| chain(&a, &column(j))).collect();
            edges += want.iter().filter(|x| **x == 0.0 || x.is_infinite()).count();
            for isa in Isa::available() {
                let mut got = [f32::NAN; 16];
                let mut scratch = vec![0; scratch_len()];
                gemm_bf16(
                    isa,
                    Layout::NN,
                    1,
                    16,
                    4,
                    &a,
                    4,
                    &b,
                    16,
                    false,
                    &mut got,
                    16,
                    &mut scratch,
                );
                for (g, w) in got.iter().zip(&want) {
                    assert!(
                        g.to_bits() == w.to_bits() || g.is_nan() && w.is_nan(),
                        "{}: {g:e}, not {w:e}, of {a:?}",
                        isa.name()
                    );
                }
            }
        }
        assert_eq!(edges > 0, factor != 120, "the edge from {factor} is reached");
    }
}
