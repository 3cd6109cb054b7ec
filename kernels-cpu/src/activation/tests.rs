//! Against f64 and its central differences, on every path.

use alloc::vec;
use alloc::vec::Vec;

use super::*;
use crate::elementwise::testing::*;
use crate::isa::Isa;

fn relu2_of(x: f64) -> f64 {
    x.max(0.0) * x.max(0.0)
}

fn silu_of(x: f64) -> f64 {
    x / (1.0 + (-x).exp())
}

type Unary = fn(Isa, &[f32], &mut [f32]);
type Gated = fn(Isa, &[f32], &[f32], &mut [f32]);
type GatedBackward = fn(Isa, &[f32], &[f32], &[f32], &mut [f32], &mut [f32]);

#[test]
fn unary_activations_are_their_formulas() {
    for (what, run, oracle) in [
        ("relu2", relu2 as Unary, relu2_of as fn(f64) -> f64),
        ("silu", silu as Unary, silu_of as fn(f64) -> f64),
    ] {
        for n in SIZES {
            let x: Vec<f32> = numbers(1, n).iter().map(|v| v * 4.0).collect();
            let y = on_every_path(what, |isa| {
                let mut out = vec![9.0; n];
                run(isa, &x, &mut out);
                out
            });
            assert_close(what, &y, &wide(&x).into_iter().map(oracle).collect::<Vec<f64>>(), 4e-7);
        }
    }
}

#[test]
fn relu2_backward_is_the_gradient() {
    for n in SIZES {
        let (x, dy) = (numbers(2, n), numbers(3, n));
        let dx = on_every_path("relu2_backward", |isa| {
            let mut dx = vec![9.0; n];
            relu2_backward(isa, &x, &dy, &mut dx);
            dx
        });
        let want: Vec<f64> = wide(&x)
            .iter()
            .zip(wide(&dy))
            .map(|(&x, dy)| gradient(&[x], |x| relu2_of(x[0]) * dy)[0])
            .collect();
        assert_close("relu2_backward", &dx, &want, 1e-6);
    }
}

#[test]
fn gated_activations_and_their_gradients() {
    let cases = [
        (
            "relu2_gate",
            relu2_gate as Gated,
            relu2_gate_backward as GatedBackward,
            relu2_of as fn(f64) -> f64,
        ),
        (
            "swiglu",
            swiglu as Gated,
            swiglu_backward as GatedBackward,
            silu_of as fn(f64) -> f64,
        ),
    ];
    for (what, run, backward, oracle) in cases {
        for n in SIZES {
            let (g, u, dy) = (numbers(4, n), numbers(5, n), numbers(6, n));
            let g: Vec<f32> = g.iter().map(|v| v * 3.0).collect();
            let y = on_every_path(what, |isa| {
                let mut out = vec![9.0; n];
                run(isa, &g, &u, &mut out);
                out
            });
            let both = on_every_path(what, |isa| {
                let (mut dg, mut du) = (vec![9.0; n], vec![9.0; n]);
                backward(isa, &g, &u, &dy, &mut dg, &mut du);
                [dg, du].concat()
            });
            let (g, u, dy) = (wide(&g), wide(&u), wide(&dy));
            let each = |f: &dyn Fn(usize) -> f64| (0..n).map(f).collect::<Vec<f64>>();
            assert_close(what, &y, &each(&|i| oracle(g[i]) * u[i]), 1e-6);
            assert_close(
                what,
                &both[..n],
                &each(&|i| gradient(&g[i..=i], |g| oracle(g[0]) * u[i] * dy[i])[0]),
                1e-6,
            );
            assert_close(what, &both[n..], &each(&|i| oracle(g[i]) * dy[i]), 1e-6);
        }
    }
}

#[test]
fn nan_passes_and_large_inputs_do_not_overflow_inside() {
    let x = [f32::NAN, -1e30, -200.0, 200.0];
    let mut y = [0.0; 4];
    for isa in Isa::available() {
        relu2(isa, &x, &mut y);
        assert!(y[0].is_nan() && y[1..] == [0.0, 0.0, 40_000.0]);
        silu(isa, &x, &mut y);
        assert!(y[0].is_nan() && y[1..] == [-0.0, -0.0, 200.0]);
        let (mut dg, mut du) = ([0.0; 4], [0.0; 4]);
        swiglu_backward(isa, &x, &[1.0; 4], &[1.0; 4], &mut dg, &mut du);
        assert!(dg[0].is_nan() && dg[1..] == [0.0, 0.0, 1.0] && du[1..] == [0.0, 0.0, 200.0]);
    }
}
