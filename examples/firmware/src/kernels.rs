//! The kernels of this processor against formulas that share nothing with them, bit for bit, and what they cost.
//!
//! | kernel | compared with |
//! |---|---|
//! | ternary weights times bytes, on every path | the portable path and the formula, all codes (the fourth too) and bytes among them |
//! | int8 head times f32 | sixteen chains of `libm::fmaf`, which is software, folded 8-4-2-1 |
//! | attention over an int8 cache | the same over an f32 cache, with keys and values that int8 holds exactly |

use alloc::vec;
use alloc::vec::Vec;

use onebit_kernels_cpu::attention::cached::{self, KvHead, Queries};
use onebit_kernels_cpu::rng::Key;
use onebit_kernels_cpu::ternary::Layout;
use onebit_kernels_cpu::{Isa, dense_gemv, ternary_gemv};
use semihosting::println;

use crate::board::Stopwatch;

/// Random numbers, the same in every run.
fn random(purpose: u64) -> Key {
    Key::new(8, u32::from_be_bytes(*b"frmw"), purpose)
}

/// Compares all of them; `false` if a bit differs, which is printed.
pub fn agree() -> bool {
    // Shapes of the model's linears, and such that end within a block or a group.
    let ternary = [(256, 128), (128, 256), (5, 1), (7, 63), (9, 300)];
    let ternary = ternary.into_iter().all(|(rows, cols)| ternary_agrees(rows, cols));
    let head = [(64, 128), (3, 16), (5, 33)]
        .into_iter()
        .all(|(rows, cols)| head_agrees(rows, cols));
    ternary && head && [1, 17, 64, 130].into_iter().all(attention_agrees)
}

fn bytes(purpose: u64, n: usize) -> Vec<u8> {
    let random = random(purpose);
    (0..n as u64).map(|i| random.u32(i) as u8).collect()
}

fn signed(purpose: u64, n: usize) -> Vec<i8> {
    bytes(purpose, n).into_iter().map(|byte| byte as i8).collect()
}

fn floats(purpose: u64, n: usize) -> Vec<f32> {
    let random = random(purpose);
    (0..n as u64).map(|i| random.normal(i)).collect()
}

fn ternary_agrees(rows: usize, cols: usize) -> bool {
    let layout = Layout::T2;
    let w = bytes(1, layout.bytes(rows, cols));
    let mut x = signed(2, cols);
    // The padding of the activations is 0, as the quantiser leaves it: with codes of padding that stand for a weight the sum is the same.
    x.resize(layout.padded_cols(cols), 0);
    let code = |row: usize, col: usize| {
        let (block, at) = (col / 256, col % 256);
        let byte = w[row / 4 * layout.group_bytes(cols) + (4 * block + row % 4) * 64 + at % 64];
        i32::from(byte >> (2 * (at / 64)) & 3)
    };
    let expected: Vec<i32> = (0..rows)
        .map(|row| (0..cols).map(|col| (code(row, col) - 1) * i32::from(x[col])).sum())
        .collect();
    let mut out = vec![0; rows];
    Isa::available().all(|isa| {
        let watch = Stopwatch::start();
        ternary_gemv::ternary_gemv(isa, layout, &w, cols, &x, &mut out);
        let spent = watch.instructions();
        if rows * cols > 4096 {
            println!("  ternary {rows} x {cols}, {}: {spent} instructions", isa.name());
        }
        told(out == expected, "ternary weights times bytes", isa)
    })
}

fn head_agrees(rows: usize, cols: usize) -> bool {
    let (w, steps, x) = (signed(3, rows * cols), floats(4, rows), floats(5, cols));
    let expected: Vec<u32> = (0..rows)
        .map(|row| {
            let mut lanes = [0.0f32; 16];
            for (k, (w, x)) in w[row * cols..].iter().zip(&x).enumerate() {
                lanes[k % 16] = libm::fmaf(f32::from(*w), *x, lanes[k % 16]);
            }
            for half in [8, 4, 2, 1] {
                for i in 0..half {
                    lanes[i] += lanes[i + half];
                }
            }
            (lanes[0] * steps[row]).to_bits()
        })
        .collect();
    let mut out = vec![0.0; rows];
    Isa::available().all(|isa| {
        let watch = Stopwatch::start();
        dense_gemv::gemv_i8(isa, &w, &steps, &x, 1, &mut out);
        let spent = watch.instructions();
        if rows * cols > 4096 {
            println!("  head {rows} x {cols}, {}: {spent} instructions", isa.name());
        }
        told(
            out.iter().map(|y| y.to_bits()).eq(expected.iter().copied()),
            "the int8 head",
            isa,
        )
    })
}

fn attention_agrees(positions: usize) -> bool {
    let (head_dim, group) = (16, 4);
    let queries = Queries {
        tokens: 1,
        group,
        head_dim,
        stride: group * head_dim,
        first: positions - 1,
    };
    // Whole numbers, the largest of each row 127: int8 holds them with the scale 1.
    let row = |purpose| {
        let mut rows: Vec<f32> = signed(purpose, positions * head_dim)
            .into_iter()
            .map(|v| f32::from(v.max(-127)))
            .collect();
        rows.iter_mut().step_by(head_dim).for_each(|v| *v = 127.0);
        rows
    };
    let (keys, values) = (row(6), row(7));
    let q: Vec<f32> = floats(8, group * head_dim).into_iter().map(|x| x / 64.0).collect();
    let (key_len, value_len, scale_len) = (
        cached::key_len(positions, head_dim),
        cached::value_len(positions, head_dim),
        cached::scale_len(positions),
    );
    let mut floats: KvHead<Vec<f32>, Vec<_>, Vec<i8>> = KvHead::F32 {
        keys: vec![0.0; key_len],
        values: vec![0.0; value_len],
    };
    let mut ints: KvHead<Vec<f32>, Vec<_>, Vec<i8>> = KvHead::Int8 {
        keys: vec![0; key_len],
        values: vec![0; value_len],
        key_scales: vec![0.0; scale_len],
        value_scales: vec![0.0; scale_len],
    };
    let mut scratch = vec![0.0; cached::scratch_len(head_dim)];
    let mut out = [vec![0.0; q.len()], vec![0.0; q.len()]];
    Isa::available().all(|isa| {
        for (cache, out) in [&mut floats, &mut ints].into_iter().zip(&mut out) {
            cached::store(isa, cache.view_mut(), head_dim, 0, &keys, &values, head_dim);
            let watch = Stopwatch::start();
            cached::attend(isa, cache.view(), queries, &q, out, &mut scratch);
            let spent = watch.instructions();
            if positions == 64 {
                let kind = if matches!(cache, KvHead::Int8 { .. }) {
                    "int8"
                } else {
                    "f32"
                };
                println!(
                    "  attention of 4 heads over 64 positions, {kind}, {}: {spent} instructions",
                    isa.name()
                );
            }
        }
        let [floats, ints] = &out;
        let same = floats.iter().map(|y| y.to_bits()).eq(ints.iter().map(|y| y.to_bits()));
        told(same && floats.iter().all(|y| y.is_finite()), "attention over int8", isa)
    })
}

fn told(same: bool, what: &str, isa: Isa) -> bool {
    if !same {
        println!("DIFFERENT: {what} on the path {}", isa.name());
    }
    same
}
