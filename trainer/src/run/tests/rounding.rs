//! What rounded sums and moments change is small beside what another seed changes.

use super::*;

/// Mean losses of ten steps at the end of each phase, of runs of three seeds through all phases.
pub(super) fn tails(directory: &Path, name: &str, gpu: Option<&Gpu>, options: &TrainOptions) -> [[f64; 3]; 3] {
    [1, 2, 3].map(|seed| {
        let options = TrainOptions {
            seed,
            max_steps: 150,
            accumulation_steps: 1,
            quant_warmup_steps: 50,
            quant_anneal_steps: 50,
            save_every: 0,
            eval_every: 0,
            ..still(options.clone())
        };
        let mut losses = Vec::new();
        let inputs = RunInputs {
            gpu: gpu.cloned(),
            ..inputs(directory, &format!("{name}-{seed}"), options)
        };
        let mut trainer = Trainer::new(inputs, false, &mut |_| ()).unwrap();
        let watch = &mut |event: Event<'_>| {
            if let Event::Step(m) = event {
                losses.push(m.loss);
            }
        };
        trainer.run(&AtomicBool::new(false), watch).unwrap();
        assert!(losses[149] < 0.8 * losses[0], "the run learned nothing");
        [40, 90, 140].map(|first| losses[first..first + 10].iter().sum::<f64>() / 10.0)
    })
}

/// What `rounded` changes is small beside what another seed changes.
pub(super) fn within_the_noise_of_seeds(what: &str, exact: &[[f64; 3]; 3], rounded: &[[f64; 3]; 3]) {
    for (phase, name) in ["warm-up", "anneal", "hard"].into_iter().enumerate() {
        let of = |runs: &[[f64; 3]; 3]| runs.map(|run| run[phase]);
        let mean = |x: [f64; 3]| x.iter().sum::<f64>() / 3.0;
        let (exact, rounded) = (of(exact), of(rounded));
        let spread = (exact.map(|x| (x - mean(exact)).powi(2)).iter().sum::<f64>() / 2.0).sqrt();
        let (bias, worst) = (
            mean(rounded) - mean(exact),
            exact
                .iter()
                .zip(rounded)
                .map(|(a, b)| (a - b).abs())
                .fold(0.0, f64::max),
        );
        println!("{name}: {exact:.4?}, spread {spread:.4}; {what} {rounded:.4?}, bias {bias:+.4}, worst {worst:.4}");
        assert!(
            bias.abs() < spread && worst < 2.0 * spread,
            "{what}, {name}: {bias} {worst} against {spread}"
        );
    }
}

#[test]
fn losses_in_bf16_are_those_of_f32_within_the_noise_of_seeds() {
    let dir = tempfile::tempdir().unwrap();
    let [exact, rounded] = [Precision::F32, Precision::Bf16]
        .map(|precision| tails(dir.path(), precision.name(), None, &in_precision(precision)));
    within_the_noise_of_seeds("in bf16", &exact, &rounded);
}

#[test]
fn losses_with_moments_in_8_bits_are_those_in_f32_within_the_noise_of_seeds() {
    let dir = tempfile::tempdir().unwrap();
    let [exact, rounded] = [OptimizerKind::AdamW, OptimizerKind::AdamW8bit].map(|optimizer| {
        let options = TrainOptions {
            optimizer,
            ..in_precision(Precision::F32)
        };
        tails(dir.path(), optimizer.name(), None, &options)
    });
    within_the_noise_of_seeds("with moments in 8 bits", &exact, &rounded);
}
