//! Every path against the scalar twin, bit for bit.

use alloc::vec::Vec;

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
