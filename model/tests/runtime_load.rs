//! What the loader makes of master weights, and what it refuses.

mod common;

use common::{config, random_model, values};
use half::f16;
use onebit_engine::ops::quantize::ternary_trits;
use onebit_engine::{Device, Tensor};
use onebit_kernels_cpu::ternary::Layout;
use onebit_kernels_cpu::ternary_columns::Line;
use onebit_kernels_cpu::{int4_gemv, t2};
use onebit_model::config::{LinearMode, ModelConfig};
use onebit_model::runtime::{FloatStorage, FloatValues, Linear, PackedModel, RuntimeError, TensorSource};

const Q: &str = "model.layers.0.self_attn.q_proj.weight";

/// Builds the default model with the tensor `name` replaced.
fn with(config: &ModelConfig, name: &str, source: TensorSource) -> Result<PackedModel, RuntimeError> {
    let specs = config.tensors();
    PackedModel::from_parts(config.clone(), FloatStorage::Stored, |asked| {
        if asked == name {
            return Ok(source.clone());
        }
        let spec = specs
            .iter()
            .find(|spec| spec.name == asked)
            .expect("a tensor of the config");
        Ok(TensorSource::Float(FloatValues::F32(
            values(1, asked, spec.len()).into(),
        )))
    })
}

#[test]
fn scale_and_weights_are_those_of_training() {
    // More weights than one block of the sum, and not a multiple of it.
    let config = ModelConfig {
        hidden_size: 330,
        head_dim: 100,
        ..config()
    };
    let model = random_model(&config, 3, FloatStorage::Stored);
    let (rows, cols) = (400, 330);
    let w = Tensor::from_f32(Device::cpu().unwrap(), [rows, cols], values(3, Q, rows * cols)).unwrap();
    let (trits, gamma) = ternary_trits(&w).unwrap();
    let Linear::Ternary { packed, scale, .. } = &model.blocks()[0].q else {
        panic!("ternary")
    };
    let mut ours = vec![0; rows * cols];
    t2::unpack(packed, rows, cols, &mut ours);
    assert_eq!(scale.to_bits(), gamma.to_bits());
    assert_eq!(ours, trits);
}

#[test]
fn every_mode_keeps_its_own_kind() {
    for mode in LinearMode::ALL {
        let mut config = config();
        config.set_all_modes(mode);
        let model = random_model(&config, 4, FloatStorage::F16);
        let bytes = model.bytes();
        assert_eq!(bytes.embedding, 2 * config.vocab_size * config.hidden_size);
        assert_eq!(
            model.bytes_per_token(),
            bytes.total() + 2 * config.hidden_size,
            "a tied head is read whole"
        );
        match &model.blocks()[1].down {
            Linear::Ternary {
                layout,
                packed,
                rows,
                cols,
                ..
            } => {
                let mut trits = vec![0; rows * cols];
                layout.unpack(packed, *rows, *cols, &mut trits);
                assert_eq!(trits.contains(&0), mode == LinearMode::Ternary);
                let expected = if mode == LinearMode::Binary {
                    Layout::B1
                } else {
                    Layout::T2
                };
                assert_eq!((*layout, mode.is_ternary()), (expected, true));
            }
            Linear::Int8 { values, .. } => {
                assert_eq!(mode, LinearMode::Int8);
                assert_eq!(values.iter().map(|v| v.unsigned_abs()).max(), Some(127));
            }
            Linear::Int4 {
                rows,
                cols,
                codes,
                steps,
            } => {
                assert_eq!(mode, LinearMode::Int4);
                // From half bytes and halves to the floats that they stand for: none is further from its master than half a step.
                let mut kept = vec![0.0; rows * cols];
                int4_gemv::dequantize(codes, steps, *cols, &mut kept);
                let master = values(4, "model.layers.1.mlp.down_proj.weight", rows * cols);
                for (at, (value, master)) in kept.iter().zip(&master).enumerate() {
                    let step = steps[at / cols * int4_gemv::row_steps(*cols) + at % cols / int4_gemv::GROUP];
                    assert!((value - master).abs() <= 0.5001 * step.to_f32().abs());
                }
            }
            Linear::Float(matrix) => {
                assert_eq!(mode, LinearMode::F16);
                assert!(matches!(matrix.values, FloatValues::F16(_)));
            }
        }
    }
}

#[test]
fn what_does_not_fit_is_refused_by_name() {
    let config = config();
    let n = 64 * 64;
    let form = |error: Result<(), _>| matches!(error, Err(RuntimeError::TensorForm { name, .. }) if name == Q);
    let length = |error: Result<(), _>, n| matches!(error, Err(RuntimeError::TensorLength { found, .. }) if found == n);
    let value = |error: Result<(), _>| matches!(error, Err(RuntimeError::TensorValue { name, .. }) if name == Q);
    let float = |values: Vec<f32>| TensorSource::Float(FloatValues::F32(values.into()));
    assert!(with(&config, Q, float(vec![0.5; n])).is_ok());
    assert!(length(with(&config, Q, float(vec![0.5; n - 1])).map(drop), n - 1));
    assert!(value(
        with(&config, Q, float([vec![0.5; n - 1], vec![f32::NAN]].concat())).map(drop)
    ));
    assert!(form(
        with(
            &config,
            Q,
            TensorSource::Integers {
                values: vec![0; n],
                steps: vec![1.0; 64]
            }
        )
        .map(drop)
    ));
    assert!(value(
        with(
            &config,
            Q,
            TensorSource::Trits {
                values: vec![2; n],
                scale: 1.0
            }
        )
        .map(drop)
    ));
    for scale in [0.0, -1.0, f32::NAN, f32::INFINITY] {
        assert!(value(
            with(
                &config,
                Q,
                TensorSource::Trits {
                    values: vec![1; n],
                    scale
                }
            )
            .map(drop)
        ));
    }
    let packed = |byte, len| TensorSource::Packed {
        bytes: vec![byte; len],
        scale: 1.0,
    };
    assert!(with(&config, Q, packed(0x55, t2::bytes(64, 64))).is_ok());
    assert!(value(with(&config, Q, packed(0xff, t2::bytes(64, 64))).map(drop)));
    assert!(length(with(&config, Q, packed(0x55, 7)).map(drop), 7));
    let ready = |lines| {
        TensorSource::Ready(Linear::Ternary {
            rows: 64,
            cols: 64,
            layout: Layout::T2,
            packed: vec![0x55; t2::bytes(64, 64)].into(),
            scale: 1.0,
            columns: Some(vec![Line::ZERO; lines].into()),
        })
    };
    assert!(with(&config, Q, ready(64)).is_ok());
    for lines in [0, 63, 65] {
        assert!(length(with(&config, Q, ready(lines)).map(drop), lines));
    }
    let norm = "model.norm.weight";
    assert!(length(with(&config, norm, float(vec![1.0; 63])).map(drop), 63));
    let mut integers = config.clone();
    integers.set_all_modes(LinearMode::Int8);
    let bytes = |value| TensorSource::Integers {
        values: vec![value; n],
        steps: vec![1.0; 64],
    };
    assert!(with(&integers, Q, bytes(-127)).is_ok());
    assert!(value(with(&integers, Q, bytes(-128)).map(drop)));
    integers.set_all_modes(LinearMode::Int4);
    let codes = |steps| {
        TensorSource::Float(FloatValues::Int4 {
            codes: vec![0x88; 64 * int4_gemv::row_bytes(64)].into(),
            steps: vec![f16::from_f32(steps); 64 * int4_gemv::row_steps(64)].into(),
            cols: 64,
        })
    };
    assert!(with(&integers, Q, codes(-1.0)).is_ok());
    assert!(value(with(&integers, Q, codes(f32::INFINITY)).map(drop)));
    assert!(matches!(
        with(&integers, Q, bytes(1)),
        Err(RuntimeError::TensorForm { .. })
    ));
    let mut binary = config.clone();
    binary.set_all_modes(LinearMode::Binary);
    let signs = |zero| TensorSource::Trits {
        values: (0..n as i32)
            .map(|i| if zero && i == 5 { 0 } else { 1 - 2 * (i % 2) as i8 })
            .collect(),
        scale: 1.0,
    };
    assert!(with(&binary, Q, signs(false)).is_ok());
    assert!(value(with(&binary, Q, signs(true)).map(drop)));
    let wrong = ModelConfig { head_dim: 15, ..config };
    assert!(matches!(with(&wrong, Q, float(vec![])), Err(RuntimeError::Config(_))));
}
