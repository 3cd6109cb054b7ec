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
