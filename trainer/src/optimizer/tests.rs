use onebit_engine::ops::matmul::{Layout, matmul};
use onebit_engine::rng::Key;
use onebit_engine::{Device, Tensor};
use onebit_model::config::{LinearMode, TensorKind, TensorSpec};

use super::*;

fn random(rows: usize, cols: usize, seed: u64) -> Tensor {
    let key = Key::new(seed, 0, 0);
    let data = (0..rows * cols).map(|i| key.normal(i as u64)).collect();
    Tensor::from_f32(Device::cpu().unwrap(), [rows, cols], data).unwrap()
}

#[test]
fn newton_schulz_makes_singular_values_near_one() {
    for (rows, cols) in [(8, 24), (24, 8), (16, 16)] {
        let x = muon::orthogonalize(&random(rows, cols, 3)).unwrap();
        let layout = if rows <= cols { Layout::NT } else { Layout::TN };
        let gram = matmul(layout, &x, &x).unwrap();
        let n = gram.shape().last();
        let mean = (0..n).map(|i| gram.f32().unwrap()[i * n + i]).sum::<f32>() / n as f32;
        assert!(
            (0.5..1.5).contains(&mean),
            "{rows}x{cols}: mean squared singular value {mean}"
        );
    }
}

/// Every optimiser walks down a quadratic bowl.
#[test]
fn every_optimiser_minimises() {
    for kind in [OptimizerKind::AdamW, OptimizerKind::AdamW8bit, OptimizerKind::Muon] {
        let specs = [TensorSpec {
            name: "w".into(),
            shape: vec![6, 9],
            kind: TensorKind::Linear(LinearMode::Ternary),
        }];
        let target = random(6, 9, 1);
        let mut w = [random(6, 9, 2)];
        let options = TrainOptions::default();
        let mut optimizer = Optimizer::new(kind, &specs, &w);
        let distance = |w: &Tensor| {
            w.f32()
                .unwrap()
                .iter()
                .zip(target.f32().unwrap())
                .map(|(a, b)| (a - b).powi(2))
                .sum::<f32>()
        };
        let before = distance(&w[0]);
        for step in 0..400 {
            let mut g = w[0].clone();
            onebit_engine::ops::elementwise::axpy(-1.0, &target, &mut g).unwrap();
            let peak = if kind == OptimizerKind::Muon { 0.3 } else { 0.05 };
            let lr = peak * (1.0 - step as f32 / 400.0);
            optimizer
                .step(&options, &mut w, &[g], (Rates { lr, weight_decay: 0.0 }, 1.0), step)
                .unwrap();
        }
        assert!(
            distance(&w[0]) < before / 1000.0,
            "{kind:?}: {} of {before}",
            distance(&w[0])
        );
    }
}

#[test]
fn decay_spares_norms_and_embeddings() {
    let specs: Vec<TensorSpec> = [
        TensorKind::Embedding,
        TensorKind::Norm,
        TensorKind::Linear(LinearMode::Ternary),
        TensorKind::Head,
    ]
    .into_iter()
    .map(|kind| TensorSpec {
        name: format!("{kind:?}"),
        shape: vec![2, 4],
        kind,
    })
    .collect();
    let mut weights: Vec<Tensor> = (0..4)
        .map(|_| Tensor::full(Device::cpu().unwrap(), [2, 4], 1.0))
        .collect();
    let zero: Vec<Tensor> = weights
        .iter()
        .map(|w| Tensor::zeros(w.device(), w.shape().clone()))
        .collect();
    let options = TrainOptions::default();
    let rates = Rates {
        lr: 0.1,
        weight_decay: 0.5,
    };
    Optimizer::new(OptimizerKind::AdamW, &specs, &weights)
        .step(&options, &mut weights, &zero, (rates, 1.0), 0)
        .unwrap();
    let first: Vec<f32> = weights.iter().map(|w| w.f32().unwrap()[0]).collect();
    assert_eq!(first, [1.0, 1.0, 0.95, 1.0]);
}

#[test]
fn clipping_brings_the_global_norm_to_its_limit() {
    let gradients = [
        Tensor::full(Device::cpu().unwrap(), [4], 3.0),
        Tensor::full(Device::cpu().unwrap(), [4], 4.0),
    ];
    let norm = global_norm(&gradients).unwrap();
    assert!((norm - 10.0).abs() < 1e-6);
    assert!((clip_scale(norm, 1.0) - 0.1).abs() < 1e-7);
    assert_eq!(clip_scale(0.5, 1.0), 1.0);
    assert_eq!(clip_scale(norm, 0.0), 1.0);
}
