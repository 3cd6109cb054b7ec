//! Against complex rotation in f64, on every path.

use alloc::vec;
use alloc::vec::Vec;

use super::*;
use crate::elementwise::testing::*;
use crate::isa::Isa;

fn table(head_dim: usize, first: usize, positions: usize) -> (Vec<f32>, Vec<f32>) {
    let (mut cos, mut sin) = (vec![0.0; positions * head_dim / 2], vec![0.0; positions * head_dim / 2]);
    rope_table(500_000.0, head_dim, first, &mut cos, &mut sin);
    (cos, sin)
}

fn oracle(x: &[f64], heads: usize, head_dim: usize, first: usize) -> Vec<f64> {
    let half = head_dim / 2;
    let mut out = x.to_vec();
    for (row, head) in out.chunks_mut(head_dim).enumerate() {
        for i in 0..half {
            let angle = (first + row / heads) as f64 * 500_000f64.powf(-2.0 * i as f64 / head_dim as f64);
            let (a, b) = (head[i], head[half + i]);
            head[i] = a * angle.cos() - b * angle.sin();
            head[half + i] = b * angle.cos() + a * angle.sin();
        }
    }
    out
}

#[test]
fn rotation_is_its_formula_and_the_inverse_undoes_it() {
    for head_dim in [2, 4, 30, 32, 34, 64, 80, 128] {
        for (tokens, heads, first) in [(0, 2, 0), (1, 1, 0), (3, 2, 0), (2, 3, 4090)] {
            let x = numbers(1, tokens * heads * head_dim);
            let (cos, sin) = table(head_dim, first, tokens);
            let y = on_every_path("rope", |isa| {
                let mut y = x.clone();
                rope(isa, &mut y, heads, head_dim, &cos, &sin, false);
                y
            });
            assert_close("rope", &y, &oracle(&wide(&x), heads, head_dim, first), 3e-7);
            let back = on_every_path("rope inverse", |isa| {
                let mut y = y.clone();
                rope(isa, &mut y, heads, head_dim, &cos, &sin, true);
                y
            });
            assert_close("rope inverse", &back, &wide(&x), 5e-7);
        }
    }
}

#[test]
fn the_inverse_is_the_gradient() {
    let (tokens, heads, head_dim) = (2, 2, 34);
    let (x, dy) = (
        numbers(2, tokens * heads * head_dim),
        numbers(3, tokens * heads * head_dim),
    );
    let (cos, sin) = table(head_dim, 5, tokens);
    let mut dx = dy.clone();
    rope(Isa::best(), &mut dx, heads, head_dim, &cos, &sin, true);
    let dy = wide(&dy);
    let want = gradient(&wide(&x), |x| weighted(&oracle(x, heads, head_dim, 5), &dy));
    assert_close("rope gradient", &dx, &want, 1e-6);
}

#[test]
fn a_table_that_starts_late_is_the_end_of_a_longer_one() {
    let (cos, sin) = table(80, 0, 7);
    let (late_cos, late_sin) = table(80, 4, 3);
    assert_eq!(cos[4 * 40..], late_cos);
    assert_eq!(sin[4 * 40..], late_sin);
    assert_eq!((cos[0], sin[0]), (1.0, 0.0));
}
