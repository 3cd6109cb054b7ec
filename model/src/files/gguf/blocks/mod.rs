//! The block formats: each a module that draws its layout, writes it and reads it.
//!
//! A block covers consecutive values of a row, and rows are whole numbers of blocks, so a tensor is its blocks one after the other. The
//! ternary ones give trits and the blocks' scales; the others give float values and serve the embedding and the head.

pub mod i2_s;
pub mod q4_0;
pub mod q6_k;
pub mod q8_0;
pub mod tq1_0;
pub mod tq2_0;

#[cfg(test)]
mod tests;

use half::f16;

/// The f16 at `at` of a block.
fn f16_at(block: &[u8], at: usize) -> f32 {
    match block.get(at..at + 2) {
        Some(&[low, high]) => f16::from_le_bytes([low, high]).to_f32(),
        _ => f32::NAN,
    }
}

/// The value of largest magnitude, with its sign; 0 of none.
fn extreme(values: &[f32]) -> f32 {
    values
        .iter()
        .fold(0.0, |most: f32, &v| if v.abs() > most.abs() { v } else { most })
}

/// 1/x, and 0 of 0.
fn inverse(x: f32) -> f32 {
    if x == 0.0 { 0.0 } else { 1.0 / x }
}
