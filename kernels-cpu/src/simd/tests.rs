//! Every path against the scalar twin, bit for bit.

use alloc::vec::Vec;

use half::{bf16, f16};

use super::{LANES, Simd, simd_kernel};
use crate::isa::Isa;

#[inline(always)]
fn all_ops<S: Simd>(s: S, a: &[f32; LANES], b: &[f32; LANES], out: &mut Vec<u32>) {
    let (x, y) = (s.load(a), s.load(b));
    let whole = s.round(s.max(s.min(x, s.splat(100.0)), s.splat(-100.0)));
    let results = [
        s.add(x, y),
        s.sub(x, y),
        s.mul(x, y),
        s.div(x, y),
        s.fma(x, y, x),
        s.fnma(x, y, x),
        s.max(x, y),
        s.min(x, y),
        s.abs(x),
        s.sqrt(s.abs(x)),
        s.round(x),
        s.select_gt(x, y, x, s.splat(7.0)),
        s.exp2_int(whole),
        s.load_or(&a[..5], -3.0),
    ];
    for v in results {
        let mut m = [0.0; LANES];
        s.store(v, &mut m);
        out.extend(m.iter().map(|f| f.to_bits()));
        let mut part = [9.0; 11];
        s.store_part(v, &mut part[..7]);
        out.extend(part.iter().map(|f| f.to_bits()));
    }
    out.push(s.reduce_sum(x).to_bits());
    let four = [x, y, s.mul(x, y), s.sub(x, y)];
    out.extend(s.reduce_sums(four).map(f32::to_bits));
    // Together they are what they are one by one.
    assert_eq!(
        s.reduce_sums(four).map(f32::to_bits),
        four.map(|v| s.reduce_sum(v).to_bits())
    );
    out.push(s.reduce_max(x).to_bits());
}

simd_kernel! {
    pub fn run_all_ops(a: &[f32; LANES], b: &[f32; LANES], out: &mut Vec<u32>) = all_ops;
}

#[test]
fn every_path_returns_the_bits_of_the_scalar_twin() {
    let cases = [1.0f32, 0.5, 1.5, 2.5, -0.5, -2.5, 3.7e9, -1e-30, 0.1, 77.25, -13.5];
    for shift in 0..cases.len() {
        let a: [f32; LANES] = core::array::from_fn(|i| cases[(i + shift) % cases.len()] * (1.0 + i as f32 / 7.0));
        let b: [f32; LANES] = core::array::from_fn(|i| cases[(3 * i + 2 * shift + 1) % cases.len()]);
        let mut want = Vec::new();
        run_all_ops(Isa::SCALAR, &a, &b, &mut want);
        for isa in Isa::available() {
            let mut got = Vec::new();
            run_all_ops(isa, &a, &b, &mut got);
            assert_eq!(got, want, "{}", isa.name());
        }
    }
}

#[inline(always)]
fn widen_all<S: Simd>(s: S, bits: &[u16; LANES], out: &mut Vec<u32>) {
    let mut m = [0.0; LANES];
    s.store(s.load_f16(&bits.map(f16::from_bits)), &mut m);
    out.extend(m.map(f32::to_bits));
    s.store(s.load_bf16(&bits.map(bf16::from_bits)), &mut m);
    out.extend(m.map(f32::to_bits));
}

simd_kernel! {
    pub fn run_widen(bits: &[u16; LANES], out: &mut Vec<u32>) = widen_all;
}

/// `f16` by its definition: sign, exponent biased by 15, ten fraction bits.
fn f16_by_definition(bits: u16) -> f64 {
    let sign = if bits >> 15 == 1 { -1.0 } else { 1.0 };
    let (exponent, fraction) = ((bits >> 10) & 31, f64::from(bits & 1023));
    match exponent {
        0 => sign * fraction * 2f64.powi(-24),
        31 => sign * f64::INFINITY,
        e => sign * (1.0 + fraction / 1024.0) * 2f64.powi(i32::from(e) - 15),
    }
}

#[test]
fn every_half_and_bfloat_widens_to_the_same_bits() {
    for isa in Isa::available() {
        for base in (0..=u16::MAX).step_by(LANES) {
            let bits: [u16; LANES] = core::array::from_fn(|i| base + i as u16);
            let (mut want, mut got) = (Vec::new(), Vec::new());
            run_widen(Isa::SCALAR, &bits, &mut want);
            run_widen(isa, &bits, &mut got);
            assert_eq!(got, want, "{} from {base:#x}", isa.name());
            for i in 0..LANES {
                let (half, value) = (bits[i], f32::from_bits(got[i]));
                if half & 0x7fff > 0x7c00 {
                    assert!(value.is_nan());
                } else {
                    assert_eq!(f64::from(value), f16_by_definition(half));
                }
                assert_eq!(got[LANES + i], u32::from(half) << 16);
            }
        }
    }
}

#[inline(always)]
fn bytes_and_back<S: Simd>(s: S, a: &[i8; LANES], out: &mut [i8; LANES], wide: &mut [f32; LANES]) {
    let v = s.load_i8(a);
    s.store(v, wide);
    s.store_i8(v, out);
}

simd_kernel! {
    pub fn run_bytes(a: &[i8; LANES], out: &mut [i8; LANES], wide: &mut [f32; LANES]) = bytes_and_back;
}

#[test]
fn bytes_survive_the_way_there_and_back() {
    for isa in Isa::available() {
        for base in (-128i32..128).step_by(LANES) {
            let a: [i8; LANES] = core::array::from_fn(|i| (base + i as i32) as i8);
            let (mut back, mut wide) = ([0; LANES], [0.0; LANES]);
            run_bytes(isa, &a, &mut back, &mut wide);
            assert_eq!(back, a, "{}", isa.name());
            assert_eq!(wide, a.map(f32::from), "{}", isa.name());
        }
    }
}

/// Sums that are hard to round: any bits, sums that cancel, products beside half of the last place of a normal and of a subnormal sum, sums at the border of the two.
fn hard_sums(i: u64) -> [[f32; 3]; 5] {
    let mut state = i;
    // SplitMix64.
    let mut bits = || {
        state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (state ^ (state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) as u32
    };
    let near = |bits: u32| f32::from_bits(bits & 0x87ff_ffff | 0x3800_0000);
    let power = |n: u32| f32::from_bits((127 - n) << 23);
    let any = [bits(), bits(), bits()].map(f32::from_bits);
    let [a, b] = [bits(), bits()].map(near);
    let d = bits();
    let cancels = [
        a,
        b,
        f32::from_bits((-(a * b)).to_bits() ^ (d & ((1 << (d >> 27)) - 1))),
    ];
    let x = power(13 + bits() % 10);
    let sign = if bits() & 1 == 0 { 1.0 } else { -1.0 };
    let c = bits();
    let normal = [
        sign * (1.0 + x),
        (1.0 - x) * power(24),
        f32::from_bits(127 << 23 | c & 0x7f_ffff),
    ];
    let subnormal = [
        sign * (1.0 + x) * power(30),
        (1.0 - x) * power(120),
        f32::from_bits(c & 0x807f_ffff),
    ];
    let border = [
        near(bits()),
        f32::from_bits(bits() & 0x83ff_ffff),
        f32::from_bits(bits() & 0x80ff_ffff),
    ];
    [any, cancels, normal, subnormal, border]
}

#[inline(always)]
fn fma_of<S: Simd>(s: S, a: &[f32; LANES], b: &[f32; LANES], c: &[f32; LANES], out: &mut [f32; LANES]) {
    s.store(s.fma(s.load(a), s.load(b), s.load(c)), out);
}

simd_kernel! {
    pub fn run_fma(a: &[f32; LANES], b: &[f32; LANES], c: &[f32; LANES], out: &mut [f32; LANES]) = fma_of;
}

/// The bits of 100 000 sums, hashed (FNV-1a, a NaN as one of them), are those of the instruction of x86, also where there is no such instruction.
#[test]
fn fused_multiply_adds_are_rounded_once_on_every_path() {
    let sums: Vec<[f32; 3]> = (0..if cfg!(miri) { 16 } else { 20_000 }).flat_map(hard_sums).collect();
    for isa in Isa::available() {
        let mut hash = 0xcbf2_9ce4_8422_2325u64;
        for sums in sums.as_chunks::<LANES>().0 {
            let mut out = [0.0; LANES];
            let [a, b, c] = [0, 1, 2].map(|part| sums.map(|sum| sum[part]));
            run_fma(isa, &a, &b, &c, &mut out);
            for (found, [a, b, c]) in out.iter().zip(sums) {
                let bits = if found.is_nan() { 0x7fc0_0000 } else { found.to_bits() };
                for alone in [crate::math::wide_fma::fma, crate::math::soft_fma::fma] {
                    let alone = alone(*a, *b, *c);
                    assert!(
                        alone.to_bits() == bits || alone.is_nan() && found.is_nan(),
                        "{}: {a:e} · {b:e} + {c:e}",
                        isa.name()
                    );
                }
                hash = (hash ^ u64::from(bits)).wrapping_mul(0x100_0000_01b3);
            }
        }
        assert!(cfg!(miri) || hash == 0x26d7_4c7d_03f4_0cfb, "{}: {hash:#x}", isa.name());
    }
}
