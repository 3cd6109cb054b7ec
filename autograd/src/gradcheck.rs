//! Gradients against central differences.
//!
//! The backward of `Σ v·f(x)` for a fixed random direction `v` is compared, element by element, with
//! `(Σ v·f(x+h) − Σ v·f(x−h)) / 2h`. The forward is f32; the sums are taken in f64. With h = 2⁻⁸ the rounding of an output of
//! order one gives an error of about `1e-7·√n/h ≈ 1e-4`, the cubic term one of `h² ≈ 1.5e-5`: [`TOLERANCE`], relative to the
//! largest gradient, leaves room for both.

use onebit_engine::Tensor;
use onebit_engine::rng::Key;

use crate::{AutogradError, Result, Tape, Var};

/// Step of the differences.
pub const STEP: f32 = 1.0 / 256.0;
/// Largest error accepted, as a fraction of `1 + max |gradient|` of the input.
pub const TOLERANCE: f64 = 2e-3;

/// Checks the gradient of `f` with respect to each of `inputs`.
///
/// # Errors
/// [`AutogradError::GradCheck`] at the first element that disagrees, or an error of `f`.
pub fn gradcheck(name: &str, inputs: &[Tensor], f: impl Fn(&[Var]) -> Result<Var>) -> Result<()> {
    gradcheck_surrogate(name, inputs, &f, &f)
}

/// Checks the gradient of `f` against differences of another function: the stated surrogate of a straight-through operation.
///
/// # Errors
/// As [`gradcheck`].
pub fn gradcheck_surrogate(
    name: &str,
    inputs: &[Tensor],
    f: impl Fn(&[Var]) -> Result<Var>,
    surrogate: impl Fn(&[Var]) -> Result<Var>,
) -> Result<()> {
    let tape = Tape::new();
    let leaves: Vec<Var> = inputs.iter().map(|t| tape.leaf(t.clone())).collect();
    let output = f(&leaves)?;
    let key = Key::new(0x6772_6164, 0, 0);
    let direction: Vec<f32> = (0..output.tensor().len()).map(|i| key.normal(i as u64)).collect();
    let seed = Tensor::from_f32(output.tensor().device(), output.shape().clone(), direction.clone())?;
    let mut gradients = tape.backward_with(&output, seed)?;

    let value = |inputs: &[Tensor]| -> Result<f64> {
        let tape = Tape::new();
        let constants: Vec<Var> = inputs.iter().map(|t| tape.constant(t.clone())).collect();
        let y = surrogate(&constants)?;
        Ok(y.tensor()
            .f32()?
            .iter()
            .zip(&direction)
            .map(|(&y, &v)| f64::from(y) * f64::from(v))
            .sum())
    };
    for (i, leaf) in leaves.iter().enumerate() {
        let analytic = match gradients.take(leaf) {
            Some(g) => g.f32()?.to_vec(),
            None => vec![0.0; leaf.tensor().len()],
        };
        let largest = analytic.iter().fold(0.0f32, |m, g| m.max(g.abs()));
        let mut moved = inputs.to_vec();
        for element in 0..analytic.len() {
            let x = inputs[i].f32()?[element];
            let mut at = |x: f32| -> Result<f64> {
                moved[i].f32_mut()?[element] = x;
                value(&moved)
            };
            let (high, low) = (x + STEP, x - STEP);
            let numeric = (at(high)? - at(low)?) / f64::from(high - low);
            moved[i].f32_mut()?[element] = x;
            let analytic = f64::from(analytic[element]);
            let close = (analytic - numeric).abs() <= TOLERANCE * (1.0 + f64::from(largest));
            if !close {
                return Err(AutogradError::GradCheck {
                    name: name.into(),
                    input: i,
                    element,
                    analytic,
                    numeric,
                });
            }
        }
    }
    Ok(())
}
