//! Whole runs on a small model: exactness, resuming, phases, failures.

use std::fs;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

use onebit_engine::Device;
use onebit_model::config::{ModelConfig, presets};

use super::*;
use crate::data::TokenWriter;
use crate::options::{OptimizerKind, Precision};

mod cuda;
mod cuda_ranks;
mod faults;
mod guards;
mod ranks;
mod rounding;
mod stack;
mod stall;
mod streams;
mod teachers;

const VOCAB: usize = 61;
const OPTIMIZERS: [OptimizerKind; 3] = [OptimizerKind::AdamW, OptimizerKind::AdamW8bit, OptimizerKind::Muon];

fn config() -> ModelConfig {
    let mut config = presets::by_name("quickstart").unwrap().config;
    (config.vocab_size, config.hidden_size, config.intermediate_size) = (VOCAB, 32, 64);
    (config.num_attention_heads, config.num_key_value_heads, config.head_dim) = (4, 2, 8);
    (config.num_hidden_layers, config.max_position_embeddings) = (2, 32);
    config.layer_modes.truncate(2);
    config.final_logit_softcapping = Some(6.0);
    config
}

fn options() -> TrainOptions {
    TrainOptions {
        batch_size: 4,
        seq_len: 16,
        accumulation_steps: 2,
        max_steps: 24,
        lr: 4e-3,
        lr_warmup_steps: 4,
        quant_warmup_steps: 8,
        quant_anneal_steps: 8,
        save_every: 5,
        eval_every: 7,
        log_every: 6,
        dropout: 0.1,
        attention_dropout: 0.1,
        output_dropout: 0.1,
        word_dropout: 0.05,
        stochastic_depth: 0.1,
        z_loss: 1e-4,
        weight_decay_until: 0.5,
        label_smoothing: 0.05,
        ..Default::default()
    }
}

/// The same without anything that is drawn, and with the plain loss.
fn still(options: TrainOptions) -> TrainOptions {
    TrainOptions {
        dropout: 0.0,
        attention_dropout: 0.0,
        output_dropout: 0.0,
        word_dropout: 0.0,
        stochastic_depth: 0.0,
        z_loss: 0.0,
        label_smoothing: 0.0,
        weight_decay_until: 1.0,
        ..options
    }
}

fn in_precision(precision: Precision) -> TrainOptions {
    TrainOptions { precision, ..options() }
}

/// Tokens with some structure: each follows from the one before, mostly.
fn tokens(directory: &Path, name: &str, n: usize) -> TokenFile {
    let path = directory.join(name);
    let mut writer = TokenWriter::create(&path, VOCAB, [7; 32], true).unwrap();
    let key = onebit_engine::rng::Key::new(n as u64, 0, 0);
    let mut ids = vec![1u32];
    for i in 1..n {
        let last = ids[i - 1];
        ids.push(if key.below(i as u64, 10) < 8 {
            (last * 5 + 3) % VOCAB as u32
        } else {
            key.below(i as u64 + (1 << 40), VOCAB as u32)
        });
    }
    writer.push(&ids).unwrap();
    writer.end_document();
    writer.finish(n as u64, n as u64 / 4).unwrap();
    TokenFile::open(path).unwrap()
}

fn inputs(directory: &Path, name: &str, options: TrainOptions) -> RunInputs {
    RunInputs {
        network: Network::new(config(), Device::cpu().unwrap(), options.seed).unwrap(),
        teachers: Vec::new(),
        train: tokens(directory, "train.tokens", 3000).into(),
        validation: Some(tokens(directory, "valid.tokens", 500)),
        tokenizer: b"{}".to_vec(),
        generation: GenerationConfig::default(),
        options,
        output_dir: directory.join(name),
        gpu: None,
        world: World::single(),
    }
}

/// Runs until `stop_at` steps are done (0: to the end), from wherever the directory stands.
fn run(directory: &Path, name: &str, options: TrainOptions, stop_at: u64, resume: bool) -> crate::Result<Outcome> {
    let mut trainer = Trainer::new(inputs(directory, name, options), resume, &mut |_| ())?;
    let stop = AtomicBool::new(false);
    trainer.run(&stop, &mut |event| {
        if let Event::Step(m) = event
            && m.step == stop_at
        {
            stop.store(true, std::sync::atomic::Ordering::Relaxed);
        }
    })
}

fn bytes(directory: &Path, name: &str) -> (Vec<u8>, Vec<u8>) {
    let read = |file: &str| fs::read(directory.join(name).join(file)).unwrap();
    (read("model.safetensors"), read("metrics.jsonl"))
}

#[test]
fn seeded_runs_are_equal_bytes_for_any_number_of_threads() {
    let dir = tempfile::tempdir().unwrap();
    for optimizer in OPTIMIZERS {
        let options = TrainOptions { optimizer, ..options() };
        for threads in [1, 3] {
            let name = format!("run-{threads}-{optimizer:?}");
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
            pool.install(|| run(dir.path(), &name, options.clone(), 0, false))
                .unwrap();
        }
        let (one, three) = (format!("run-1-{optimizer:?}"), format!("run-3-{optimizer:?}"));
        assert!(bytes(dir.path(), &one) == bytes(dir.path(), &three), "{optimizer:?}");
    }
    // The same in bf16, with the instruction or without; and it is another run than that in f32.
    for threads in [1, 3] {
        let name = format!("bf16-{threads}");
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        pool.install(|| run(dir.path(), &name, in_precision(Precision::Bf16), 0, false))
            .unwrap();
    }
    assert!(bytes(dir.path(), "bf16-1") == bytes(dir.path(), "bf16-3"));
    run(dir.path(), "f32", in_precision(Precision::F32), 0, false).unwrap();
    assert!(bytes(dir.path(), "bf16-1").0 != bytes(dir.path(), "f32").0);
    let other = TrainOptions { seed: 43, ..options() };
    run(dir.path(), "other", other, 0, false).unwrap();
    assert!(bytes(dir.path(), "other").0 != bytes(dir.path(), "run-1-AdamW").0);
}

#[test]
fn interrupted_and_resumed_equals_uninterrupted() {
    let dir = tempfile::tempdir().unwrap();
    for optimizer in OPTIMIZERS {
        let options = TrainOptions { optimizer, ..options() };
        let whole = format!("whole-{optimizer:?}");
        assert_eq!(
            run(dir.path(), &whole, options.clone(), 0, false).unwrap(),
            Outcome::Finished
        );
        // Interrupted in every phase, and twice.
        let name = format!("pieces-{optimizer:?}");
        for stop_at in [3, 11, 20] {
            assert_eq!(
                run(dir.path(), &name, options.clone(), stop_at, true).unwrap(),
                Outcome::Interrupted
            );
        }
        assert_eq!(
            run(dir.path(), &name, options.clone(), 0, true).unwrap(),
            Outcome::Finished
        );
        assert!(bytes(dir.path(), &whole) == bytes(dir.path(), &name), "{optimizer:?}");
    }
}

/// What a run was begun in is what it goes on in, whatever this CPU would choose.
#[test]
fn a_resume_keeps_the_precision() {
    let dir = tempfile::tempdir().unwrap();
    for precision in [Precision::F32, Precision::Bf16] {
        let name = precision.name();
        run(dir.path(), name, in_precision(precision), 11, false).unwrap();
        let auto = inputs(dir.path(), name, in_precision(Precision::Auto));
        let resumed = Trainer::new(auto, true, &mut |_| ()).unwrap();
        assert_eq!(resumed.precision(), precision);
        let metrics = fs::read_to_string(dir.path().join(name).join("metrics.jsonl")).unwrap();
        assert!(
            metrics
                .lines()
                .next()
                .unwrap()
                .contains(&format!("\"precision\":\"{name}\""))
        );
        drop(resumed);
        let other = if precision == Precision::F32 {
            Precision::Bf16
        } else {
            Precision::F32
        };
        let other = inputs(dir.path(), name, in_precision(other));
        let error = Trainer::new(other, true, &mut |_| ()).err().unwrap().to_string();
        assert!(error.contains("other training options"), "{error}");
    }
}

/// A crash, unlike Ctrl-C, leaves metrics of steps that no checkpoint has; and the newest checkpoint may be damaged.
#[test]
fn a_crash_and_a_damaged_checkpoint_lose_nothing_but_time() {
    let dir = tempfile::tempdir().unwrap();
    run(dir.path(), "whole", options(), 0, false).unwrap();
    run(dir.path(), "crash", options(), 13, false).unwrap();
    let root = dir.path().join("crash/checkpoints");
    // The stop at 13 saved step 13; damage it, so that step 10 is the newest whole one while metrics go on to 13.
    let file = root.join("step-13/optimizer.safetensors");
    let mut damaged = fs::read(&file).unwrap();
    *damaged.last_mut().unwrap() ^= 1;
    fs::write(&file, damaged).unwrap();
    let mut seen = None;
    let mut trainer = Trainer::new(inputs(dir.path(), "crash", options()), true, &mut |event| {
        if let Event::Resumed { step, skipped, .. } = event {
            seen = Some((step, skipped.to_vec()));
        }
    })
    .unwrap();
    let (step, skipped) = seen.unwrap();
    assert_eq!(step, 10);
    assert!(skipped[0].contains("optimizer.safetensors"), "{skipped:?}");
    trainer.run(&AtomicBool::new(false), &mut |_| ()).unwrap();
    assert!(bytes(dir.path(), "whole") == bytes(dir.path(), "crash"));
}

#[test]
fn a_resume_with_other_options_data_or_model_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    run(dir.path(), "a", options(), 6, false).unwrap();
    let refused = |inputs: RunInputs| Trainer::new(inputs, true, &mut |_| ()).err().unwrap().to_string();
    let other = TrainOptions { lr: 1e-3, ..options() };
    assert!(refused(inputs(dir.path(), "a", other)).contains("other training options"));
    let mut with_data = inputs(dir.path(), "a", options());
    with_data.train = tokens(dir.path(), "other.tokens", 3001).into();
    assert!(refused(with_data).contains("other training data"));
    let wider = ModelConfig {
        intermediate_size: 96,
        ..config()
    };
    let uncapped = ModelConfig {
        final_logit_softcapping: None,
        ..config()
    };
    for other in [wider, uncapped] {
        let with_model = RunInputs {
            network: Network::new(other, Device::cpu().unwrap(), 1).unwrap(),
            ..inputs(dir.path(), "a", options())
        };
        assert!(refused(with_model).contains("another model"));
    }
    // Without --resume the directory is left alone.
    let error = Trainer::new(inputs(dir.path(), "a", options()), false, &mut |_| ())
        .err()
        .unwrap()
        .to_string();
    assert!(error.contains("already holds a run"), "{error}");
}

/// Crossing a border between phases moves the loss less than three standard deviations of the noise between steps.
#[test]
fn phase_borders_stay_within_step_noise() {
    let dir = tempfile::tempdir().unwrap();
    let options = TrainOptions {
        max_steps: 360,
        quant_warmup_steps: 120,
        quant_anneal_steps: 120,
        lr: 2e-3,
        save_every: 0,
        eval_every: 0,
        ..still(options())
    };
    let mut losses = Vec::new();
    let mut trainer = Trainer::new(inputs(dir.path(), "run", options), false, &mut |_| ()).unwrap();
    let watch = &mut |event: Event<'_>| {
        if let Event::Step(m) = event {
            losses.push(m.loss);
        }
    };
    trainer.run(&AtomicBool::new(false), watch).unwrap();
    for border in [120, 240] {
        let mean = |range: std::ops::Range<usize>| losses[range.clone()].iter().sum::<f64>() / range.len() as f64;
        let before = &losses[border - 30..border];
        let centre = mean(border - 30..border);
        let noise = (before.iter().map(|l| (l - centre).powi(2)).sum::<f64>() / 29.0).sqrt();
        // The step right after the border against the thirty before it, and the mean of ten against the mean.
        let (jump, drift) = (
            (losses[border] - centre).abs(),
            (mean(border..border + 10) - centre).abs(),
        );
        println!("border {border}: loss {centre:.4} ± {noise:.4}, next step moves {jump:.4}, next ten {drift:.4}");
        assert!(
            jump < 3.0 * noise && drift < 3.0 * noise,
            "{border}: {jump} {drift} against {noise}"
        );
    }
    let first = losses[..10].iter().sum::<f64>();
    assert!(
        losses[350..].iter().sum::<f64>() < 0.8 * first,
        "the run learned nothing"
    );
}

#[test]
fn a_loss_that_is_not_finite_stops_with_the_layer_named() {
    let dir = tempfile::tempdir().unwrap();
    run(dir.path(), "nan", options(), 6, false).unwrap();
    let mut trainer = Trainer::new(inputs(dir.path(), "nan", options()), true, &mut |_| ()).unwrap();
    let at = trainer
        .network
        .specs()
        .iter()
        .position(|s| s.name == "model.layers.1.mlp.up_proj.weight")
        .unwrap();
    trainer.network.parameters_mut()[at].f32_mut().unwrap()[3] = f32::NAN;
    let error = trainer
        .run(&AtomicBool::new(false), &mut |_| ())
        .unwrap_err()
        .to_string();
    assert!(
        error.contains("model.layers.1.mlp") && error.contains("step-6"),
        "{error}"
    );
    drop(trainer);
    // The checkpoint is still good.
    assert_eq!(run(dir.path(), "nan", options(), 0, true).unwrap(), Outcome::Finished);
}

#[test]
fn impossible_runs_are_refused_before_they_start() {
    let dir = tempfile::tempdir().unwrap();
    let refused = |change: fn(&mut TrainOptions)| {
        let mut options = options();
        change(&mut options);
        Trainer::new(inputs(dir.path(), "x", options), false, &mut |_| ())
            .err()
            .unwrap()
            .to_string()
    };
    assert!(refused(|o| o.seq_len = 33).contains("context"));
    let mut short = inputs(dir.path(), "x", options());
    short.train = tokens(dir.path(), "short.tokens", 16).into();
    assert!(Trainer::new(short, false, &mut |_| ()).is_err());
    let file = dir.path().join("a-file");
    fs::write(&file, "").unwrap();
    let mut blocked = inputs(dir.path(), "x", options());
    blocked.output_dir = file.join("below");
    assert!(matches!(
        Trainer::new(blocked, false, &mut |_| ()).err().unwrap(),
        TrainError::Io { .. }
    ));
}

#[test]
fn accumulation_is_a_larger_batch() {
    let dir = tempfile::tempdir().unwrap();
    let plain = TrainOptions {
        max_steps: 6,
        quant_warmup_steps: 6,
        ..still(options())
    };
    let one = TrainOptions {
        batch_size: 8,
        accumulation_steps: 1,
        ..plain.clone()
    };
    let losses = |name: &str, options: TrainOptions| {
        let mut losses = Vec::new();
        let mut trainer = Trainer::new(inputs(dir.path(), name, options), false, &mut |_| ()).unwrap();
        trainer
            .run(&AtomicBool::new(false), &mut |event| {
                if let Event::Step(m) = event {
                    losses.push(m.loss);
                }
            })
            .unwrap();
        losses
    };
    for (a, b) in losses("two", plain).iter().zip(losses("one", one)) {
        assert!((a - b).abs() < 1e-4, "{a} {b}");
    }
}

/// Networks that know something else than the one in training.
fn teachers() -> Vec<Network> {
    let teacher = |seed| Network::new(config(), Device::cpu().unwrap(), seed).unwrap();
    vec![teacher(101), teacher(102)]
}

#[test]
fn the_memory_estimate_counts_every_weight() {
    let estimate = memory_estimate(&config(), &[], &options());
    assert_eq!(estimate.weights, 4 * config().parameter_count());
    assert_eq!(estimate.optimizer, 2 * estimate.weights);
    assert_eq!(estimate.snapshot, estimate.weights + estimate.optimizer);
    let eight_bit = TrainOptions {
        optimizer: OptimizerKind::AdamW8bit,
        ..options()
    };
    let (n, least) = (
        config().parameter_count(),
        memory_estimate(&config(), &[], &eight_bit).optimizer,
    );
    assert!((2 * n + n / 32..2 * n + n / 16).contains(&least), "{least} for {n}");
    let twice = memory_estimate(
        &config(),
        &[],
        &TrainOptions {
            batch_size: 8,
            ..options()
        },
    );
    let taught = memory_estimate(&config(), &[config(), config()], &options());
    assert!(taught.teachers > 2 * taught.weights && estimate.teachers == 0);
    assert!(twice.activations > estimate.activations && twice.weights == estimate.weights);
}
