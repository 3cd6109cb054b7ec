//! Asking for a cache before its turn comes.

use super::{BLOCK, KvHead, KvRef, PANEL};
use crate::prefetch::{LINE, prefetch_level2};
use crate::simd::LANES;

/// Asks for what a query behind `positions` positions reads of the first block of a cache to be brought into the second-level cache; what comes after that block the
/// kernel asks for itself. Where each of many short caches is read once, the time to the first of its lines is most of what it takes. A hint: it changes nothing.
pub fn ask_for(kv: &KvRef<'_>, head_dim: usize, positions: usize) {
    let seen = positions.min(BLOCK);
    match kv {
        KvHead::F32 { keys, values } => lines([*keys, *values], head_dim, seen),
        KvHead::F16 { keys, values } => lines([*keys, *values], head_dim, seen),
        KvHead::Int8 {
            keys,
            values,
            key_scales,
            value_scales,
        } => {
            lines([*keys, *values], head_dim, seen);
            row(key_scales.get(..seen).unwrap_or_default());
            row(value_scales.get(..seen).unwrap_or_default());
        }
    }
}

/// The lines of some keys and values.
fn lines<T>([keys, values]: [&[T]; 2], head_dim: usize, seen: usize) {
    for (panel, keys) in keys.chunks(PANEL * head_dim).take(seen.div_ceil(PANEL)).enumerate() {
        // Of each row of a panel the vectors that have a position.
        let width = (seen - panel * PANEL).min(PANEL).next_multiple_of(LANES);
        for keys in keys.chunks(PANEL) {
            row(keys.get(..width).unwrap_or_default());
        }
    }
    row(values
        .get(..seen * head_dim.next_multiple_of(LANES))
        .unwrap_or_default());
}

/// The lines of values that lie side by side.
fn row<T>(values: &[T]) {
    prefetch_level2(values.as_ptr().cast(), size_of_val(values).div_ceil(LINE));
}
