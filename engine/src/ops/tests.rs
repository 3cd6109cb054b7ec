//! What the operations add to their kernels: shapes, splits over threads, phases of the bit-linear layer.

use half::f16;
use onebit_kernels_cpu::int4_gemv;

use super::bit_linear::{bit_linear, bit_linear_backward, multiply};
use super::matmul::{Layout, Products, matmul};
use super::quantize::{EffectiveWeight, Input, Precision, QuantizedActivations, blend_groups};
use super::{cross_entropy, elementwise, embedding, rms_norm};
use crate::rng::Key;
use crate::{Device, EngineError, Tensor};

fn random(shape: [usize; 2], seed: u64) -> Tensor {
    let key = Key::new(seed, 0, 0);
    let data = (0..shape[0] * shape[1]).map(|i| key.normal(i as u64)).collect();
    Tensor::from_f32(Device::cpu().unwrap(), shape, data).unwrap()
}

fn with_threads<T: Send>(threads: usize, f: impl FnOnce() -> T + Send) -> T {
    rayon::ThreadPoolBuilder::new()
        .num_threads(threads)
        .build()
        .unwrap()
        .install(f)
}

#[test]
fn results_do_not_depend_on_the_number_of_threads() {
    let (x, w, g) = (random([301, 96], 1), random([130, 96], 2), random([301, 130], 3));
    let run = || {
        let mut bits = Vec::new();
        let mut keep = |t: &Tensor| bits.extend(t.f32().unwrap().iter().map(|v| v.to_bits()));
        for anneal in [0.0, 0.3, 1.0] {
            let (y, state) = bit_linear(&x, &[(&w, Precision::Ternary)], anneal, Products::default()).unwrap();
            let (dx, dw) = bit_linear_backward(&state, &[Some(g.clone())]).unwrap();
            keep(&y[0]);
            keep(&dx.unwrap());
            keep(dw[0].as_ref().unwrap());
        }
        let table = random([400, 96], 5);
        for precision in [Precision::Binary, Precision::Int8, Precision::Int4] {
            keep(&EffectiveWeight::new(&table, precision, 1.0).unwrap().dense);
        }
        keep(&blend_groups(&table, 0.7).unwrap());
        let norm = random([1, 96], 4).reshape([96]).unwrap();
        let (dx, dw) = rms_norm::rms_norm_backward(&x, &norm, 1e-5, &x).unwrap();
        keep(&dx);
        keep(&dw);
        bits.push(elementwise::sum_squares(&x).unwrap().to_bits() as u32);
        bits
    };
    let one = with_threads(1, run);
    for threads in [2, 3, 7] {
        assert_eq!(with_threads(threads, run), one, "{threads} threads");
    }
}

#[test]
fn the_bit_linear_layer_meets_full_precision_at_0_and_the_integers_at_1() {
    let (x, w) = (random([33, 70], 5), random([50, 70], 6));
    let y = |precision, anneal: f32| {
        bit_linear(&x, &[(&w, precision)], anneal, Products::default())
            .unwrap()
            .0
            .remove(0)
    };
    for precision in [Precision::Ternary, Precision::Binary, Precision::Int8, Precision::Int4] {
        let plain = matmul(Layout::NT, &x, &w).unwrap();
        assert_eq!(y(precision, 0.0).f32().unwrap(), plain.f32().unwrap(), "{precision:?}");
        let xq = QuantizedActivations::new(&x).unwrap().dequantize().unwrap();
        let hard = EffectiveWeight::new(&w, precision, 1.0).unwrap();
        let want = matmul(Layout::NT, &xq, &hard.dense).unwrap();
        for (a, b) in y(precision, 1.0).f32().unwrap().iter().zip(want.f32().unwrap()) {
            assert!((a - b).abs() < 1e-4, "{precision:?}: {a} against {b}");
        }
        for (a, b) in y(precision, 1e-4).f32().unwrap().iter().zip(plain.f32().unwrap()) {
            assert!((a - b).abs() < 0.02, "{precision:?} at 1e-4: {a} against {b}");
        }
    }
}

/// Codes and steps of `w`, as inference has them.
fn int4(w: &Tensor) -> (Vec<u8>, Vec<f16>) {
    let (rows, cols) = (w.shape().rows(), w.shape().last());
    let mut codes = vec![0; rows * int4_gemv::row_bytes(cols)];
    let mut steps = vec![f16::ZERO; rows * int4_gemv::row_steps(cols)];
    int4_gemv::quantize(w.device().isa(), w.f32().unwrap(), cols, &mut codes, &mut steps);
    (codes, steps)
}

#[test]
fn int4_weights_are_those_of_inference() {
    for [rows, cols] in [[1, 1], [0, 32], [3, 31], [7, 33], [130, 129], [700, 96]] {
        let w = random([rows, cols], 9);
        let (codes, steps) = int4(&w);
        let mut wanted = vec![0.0; rows * cols];
        int4_gemv::dequantize(&codes, &steps, cols, &mut wanted);
        let at = |anneal| EffectiveWeight::new(&w, Precision::Int4, anneal).unwrap().dense;
        assert_eq!(at(1.0).f32().unwrap(), wanted, "{rows} x {cols}");
        let half = at(0.5);
        for ((mixed, w), hard) in half.f32().unwrap().iter().zip(w.f32().unwrap()).zip(&wanted) {
            assert!((mixed - 0.5 * (w + hard)).abs() < 1e-6, "{rows} x {cols}");
        }
    }
}

#[test]
fn an_int4_group_without_a_step_is_not_a_number() {
    let mut w = random([2, 64], 10);
    w.f32_mut().unwrap()[40] = 1e6;
    for anneal in [0.5, 1.0] {
        let effective = EffectiveWeight::new(&w, Precision::Int4, anneal).unwrap();
        for (i, value) in effective.dense.f32().unwrap().iter().enumerate() {
            assert_eq!(value.is_nan(), (32..64).contains(&i), "{i}: {value}");
        }
    }
}

#[test]
fn an_int4_head_is_that_of_inference() {
    for (tokens, rows, cols) in [(1, 5, 31), (3, 40, 128), (17, 33, 200)] {
        let (x, w) = (random([tokens, cols], 11), random([rows, cols], 12));
        let weight = EffectiveWeight::new(&w, Precision::Int4, 1.0).unwrap();
        let (y, state) = multiply(&x, vec![(weight, Input::Groups)], 1.0, Products::default()).unwrap();
        let (codes, steps) = int4(&w);
        let mut blocks = vec![int4_gemv::InputBlock::ZERO; tokens * int4_gemv::blocks(cols)];
        int4_gemv::quantize_input(x.device().isa(), x.f32().unwrap(), cols, &mut blocks);
        let mut wanted = vec![0.0; tokens * rows];
        int4_gemv::gemv(x.device().isa(), &codes, &steps, &blocks, tokens, &mut wanted);
        for (a, b) in y[0].f32().unwrap().iter().zip(&wanted) {
            assert!((a - b).abs() < 1e-4, "{tokens} x {rows} x {cols}: {a} against {b}");
        }
        // Straight through: the weight's gradient is that of the rounded input.
        let dy = random([tokens, rows], 13);
        let dw = bit_linear_backward(&state, &[Some(dy.clone())]).unwrap().1.remove(0);
        let mut rounded = vec![0.0; tokens * cols];
        int4_gemv::dequantize_input(&blocks, cols, &mut rounded);
        let rounded = Tensor::from_f32(x.device(), [tokens, cols], rounded).unwrap();
        let wanted = matmul(Layout::TN, &dy, &rounded).unwrap();
        assert_eq!(dw.unwrap().f32().unwrap(), wanted.f32().unwrap());
    }
}

#[test]
fn weights_of_several_inputs_share_a_product() {
    let (x, w) = (random([9, 64], 14), random([20, 64], 15));
    let weight = |precision| EffectiveWeight::new(&w, precision, 1.0).unwrap();
    let all = [
        (weight(Precision::Int8), Input::Float),
        (weight(Precision::Ternary), Input::Tokens),
        (weight(Precision::Int4), Input::Groups),
    ];
    let (together, state) = multiply(&x, all.to_vec(), 1.0, Products::default()).unwrap();
    let dys: Vec<_> = (0..3).map(|i| Some(random([9, 20], 16 + i))).collect();
    let (dx, dws) = bit_linear_backward(&state, &dys).unwrap();
    let mut sum = Tensor::zeros(x.device(), [9, 64]);
    for (i, (weight, input)) in all.into_iter().enumerate() {
        let (alone, state) = multiply(&x, vec![(weight, input)], 1.0, Products::default()).unwrap();
        assert_eq!(alone[0].f32().unwrap(), together[i].f32().unwrap(), "{input:?}");
        let (dx, dw) = bit_linear_backward(&state, &dys[i..=i]).unwrap();
        assert_eq!(
            dw[0].as_ref().unwrap().f32().unwrap(),
            dws[i].as_ref().unwrap().f32().unwrap()
        );
        elementwise::axpy(1.0, &dx.unwrap(), &mut sum).unwrap();
    }
    for (a, b) in dx.unwrap().f32().unwrap().iter().zip(sum.f32().unwrap()) {
        assert!((a - b).abs() < 1e-3, "{a} against {b}");
    }
}

#[test]
fn the_hard_phase_keeps_a_quarter_of_the_bytes() {
    let (x, w) = (random([64, 256], 7), random([32, 256], 8));
    let (_, soft) = bit_linear(&x, &[(&w, Precision::Ternary)], 0.5, Products::default()).unwrap();
    let (_, hard) = bit_linear(&x, &[(&w, Precision::Ternary)], 1.0, Products::default()).unwrap();
    assert_eq!(soft.saved_bytes(), 64 * 256 * 4);
    assert_eq!(hard.saved_bytes(), 64 * 256 + 64 * 4);
}

#[test]
fn wrong_shapes_and_ids_are_named() {
    let error = matmul(Layout::NN, &random([3, 4], 1), &random([5, 6], 2)).unwrap_err();
    assert!(matches!(error, EngineError::Shape { op: "matmul", .. }), "{error}");
    let ids = Tensor::from_u32(Device::cpu().unwrap(), [2], vec![1, 9]).unwrap();
    let error = embedding::embedding(&random([9, 4], 3), &ids).unwrap_err();
    assert_eq!(error.to_string(), "embedding: id 9 at position 1 is outside the 9 rows");
    let error = cross_entropy::cross_entropy(&random([2, 9], 3), &ids, Default::default(), None).unwrap_err();
    assert!(matches!(error, EngineError::Id { position: 1, .. }), "{error}");
    assert!(Tensor::from_f32(Device::cpu().unwrap(), [2, 3], vec![0.0; 5]).is_err());
}
