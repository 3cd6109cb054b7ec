//! Every operation against central differences; straight-through ones against their stated surrogate.

use onebit_engine::ops::activation::Gate;
use onebit_engine::ops::attention::{AttentionDropout, AttentionShape};
use onebit_engine::ops::cross_entropy::{Likely, LossTerms, mean_softmax};
use onebit_engine::ops::matmul::Products;
use onebit_engine::ops::quantize::{
    EffectiveWeight, Input, Precision, QuantizedActivations, blend_activations, blend_groups,
};
use onebit_engine::ops::rope::RopeTable;
use onebit_engine::rng::Key;
use onebit_engine::{Device, Shape, Tensor};

use super::*;
use crate::gradcheck::{gradcheck, gradcheck_surrogate};
use crate::{AutogradError, Tape};

fn device() -> Device {
    Device::cpu().unwrap()
}

fn random(shape: impl Into<Shape>, seed: u64) -> Tensor {
    let shape = shape.into();
    let key = Key::new(seed, 1, 0);
    let data = (0..shape.elements()).map(|i| key.normal(i as u64)).collect();
    Tensor::from_f32(device(), shape, data).unwrap()
}

/// Random values at least 0.1 from zero, where ReLU² has its second-order kink.
fn off_zero(shape: impl Into<Shape>, seed: u64) -> Tensor {
    let mut t = random(shape, seed);
    for x in t.f32_mut().unwrap() {
        *x += 0.1f32.copysign(*x);
    }
    t
}

fn ids(values: &[u32]) -> Tensor {
    Tensor::from_u32(device(), [values.len()], values.to_vec()).unwrap()
}

#[test]
fn basic_operations() -> crate::Result<()> {
    let (a, b) = (random([5, 7], 1), random([5, 7], 2));
    gradcheck("add", &[a.clone(), b.clone()], |v| add(&v[0], &v[1]))?;
    gradcheck("add_scaled", &[a.clone(), b.clone()], |v| {
        add_scaled(&v[0], &v[1], -0.7)
    })?;
    gradcheck("mul", &[a.clone(), b.clone()], |v| mul(&v[0], &v[1]))?;
    gradcheck("mul by itself", std::slice::from_ref(&a), |v| mul(&v[0], &v[0]))?;
    gradcheck("scale", std::slice::from_ref(&a), |v| scale(&v[0], 1.7))?;
    gradcheck("sum", std::slice::from_ref(&a), |v| sum(&v[0]))?;
    gradcheck("mean", std::slice::from_ref(&a), |v| mean(&v[0]))?;
    gradcheck("reshape", std::slice::from_ref(&a), |v| reshape(&v[0], [7, 5]))?;
    gradcheck("matmul", &[random([4, 6], 3), random([6, 3], 4)], |v| {
        matmul(&v[0], &v[1])
    })
}

#[test]
fn embedding_and_norm() -> crate::Result<()> {
    gradcheck("embedding", &[random([6, 5], 1)], |v| {
        embedding(&v[0], &ids(&[3, 0, 3, 5]))
    })?;
    gradcheck("rms_norm", &[random([4, 18], 2), random([18], 3)], |v| {
        rms_norm(&v[0], &v[1], 1e-5)
    })?;
    gradcheck("rms_norm by heads", &[random([3, 24], 4), random([8], 5)], |v| {
        rms_norm(&v[0], &v[1], 1e-5)
    })
}

#[test]
fn rope_and_attention() -> crate::Result<()> {
    let table = RopeTable::new(device(), 10_000.0, 8, 6).unwrap();
    gradcheck("rope", &[random([12, 16], 1)], |v| rope(&v[0], &table, 6))?;
    for (heads, kv_heads) in [(2, 2), (4, 2), (3, 1)] {
        let shape = AttentionShape {
            seq: 5,
            heads,
            kv_heads,
            head_dim: 4,
        };
        let inputs = [
            random([10, heads * 4], 2),
            random([10, kv_heads * 4], 3),
            random([10, kv_heads * 4], 4),
        ];
        let dropout = AttentionDropout {
            p: 0.4,
            key: Key::new(1, 2, 3),
            sequence: 0,
        };
        for (what, dropout) in [("attention", None), ("attention with dropout", Some(dropout))] {
            gradcheck(what, &inputs, |v| attention(shape, dropout, &v[0], &v[1], &v[2]))?;
        }
    }
    Ok(())
}

#[test]
fn activations() -> crate::Result<()> {
    gradcheck("relu2", &[off_zero([3, 17], 1)], |v| relu2(&v[0]))?;
    for gate in [Gate::Relu2, Gate::Silu] {
        gradcheck("gated", &[off_zero([3, 17], 2), random([3, 17], 3)], |v| {
            gated(gate, &v[0], &v[1])
        })?;
    }
    Ok(())
}

#[test]
fn dropout_and_cross_entropy() -> crate::Result<()> {
    gradcheck("dropout", &[random([9, 7], 1)], |v| {
        dropout(&v[0], 0.4, Key::new(1, 2, 3))
    })?;
    gradcheck("scale_rows", &[random([3, 7], 1)], |v| {
        scale_rows(&v[0], vec![2.0, 0.0, -0.5])
    })?;
    for (smoothing, z_loss) in [(0.0, 0.0), (0.1, 0.0), (0.0, 0.3), (0.1, 0.05)] {
        let terms = LossTerms { smoothing, z_loss };
        gradcheck("cross_entropy", &[random([6, 11], 2)], |v| {
            Ok(cross_entropy(&v[0], &ids(&[0, 10, 4, 4, 7, 1]), terms, None)?.0)
        })?;
    }
    Ok(())
}

#[test]
fn the_soft_cap_and_losses_behind_it() -> crate::Result<()> {
    let targets = ids(&[0, 10, 4, 4, 7, 1]);
    for cap in [0.5, 1.5, 30.0] {
        gradcheck("softcap", &[random([6, 11], 2)], |v| softcap(&v[0], cap))?;
        for (smoothing, z_loss, share) in [(0.0, 0.0, 0.0), (0.1, 0.05, 0.0), (0.1, 0.05, 0.3)] {
            let terms = LossTerms { smoothing, z_loss };
            let likely = (share > 0.0).then(|| {
                let probabilities = mean_softmax(&[random([6, 11], 5)]).unwrap();
                Likely { probabilities, share }
            });
            gradcheck("cross_entropy of capped logits", &[random([6, 11], 2)], |v| {
                Ok(cross_entropy(&softcap(&v[0], cap)?, &targets, terms, likely.clone())?.0)
            })?;
        }
    }
    // Every term of the loss is that of the capped logits.
    let tape = Tape::new();
    let (logits, terms) = (
        tape.leaf(random([6, 11], 2)),
        LossTerms {
            smoothing: 0.1,
            z_loss: 0.05,
        },
    );
    let capped = softcap(&logits, 0.5)?;
    let by_hand: Vec<f32> = { logits.tensor().f32()?.iter() }
        .map(|x| 0.5 * (x / 0.5).tanh())
        .collect();
    let by_hand = tape.leaf(Tensor::from_f32(device(), [6, 11], by_hand)?);
    let [found, want] = [&capped, &by_hand].map(|x| cross_entropy(x, &targets, terms, None).unwrap().1);
    assert!((found.nll - want.nll).abs() < 1e-6 && (found.smoothed - want.smoothed).abs() < 1e-6);
    Ok(())
}

#[test]
fn what_teachers_find_likely() -> crate::Result<()> {
    let targets = ids(&[0, 10, 4, 4, 7, 1]);
    let teachers = [random([6, 11], 5), random([6, 11], 6)];
    let probabilities = mean_softmax(&teachers)?;
    for (row, q) in probabilities.f32()?.chunks(11).enumerate() {
        assert!((q.iter().sum::<f32>() - 1.0).abs() < 1e-6, "row {row}");
    }
    for (smoothing, z_loss, share) in [(0.0, 0.0, 0.5), (0.1, 0.05, 0.3), (0.0, 0.0, 1.0)] {
        let (terms, probabilities) = (LossTerms { smoothing, z_loss }, probabilities.clone());
        let likely = Likely { probabilities, share };
        gradcheck("cross_entropy, taught", &[random([6, 11], 2)], |v| {
            Ok(cross_entropy(&v[0], &targets, terms, Some(likely.clone()))?.0)
        })?;
    }
    // A teacher that is sure of the text teaches nothing else; the gradient of one that is the model itself is 0.
    let tape = Tape::new();
    let logits = tape.leaf(random([6, 11], 2));
    let sure = Tensor::from_f32(targets.device(), [6, 11], {
        let mut q = vec![0.0; 66];
        targets
            .u32()?
            .iter()
            .enumerate()
            .for_each(|(row, id)| q[11 * row + *id as usize] = 1.0);
        q
    })?;
    let likely = |probabilities, share| Some(Likely { probabilities, share });
    let plain = cross_entropy(&logits, &targets, LossTerms::default(), None)?.1;
    let told = cross_entropy(&logits, &targets, LossTerms::default(), likely(sure, 0.7))?.1;
    assert!((plain.nll - told.smoothed).abs() < 1e-6 && plain.nll == told.nll);
    let itself = mean_softmax(&[logits.tensor().clone()])?;
    let (loss, _) = cross_entropy(&logits, &targets, LossTerms::default(), likely(itself, 1.0))?;
    let gradient = tape.backward(&loss)?.take(&logits).unwrap();
    assert!(gradient.f32()?.iter().all(|g| g.abs() < 1e-7));
    Ok(())
}

#[test]
fn what_is_added_to_the_loss_stays_out_of_the_reported_loss() -> crate::Result<()> {
    let tape = Tape::new();
    let logits = tape.constant(random([6, 11], 2));
    let targets = ids(&[0, 10, 4, 4, 7, 1]);
    let plain = cross_entropy(&logits, &targets, LossTerms::default(), None)?.1;
    let terms = |smoothing, z_loss| LossTerms { smoothing, z_loss };
    let smooth = cross_entropy(&logits, &targets, terms(0.2, 0.0), None)?.1;
    assert_eq!(plain.nll, smooth.nll);
    assert_eq!(plain.nll, plain.smoothed);
    assert!(smooth.smoothed > smooth.nll);
    let drawn = cross_entropy(&logits, &targets, terms(0.0, 0.5), None)?.1;
    assert_eq!(plain.nll, drawn.nll);
    let squares: f64 = plain.lse.f32()?.iter().map(|x| f64::from(*x).powi(2)).sum();
    assert!((drawn.smoothed - drawn.nll - 0.5 * squares / 6.0).abs() < 1e-9);
    Ok(())
}

#[test]
fn a_full_precision_linear_layer() -> crate::Result<()> {
    gradcheck("linear", &[random([5, 12], 1), random([7, 12], 2)], |v| {
        linear(&v[0], &v[1], Products::default())
    })?;
    // Three weights over one input, in full precision: the group's gradients add up.
    let inputs = [random([5, 12], 1), random([7, 12], 2), random([4, 12], 3)];
    gradcheck("group", &inputs, |v| {
        let y = bit_linear(
            &v[0],
            &[(&v[1], Precision::Full), (&v[2], Precision::Full)],
            0.0,
            Products::default(),
        )?;
        matmul(&reshape(&y[0], [7, 5])?, &y[1])
    })
}

/// What a straight-through operation adds to `raw`, a constant to its gradient.
fn shift(eff: &Tensor, raw: &Tensor) -> Tensor {
    let (eff, values) = (eff.f32().unwrap().iter(), raw.f32().unwrap());
    let data = eff.zip(values).map(|(e, r)| e - r).collect();
    Tensor::from_f32(device(), raw.shape().clone(), data).unwrap()
}

/// The surrogate of the straight-through layer at `(x₀, W₀)`: `(x + c_x)·(W + c_W)ᵀ` with the constants
/// `c_x = x_eff(x₀) − x₀`, `c_W = W_eff(W₀) − W₀`.
#[test]
fn bit_linear_against_its_surrogate() -> crate::Result<()> {
    let (x0, w0) = (random([6, 20], 4), random([9, 20], 5));
    for precision in [Precision::Ternary, Precision::Binary, Precision::Int8, Precision::Int4] {
        for anneal in [0.25, 0.9, 1.0] {
            let x_eff = if anneal < 1.0 {
                blend_activations(&x0, anneal)?
            } else {
                QuantizedActivations::new(&x0)?.dequantize()?
            };
            let w_eff = EffectiveWeight::new(&w0, precision, anneal)?.dense;
            let (cx, cw) = (shift(&x_eff, &x0), shift(&w_eff, &w0));
            gradcheck_surrogate(
                &format!("bit_linear {precision:?} at {anneal}"),
                &[x0.clone(), w0.clone()],
                |v| single(bit_linear(&v[0], &[(&v[1], precision)], anneal, Products::default())?),
                |v| {
                    let tape = v[0].tape();
                    linear(
                        &add(&v[0], &tape.constant(cx.clone()))?,
                        &add(&v[1], &tape.constant(cw.clone()))?,
                        Products::default(),
                    )
                },
            )?;
        }
    }
    Ok(())
}

/// A table that an embedding and a head read, in every mode, against the same with constants added: `E + c_E` for both, `x + c_x` for the head's input.
#[test]
fn a_tied_table_against_its_surrogate() -> crate::Result<()> {
    let (table0, at) = (random([9, 40], 6), ids(&[3, 8, 3, 0]));
    for (precision, input) in [
        (Precision::Full, Input::Float),
        (Precision::Int8, Input::Float),
        (Precision::Int4, Input::Groups),
        (Precision::Ternary, Input::Tokens),
        (Precision::Binary, Input::Tokens),
    ] {
        for anneal in [0.0, 0.25, 1.0] {
            let effective = EffectiveWeight::new(&table0, precision, anneal)?.dense;
            let ct = shift(&effective, &table0);
            // What the head reads is what the embedding looked up, squared.
            let x = |table: &crate::Var| {
                let rows = embedding(table, &at)?;
                mul(&rows, &rows)
            };
            let x0 = x(&Tape::new().leaf(effective))?.tensor().clone();
            let rounded = match input {
                _ if anneal <= 0.0 => x0.clone(),
                Input::Float => x0.clone(),
                Input::Groups => blend_groups(&x0, anneal)?,
                Input::Tokens if anneal < 1.0 => blend_activations(&x0, anneal)?,
                Input::Tokens => QuantizedActivations::new(&x0)?.dequantize()?,
            };
            let cx = shift(&rounded, &x0);
            gradcheck_surrogate(
                &format!("table {precision:?} at {anneal}"),
                std::slice::from_ref(&table0),
                |v| {
                    let table = table(&v[0], precision, anneal)?;
                    head(&x(&table.values)?, &table, input, anneal, Products::default())
                },
                |v| {
                    let tape = v[0].tape();
                    let table = add(&v[0], &tape.constant(ct.clone()))?;
                    linear(
                        &add(&x(&table)?, &tape.constant(cx.clone()))?,
                        &table,
                        Products::default(),
                    )
                },
            )?;
        }
    }
    Ok(())
}

#[test]
fn the_checker_sees_a_wrong_gradient() {
    let wrong = |v: &[crate::Var]| {
        let y = onebit_engine::ops::elementwise::mul(v[0].tensor(), v[0].tensor())?;
        let x = v[0].tensor().clone();
        // The true gradient is 2x·dy; this one says 1.99x·dy.
        let backward = move |dy: Vec<Option<Tensor>>| {
            let dy = onebit_engine::ops::elementwise::scale(1.99, &only(dy)?)?;
            Ok(vec![Some(onebit_engine::ops::elementwise::mul(&dy, &x)?)])
        };
        single(v[0].tape().record(&[&v[0]], vec![y], backward)?)
    };
    let error = gradcheck("wrong", &[random([4, 4], 1)], wrong).unwrap_err();
    assert!(matches!(error, AutogradError::GradCheck { .. }), "{error}");
}

#[test]
fn no_grad_records_nothing_and_a_second_tape_is_refused() {
    let tape = Tape::new();
    let x = tape.leaf(random([3], 1));
    let y = tape.no_grad(|| mul(&x, &x)).unwrap();
    assert!(!y.requires_grad());
    let z = sum(&x).unwrap();
    assert!(z.requires_grad());
    let other = Tape::new().leaf(random([3], 2));
    assert!(matches!(add(&x, &other), Err(AutogradError::OtherTape(_))));
    assert!(matches!(tape.backward(&x), Err(AutogradError::NotScalar(_))));
}
