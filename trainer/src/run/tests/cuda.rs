//! Runs on a GPU against the same runs on the CPU.

use super::rounding::{tails, within_the_noise_of_seeds};
use super::*;

pub(super) fn gpu(test: &str) -> Option<Gpu> {
    match Gpu::open(0) {
        Ok(gpu) => Some(gpu),
        Err(error) => {
            println!("SKIPPED (no GPU): {test}; {error}");
            None
        }
    }
}

fn on(gpu: Option<&Gpu>, directory: &Path, name: &str, options: &TrainOptions) -> RunInputs {
    RunInputs {
        gpu: gpu.cloned(),
        ..inputs(directory, name, options.clone())
    }
}

/// Losses of the steps and of the validations, and flip rates, of a run to its end.
fn told(inputs: RunInputs) -> (Vec<f64>, Vec<f64>, Vec<f64>) {
    let (mut losses, mut validated, mut flips) = (Vec::new(), Vec::new(), Vec::new());
    let mut trainer = Trainer::new(inputs, false, &mut |_| ()).unwrap();
    let end = trainer.run(&AtomicBool::new(false), &mut |event| match event {
        Event::Step(m) => {
            assert_eq!(m.step as usize, losses.len() + 1, "steps are told in order");
            losses.push(m.loss);
            flips.extend(m.layers.iter().map(|l| l.flip));
        }
        Event::Validated(v) => {
            assert_eq!(v.step as usize, losses.len(), "a validation follows its step");
            validated.push(v.val_loss);
        }
        _ => (),
    });
    assert_eq!(end.unwrap(), Outcome::Finished);
    (losses, validated, flips)
}

/// Twenty steps through all phases, on batches of `batch_size` sequences: branches in bf16 make the loss of a token differ now to one side, now to the other, and the
/// mean over a batch so much the less the more tokens it has. Adam moves a weight by the whole rate even where its gradient is noise, so the rate decides how far rounding carries, and
/// moments of eight bits, which fall to either side of a step, want a smaller one.
fn twenty_steps(optimizer: OptimizerKind, batch_size: usize) -> TrainOptions {
    TrainOptions {
        optimizer,
        batch_size,
        seq_len: 32,
        accumulation_steps: 1,
        max_steps: 20,
        lr: if optimizer == OptimizerKind::AdamW8bit {
            1e-4
        } else {
            3e-4
        },
        quant_warmup_steps: 5,
        quant_anneal_steps: 5,
        ..options()
    }
}

pub(super) fn wider(mut inputs: RunInputs) -> RunInputs {
    let mut config = inputs.network.config().clone();
    (config.hidden_size, config.intermediate_size, config.head_dim) = (128, 256, 32);
    inputs.network = Network::new(config, Device::cpu().unwrap(), inputs.options.seed).unwrap();
    inputs
}

#[test]
fn losses_of_a_run_are_those_of_the_cpu() {
    let Some(gpu) = gpu("losses of a run") else { return };
    let dir = tempfile::tempdir().unwrap();
    for optimizer in OPTIMIZERS {
        // The emulation is slow.
        let (batch_size, bound) = if gpu.properties().name == "emulated" {
            (16, 4e-3)
        } else {
            (256, 1e-3)
        };
        let options = twenty_steps(optimizer, batch_size);
        let name = |device: &str| format!("{device}-{optimizer:?}");
        let (expected, validated, flips) = told(wider(on(None, dir.path(), &name("cpu"), &options)));
        let (losses, validated_there, flips_there) = told(wider(on(Some(&gpu), dir.path(), &name("cuda"), &options)));
        assert_eq!(losses.len(), 20);
        let apart: Vec<f64> = losses
            .iter()
            .zip(&expected)
            .map(|(found, expected)| found - expected)
            .collect();
        let largest = |values: &[f64]| values.iter().fold(0.0, |worst: f64, d| worst.max(d.abs()));
        let worst = largest(&apart);
        assert!(
            worst < bound,
            "{optimizer:?}: losses {losses:.4?} are apart from the CPU's by {apart:.5?}"
        );
        // A validation has 480 tokens, wherever it runs.
        let validated_apart: Vec<f64> = validated_there.iter().zip(&validated).map(|(a, b)| a - b).collect();
        assert!(largest(&validated_apart) < 1e-2, "{optimizer:?}: {validated_apart:?}");
        // Both count the same matrices, and weights at a threshold fall to either side now and then.
        assert_eq!(
            (flips.len(), validated.len()),
            (flips_there.len(), validated_there.len())
        );
        for (found, expected) in flips_there.iter().zip(&flips) {
            assert!(
                (found - expected).abs() < 5e-3,
                "{optimizer:?}: flip rate {found}, on the CPU {expected}"
            );
        }
        println!(
            "{optimizer:?}: losses from {:.4} to {:.4}, at most {worst:.1e} apart",
            losses[0], losses[19]
        );
    }
}

#[test]
fn a_run_on_a_gpu_resumes_to_the_same_bytes_and_recomputes_to_them() {
    let Some(gpu) = gpu("resuming") else { return };
    let dir = tempfile::tempdir().unwrap();
    let options = options();
    let run = |name: &str, options: &TrainOptions, stop_at: u64, resume: bool| {
        let mut trainer = Trainer::new(on(Some(&gpu), dir.path(), name, options), resume, &mut |_| ()).unwrap();
        let stop = AtomicBool::new(false);
        let end = trainer.run(&stop, &mut |event| {
            if let Event::Step(m) = event
                && m.step == stop_at
            {
                stop.store(true, std::sync::atomic::Ordering::Relaxed);
            }
        });
        end.unwrap()
    };
    assert_eq!(run("whole", &options, 0, false), Outcome::Finished);
    for stop_at in [3, 11, 19] {
        let name = format!("stopped-{stop_at}");
        assert_eq!(run(&name, &options, stop_at, false), Outcome::Interrupted);
        assert_eq!(run(&name, &options, 0, true), Outcome::Finished);
        assert!(
            bytes(dir.path(), "whole") == bytes(dir.path(), &name),
            "stopped at {stop_at}"
        );
    }
    let recompute = TrainOptions {
        recompute: true,
        ..options.clone()
    };
    assert_eq!(run("recomputed", &recompute, 0, false), Outcome::Finished);
    assert!(bytes(dir.path(), "whole") == bytes(dir.path(), "recomputed"));
    // Other optimisers, and gradients in bf16, which make another run than those in f32.
    let short = |optimizer, gradients| TrainOptions {
        optimizer,
        gradients,
        accumulation_steps: 1,
        max_steps: 7,
        quant_warmup_steps: 2,
        quant_anneal_steps: 2,
        eval_every: 0,
        save_every: 0,
        ..options.clone()
    };
    for (name, optimizer, gradients) in [
        ("muon", OptimizerKind::Muon, Precision::F32),
        ("wide", OptimizerKind::AdamW8bit, Precision::F32),
        ("narrow", OptimizerKind::AdamW8bit, Precision::Bf16),
        ("narrow-adamw", OptimizerKind::AdamW, Precision::Bf16),
    ] {
        let options = short(optimizer, gradients);
        assert_eq!(run(name, &options, 0, false), Outcome::Finished);
        let stopped = format!("{name}-stopped");
        assert_eq!(run(&stopped, &options, 3, false), Outcome::Interrupted);
        assert_eq!(run(&stopped, &options, 0, true), Outcome::Finished);
        assert!(bytes(dir.path(), name) == bytes(dir.path(), &stopped), "{name}");
    }
    assert!(bytes(dir.path(), "wide").0 != bytes(dir.path(), "narrow").0);
}

#[test]
fn gradients_in_bf16_and_moments_in_8_bits_cost_less_than_another_seed() {
    let Some(gpu) = gpu("what rounding costs") else { return };
    if gpu.properties().name.contains("emulated") && std::env::var_os("ONEBIT_SLOW_TESTS").is_none() {
        println!("SKIPPED (minutes on the emulator, ONEBIT_SLOW_TESTS=1 runs it): what rounding costs");
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let losses = |name, optimizer, gradients| {
        let options = TrainOptions {
            optimizer,
            gradients,
            ..options()
        };
        tails(dir.path(), name, Some(&gpu), &options)
    };
    let exact = losses("f32", OptimizerKind::AdamW, Precision::F32);
    let both = losses("both", OptimizerKind::AdamW8bit, Precision::Bf16);
    within_the_noise_of_seeds("with both", &exact, &both);
}

#[test]
fn a_number_that_is_not_finite_stops_the_run_before_it_reaches_the_weights() {
    let Some(gpu) = gpu("not finite") else { return };
    let dir = tempfile::tempdir().unwrap();
    let options = still(options());
    let mut broken = on(Some(&gpu), dir.path(), "broken", &options);
    let down = broken
        .network
        .specs()
        .iter()
        .position(|s| s.name.ends_with("0.mlp.down_proj.weight"))
        .unwrap();
    broken.network.parameters_mut()[down].f32_mut().unwrap()[5] = f32::NAN;
    let mut trainer = Trainer::new(broken, false, &mut |_| ()).unwrap();
    let error = trainer.run(&AtomicBool::new(false), &mut |_| ()).unwrap_err();
    let text = error.to_string();
    assert!(
        text.contains("step 3: loss is not finite") && text.contains("model.layers.0.mlp"),
        "{text}"
    );
}

#[test]
fn what_only_the_other_device_does_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let recompute = TrainOptions {
        recompute: true,
        ..options()
    };
    let refused = Trainer::new(inputs(dir.path(), "cpu", recompute), false, &mut |_| ()).unwrap_err();
    assert!(refused.to_string().contains("--recompute"), "{refused}");
    let narrow = TrainOptions {
        gradients: Precision::Bf16,
        accumulation_steps: 1,
        ..options()
    };
    let refused = Trainer::new(inputs(dir.path(), "cpu", narrow), false, &mut |_| ()).unwrap_err();
    assert!(refused.to_string().contains("--gradients: bf16"), "{refused}");
    let Some(gpu) = gpu("refusals") else { return };
    let in_f32 = on(Some(&gpu), dir.path(), "cuda", &in_precision(Precision::F32));
    let refused = Trainer::new(in_f32, false, &mut |_| ()).unwrap_err();
    assert!(refused.to_string().contains("--precision"), "{refused}");
}

#[test]
fn a_run_with_teachers_is_that_of_the_cpu() {
    let Some(gpu) = gpu("teachers") else { return };
    let dir = tempfile::tempdir().unwrap();
    let options = TrainOptions {
        teacher_weight: 0.6,
        ..twenty_steps(OptimizerKind::AdamW, 16)
    };
    let run = |gpu: Option<&Gpu>, name: &str| {
        let inputs = RunInputs {
            teachers: teachers(),
            ..on(gpu, dir.path(), name, &options)
        };
        told(inputs).0
    };
    for (step, (found, expected)) in run(Some(&gpu), "gpu").iter().zip(run(None, "cpu")).enumerate() {
        assert!((found - expected).abs() < 4e-3, "step {step}: {found} and {expected}");
    }
}

/// What is planned is what is allocated.
#[test]
fn the_estimate_for_a_gpu_has_every_use() {
    let estimate = cuda_memory_estimate(&config(), &[], &options()).unwrap();
    let parameters = 4 * config().parameter_count();
    assert!(estimate.weights >= parameters && estimate.gradients >= parameters && estimate.optimizer >= 2 * parameters);
    assert!(estimate.products > 0 && estimate.activations > 0);
    let less = TrainOptions {
        recompute: true,
        ..options()
    };
    assert!(cuda_memory_estimate(&config(), &[], &less).unwrap().total() < estimate.total());
}

/// The largest preset in what 80 GB leave, and the smallest in little.
#[test]
fn presets_fit_where_they_should() {
    let estimate = |name: &str, options: TrainOptions| {
        let config = presets::by_name(name).unwrap().config;
        let estimate = cuda_memory_estimate(&config, &[], &options).unwrap();
        println!("{name}: {estimate:?}, in all {}", estimate.total());
        estimate
    };
    let least = TrainOptions {
        batch_size: 1,
        seq_len: 2048,
        recompute: true,
        optimizer: OptimizerKind::AdamW8bit,
        gradients: Precision::Bf16,
        ..options()
    };
    let eight_billion = estimate("8b", least);
    assert!(eight_billion.total() < 80_000_000_000, "{eight_billion:?}");
    let small = TrainOptions {
        batch_size: 32,
        seq_len: 256,
        accumulation_steps: 1,
        quant_warmup_steps: 0,
        quant_anneal_steps: 0,
        ..options()
    };
    assert!(estimate("25m", small).total() < 2_200_000_000);
}
