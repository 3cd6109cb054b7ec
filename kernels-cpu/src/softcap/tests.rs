//! Against f64 and its central differences, on every path.

use alloc::vec::Vec;

use super::*;
use crate::elementwise::testing::*;

fn capped(x: f64, cap: f64) -> f64 {
    cap * (x / cap).tanh()
}

#[test]
fn the_cap_is_its_formula() {
    for n in SIZES {
        for (cap, size) in [(30.0f32, 10.0), (30.0, 200.0), (0.7, 1.0), (1e-3, 5.0), (1e6, 50.0)] {
            let x: Vec<f32> = numbers(1, n).iter().map(|v| v * size).collect();
            let y = on_every_path("softcap", |isa| {
                let mut y = x.clone();
                softcap(isa, cap, &mut y);
                y
            });
            for (x, y) in x.iter().zip(y) {
                let want = capped(f64::from(*x), f64::from(cap));
                let off = (f64::from(y) - want).abs();
                assert!(off <= f64::from(ROUNDING) * want.abs(), "{x} of {cap}: {y}, not {want}");
            }
        }
    }
}

#[test]
fn the_ends_of_the_range() {
    let x = [
        f32::INFINITY,
        f32::NEG_INFINITY,
        f32::MAX,
        f32::MIN,
        0.0,
        -0.0,
        f32::NAN,
    ];
    let y = on_every_path("softcap of extremes", |isa| {
        let mut y = x.to_vec();
        softcap(isa, 30.0, &mut y);
        y
    });
    assert_eq!(y[..6], [30.0, -30.0, 30.0, -30.0, 0.0, 0.0]);
    assert!(y[4].is_sign_positive() && y[5].is_sign_negative() && y[6].is_nan());
    // Where it is flat nothing comes back.
    let dx = on_every_path("softcap_backward of extremes", |isa| {
        let mut dx = [2.0; 7];
        softcap_backward(isa, 30.0, &y, &mut dx);
        dx.to_vec()
    });
    assert_eq!(dx[..6], [0.0, 0.0, 0.0, 0.0, 2.0, 2.0]);
    assert!(dx[6].is_nan());
}

#[test]
fn backward_is_the_gradient() {
    for n in SIZES {
        for (cap, size) in [(30.0f32, 20.0), (0.7, 1.0)] {
            let x: Vec<f32> = numbers(2, n).iter().map(|v| v * size).collect();
            let dy = numbers(3, n);
            let dx = on_every_path("softcap_backward", |isa| {
                let (mut y, mut dx) = (x.clone(), dy.clone());
                softcap(isa, cap, &mut y);
                softcap_backward(isa, cap, &y, &mut dx);
                dx
            });
            let want: Vec<f64> = wide(&x)
                .iter()
                .zip(wide(&dy))
                .map(|(&x, dy)| gradient(&[x], |x| capped(x[0], f64::from(cap)) * dy)[0])
                .collect();
            assert_close("softcap_backward", &dx, &want, 1e-6);
        }
    }
}
