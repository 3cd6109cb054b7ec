//! Keys and values into the cache, converted as they come.

use half::f16;
use half::slice::HalfFloatSliceExt;

use super::{KvHead, KvMut, PANEL};
use crate::quantize::{SCALE_FLOOR, abs_max, round_clamp};
use crate::simd::{Element, LANES, Simd, simd_kernel};

simd_kernel! {
    /// Stores the keys and values of the positions from `first` on, as many as `keys` holds rows of `head_dim` elements `stride`
    /// apart; `values` is laid out like it.
    ///
    /// # Panics
    /// If `head_dim` is 0, rows overlap, `keys` and `values` differ in length, or the cache is too short.
    pub fn store(kv: KvMut<'_>, head_dim: usize, first: usize, keys: &[f32], values: &[f32], stride: usize) = body;
}

/// How sixteen values are kept.
trait Kept: Element {
    /// `scale` is that of an int8 row.
    fn keep<S: Simd>(s: S, x: &[f32; LANES], scale: S::F) -> [Self; LANES];
}

impl Kept for f32 {
    #[inline(always)]
    fn keep<S: Simd>(_: S, x: &[f32; LANES], _: S::F) -> [Self; LANES] {
        *x
    }
}

impl Kept for f16 {
    #[inline(always)]
    fn keep<S: Simd>(_: S, x: &[f32; LANES], _: S::F) -> [Self; LANES] {
        let mut kept = [Self::ZERO; LANES];
        kept.convert_from_f32_slice(x);
        kept
    }
}

impl Kept for i8 {
    #[inline(always)]
    fn keep<S: Simd>(s: S, x: &[f32; LANES], scale: S::F) -> [Self; LANES] {
        let mut kept = [0; LANES];
        s.store_i8(round_clamp(s, s.load(x), scale, -127.0, 127.0), &mut kept);
        kept
    }
}

#[inline(always)]
fn body<S: Simd>(s: S, kv: KvMut<'_>, head_dim: usize, first: usize, keys: &[f32], values: &[f32], stride: usize) {
    assert!(
        head_dim > 0 && stride >= head_dim,
        "an empty head, or rows that overlap"
    );
    assert_eq!(keys.len(), values.len(), "keys and values of different length");
    match kv {
        KvHead::F32 { keys: k, values: v } => {
            planes(s, [k, v], head_dim, first, keys, values, stride, None);
        }
        KvHead::F16 { keys: k, values: v } => {
            planes(s, [k, v], head_dim, first, keys, values, stride, None);
        }
        KvHead::Int8 {
            keys: k,
            values: v,
            key_scales,
            value_scales,
        } => {
            let scales = Some([key_scales, value_scales]);
            planes(s, [k, v], head_dim, first, keys, values, stride, scales);
        }
    }
}

#[inline(always)]
fn planes<S: Simd, T: Kept>(
    s: S,
    [to_keys, to_values]: [&mut [T]; 2],
    n: usize,
    first: usize,
    keys: &[f32],
    values: &[f32],
    stride: usize,
    mut scales: Option<[&mut [f32]; 2]>,
) {
    let width = n.next_multiple_of(LANES);
    for (t, (key, value)) in keys.chunks(stride).zip(values.chunks(stride)).enumerate() {
        // A last piece shorter than a head is what lies between the rows.
        let (Some(key), Some(value)) = (key.get(..n), value.get(..n)) else {
            return;
        };
        let position = first + t;
        let mut factors = [s.splat(1.0); 2];
        if let Some(scales) = &mut scales {
            for (i, row) in [key, value].into_iter().enumerate() {
                let scale = 127.0 / abs_max(s, row).max(SCALE_FLOOR);
                scales[i][position] = 1.0 / scale;
                factors[i] = s.splat(scale);
            }
        }
        let panel = &mut to_keys[position / PANEL * PANEL * n..][..PANEL * n];
        let row = &mut to_values[position * width..][..width];
        for (i, row) in row.as_chunks_mut::<LANES>().0.iter_mut().enumerate() {
            let some = i * LANES..n.min((i + 1) * LANES);
            let mut full = [0.0; LANES];
            full[..some.len()].copy_from_slice(&value[some.clone()]);
            *row = T::keep(s, &full, factors[1]);
            full[..some.len()].copy_from_slice(&key[some.clone()]);
            let kept = T::keep(s, &full, factors[0]);
            for (d, x) in some.zip(kept) {
                panel[d * PANEL + position % PANEL] = x;
            }
        }
    }
}
