//! Round trips, padding and the byte picture of the module's documentation.

use alloc::vec;
use alloc::vec::Vec;

use super::*;

/// Column counts around every boundary of the format, and primes.
pub(crate) const COLS: [usize; 16] = [
    1, 7, 63, 64, 65, 127, 255, 256, 257, 320, 511, 512, 513, 1000, 1021, 2560,
];

/// A small generator for tests (a linear congruence, top bits).
pub(crate) struct Lcg(pub u64);

impl Lcg {
    pub fn next(&mut self) -> u32 {
        self.0 = self
            .0
            .wrapping_mul(6364136223846793005)
            .wrapping_add(1442695040888963407);
        (self.0 >> 32) as u32
    }
    /// Uniform in `0..n`.
    pub fn below(&mut self, n: u32) -> u32 {
        ((u64::from(self.next()) * u64::from(n)) >> 32) as u32
    }
    pub fn trits(&mut self, n: usize) -> Vec<i8> {
        (0..n).map(|_| self.below(3) as i8 - 1).collect()
    }
    /// −1 and 1.
    pub fn signs(&mut self, n: usize) -> Vec<i8> {
        (0..n).map(|_| 2 * self.below(2) as i8 - 1).collect()
    }
    pub fn bytes(&mut self, n: usize) -> Vec<i8> {
        (0..n).map(|_| self.below(256) as u8 as i8).collect()
    }
    /// Roughly normal, about unit variance.
    pub fn floats(&mut self, n: usize) -> Vec<f32> {
        (0..n)
            .map(|_| {
                (0..4)
                    .map(|_| self.below(1 << 20) as f32 / (1 << 20) as f32 - 0.5)
                    .sum::<f32>()
                    * 1.7
            })
            .collect()
    }
}

/// Packed bytes of a matrix.
pub(crate) fn packed(w: &[i8], rows: usize, cols: usize) -> Vec<u8> {
    let mut out = vec![0; bytes(rows, cols)];
    pack(w, rows, cols, &mut out);
    out
}

#[test]
fn unpack_undoes_pack() {
    let mut rng = Lcg(1);
    for cols in [0].into_iter().chain(COLS) {
        for rows in 0..10 {
            let w = rng.trits(rows * cols);
            let p = packed(&w, rows, cols);
            assert!(is_valid(&p));
            let mut back = vec![9; rows * cols];
            unpack(&p, rows, cols, &mut back);
            assert_eq!(back, w, "{rows} x {cols}");
        }
    }
}

#[test]
fn bytes_lie_as_the_picture_says() {
    let (rows, cols) = (6, 600);
    let w = Lcg(2).trits(rows * cols);
    let p = packed(&w, rows, cols);
    assert_eq!(p.len(), 2 * 3 * 4 * 64);
    let weight = |r: usize, k: usize| if r < rows && k < cols { w[r * cols + k] } else { 0 };
    for (i, byte) in p.iter().enumerate() {
        let (g, b, r, j) = (i / 768, i / 256 % 3, i / 64 % 4, i % 64);
        let want = (0..4)
            .map(|f| ((weight(4 * g + r, 256 * b + 64 * f + j) + 1) as u8) << (2 * f))
            .sum::<u8>();
        assert_eq!(*byte, want, "byte {i}");
    }
}

#[test]
fn the_fourth_code_is_not_valid() {
    for field in 0..4 {
        assert!(!is_valid(&[0x55, 3 << (2 * field), 0x55]));
    }
    assert!(is_valid(&[0, 0x55, 0xaa, 0b1001_0010]));
}

#[test]
#[should_panic(expected = "weights are -1, 0 or 1")]
fn a_weight_of_two_is_refused() {
    packed(&[0, 1, 2], 1, 3);
}

#[test]
#[should_panic(expected = "weights are -1, 0 or 1")]
fn a_weight_of_minus_two_is_refused() {
    packed(&[0, 1, -2], 1, 3);
}

#[test]
fn four_levels_go_in_and_out() {
    let mut rng = Lcg(5);
    for cols in [1, 255, 256, 700] {
        let w: Vec<i8> = (0..6 * cols).map(|_| rng.below(4) as i8 - 1).collect();
        let (mut p, mut back) = (vec![0; bytes(6, cols)], vec![9; 6 * cols]);
        pack_four_levels(&w, 6, cols, &mut p);
        unpack(&p, 6, cols, &mut back);
        assert_eq!(back, w);
    }
}

#[test]
#[should_panic(expected = "weights are -1 to 2")]
fn a_fifth_level_is_refused() {
    pack_four_levels(&[0, 3], 1, 2, &mut vec![0; bytes(1, 2)]);
}
