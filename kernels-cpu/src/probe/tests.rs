//! A sweep must read every byte, and a probe must take time that grows with its work: else it was compiled away.

use alloc::vec::Vec;
use std::println;
use std::time::Instant;

use super::{bf16_dot_peak, fma_peak, int8_dot_peak, read_sweep};
use crate::isa::Isa;

#[test]
fn a_sweep_sums_every_byte() {
    let bytes: Vec<u8> = (0..70_000u32)
        .map(|i| if i % 3 == 0 { 255 } else { (i * 97 % 256) as u8 })
        .collect();
    for len in [
        0, 1, 7, 8, 9, 127, 128, 129, 255, 256, 257, 1023, 1024, 1025, 4099, 69_991,
    ] {
        for start in [0, 1, 5] {
            let part = &bytes[start..start + len];
            let want: u64 = part.iter().map(|&b| u64::from(b)).sum();
            for isa in Isa::available() {
                assert_eq!(read_sweep(isa, part), want, "{} {len} bytes at {start}", isa.name());
            }
        }
    }
    let full = [255u8; 3000];
    for isa in Isa::available() {
        assert_eq!(read_sweep(isa, &full), 255 * 3000, "{}", isa.name());
    }
}

/// Operations a nanosecond, the best of three.
fn rate(work: impl Fn(u64) -> f64, iterations: u64) -> f64 {
    (0..3)
        .map(|_| {
            let start = Instant::now();
            let done = work(iterations);
            done / start.elapsed().as_nanos().max(1) as f64
        })
        .fold(0.0, f64::max)
}

/// No CPU does 2,000 f32 or 8,000 int8 operations a nanosecond on one core; a loop that was folded away seems to.
#[test]
fn probes_are_not_compiled_away() {
    for isa in Isa::available() {
        let (f, i) = (
            rate(|n| fma_peak(isa, n), 20_000),
            rate(|n| int8_dot_peak(isa, n), 20_000),
        );
        if bf16_dot_peak(isa, 0).is_some() {
            let b = rate(|n| bf16_dot_peak(isa, n).unwrap_or(0.0), 20_000);
            println!("{}: {b:.1} bf16 GFLOP/s", isa.name());
            assert!(b > 0.0 && b < 4e3, "{}: {b} GFLOP/s", isa.name());
        }
        println!("{}: {f:.1} GFLOP/s, {i:.1} int8 GOP/s", isa.name());
        assert!(f > 0.0 && f < 2e3, "{}: {f} GFLOP/s", isa.name());
        assert!(i > 0.0 && i < 8e3, "{}: {i} GOP/s", isa.name());
    }
}
