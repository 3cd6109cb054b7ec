//! What the operations add to their kernels: shapes, splits over threads, phases of the bit-linear layer.

use super::bit_linear::{bit_linear, bit_linear_backward};
use super::matmul::{Layout, Products, matmul};
use super::quantize::{EffectiveWeight, Precision, QuantizedActivations};
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
