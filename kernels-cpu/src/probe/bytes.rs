//! The probes over [`Bytes`].

use core::hint::black_box;

use crate::bytes::{Bytes, byte_kernel};

const CHAINS: usize = 8;

byte_kernel! {
    /// `64 / PARTS` pairs a chain and step.
    pub(super) fn int8_dot(iterations: u64) -> f64 = int8_dot_body;
}

#[inline(always)]
fn int8_dot_body<B: Bytes>(b: B, iterations: u64) -> f64 {
    let (zero, mut acc) = (b.sums(0), [b.sums(0); CHAINS]);
    for _ in 0..iterations {
        // Opaque, or the products would be computed once.
        let (x, y) = (b.splat(black_box(3)), b.splat(black_box(5)));
        for t in &mut acc {
            *t = b.dot(*t, x, y);
        }
    }
    for t in acc {
        black_box(b.total([[t, zero, zero], [zero; 3], [zero; 3], [zero; 3]]));
    }
    (2 * 64 / B::PARTS * CHAINS) as f64 * iterations as f64
}
