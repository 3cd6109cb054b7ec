//! The plan against what a run allocates, what was measured, and what must be so whatever the rates are.

use onebit_model::config::{LinearMode, presets};

use super::*;
use crate::options::Precision;
use crate::run::cuda_memory_estimate;

const GB: u64 = 1_000_000_000;

/// One sequence of 2048 tokens, hard phase.
fn options(optimizer: OptimizerKind, gradients: Precision) -> TrainOptions {
    TrainOptions {
        batch_size: 1,
        accumulation_steps: 1,
        seq_len: 2048,
        recompute: true,
        optimizer,
        gradients,
        quant_warmup_steps: 0,
        quant_anneal_steps: 0,
        ..TrainOptions::default()
    }
}

fn planned(name: &str, options: &TrainOptions, gpus: usize, shard: Sharding) -> Plan {
    let config = presets::by_name(name).unwrap().config;
    let run = Run {
        config: &config,
        options,
        phase: Phase::Hard,
        rate: rate_of(Some(name), &config, options, Phase::Hard),
    };
    plan(&run, &Fabric::h200(8), gpus, shard).unwrap()
}

/// Seconds of the update of one GPU that has all.
fn update_alone(name: &str, options: &TrainOptions) -> f64 {
    planned(name, options, 1, Sharding::None).step.update
}

const KINDS: [(OptimizerKind, Precision); 3] = [
    (OptimizerKind::AdamW, Precision::F32),
    (OptimizerKind::AdamW8bit, Precision::F32),
    (OptimizerKind::AdamW8bit, Precision::Bf16),
];

#[test]
fn one_gpu_holds_what_a_run_allocates() {
    for name in ["25m", "125m", "1b3", "8b", "8b-gcp", "0.3b-stack"] {
        for (optimizer, gradients) in KINDS {
            let options = TrainOptions {
                seq_len: 1024,
                ..options(optimizer, gradients)
            };
            let config = presets::by_name(name).unwrap().config;
            let allocated = cuda_memory_estimate(&config, &[], &options).unwrap();
            for shard in [Sharding::None, Sharding::Optimizer] {
                let m = planned(name, &options, 1, shard).memory;
                let uses = (m.weights, m.gradients, m.optimizer, m.products, m.activations);
                let expected = (
                    allocated.weights,
                    allocated.gradients,
                    allocated.optimizer,
                    allocated.products,
                    allocated.activations,
                );
                assert_eq!(uses, expected, "{name} {optimizer:?} {shard:?}");
                assert_eq!(m.total(), allocated.total(), "{name} {optimizer:?} {shard:?}");
            }
            // With one rank `parameters` has its trits beside all that.
            let m = planned(name, &options, 1, Sharding::Parameters).memory;
            assert_eq!(m.total() - m.packed, allocated.total(), "{name} {optimizer:?}");
        }
    }
}

#[test]
fn parts_are_those_of_the_layout() {
    let config = presets::by_name("8b").unwrap().config;
    let parts = Parts::new(&config).unwrap();
    let layout = Layout::new(&config, &config.tensors()).unwrap();
    assert_eq!((parts.matrices(), parts.rest), (layout.codes, layout.matrices));
}

#[test]
fn more_gpus_never_hold_more_and_always_do_more() {
    for (name, options) in [
        ("8b", options(OptimizerKind::AdamW8bit, Precision::Bf16)),
        ("1b3", options(OptimizerKind::AdamW, Precision::F32)),
        ("0.7b-stack", options(OptimizerKind::AdamW, Precision::F32)),
    ] {
        for shard in Sharding::ALL {
            let counts = [1, 2, 3, 4, 8, 16, 64, 256, 1024, 4096];
            let plans = counts.map(|gpus| planned(name, &options, gpus, shard));
            for (pair, gpus) in plans.windows(2).zip(counts) {
                // But for what so many ranks leave over of each bucket, which all of them have, and the losses of all.
                let left = (32 * gpus * 4 * 4096 * 12 + 64 * gpus) as u64;
                assert!(
                    pair[1].memory.total() <= pair[0].memory.total() + left,
                    "{name} {shard:?} {gpus}"
                );
                assert!(
                    pair[1].traffic.total() >= pair[0].traffic.total(),
                    "{name} {shard:?} {gpus}"
                );
                assert!(pair[1].step.compute == pair[0].step.compute);
                assert!(
                    pair[1].tokens_per_second > pair[0].tokens_per_second,
                    "{name} {shard:?} {gpus}"
                );
            }
            // One GPU is the run that was measured.
            let p = &plans[0];
            if shard != Sharding::Parameters {
                assert!((p.efficiency - 1.0).abs() < 1e-12, "{p:?}");
            }
            assert_eq!((p.traffic.total(), p.step.reduce, p.step.gather), (0.0, 0.0, 0.0));
            // Divided updates may make N GPUs more than N times as fast, but never faster than without updates.
            let alone = plans[0].step.compute + update_alone(name, &options);
            assert!(
                plans.iter().all(|p| p.efficiency <= alone / p.step.compute),
                "{plans:?}"
            );
            if shard == Sharding::None {
                assert!(plans[1..].iter().all(|p| p.efficiency < 1.0), "{plans:?}");
            }
            let t = plans[4].step;
            assert_eq!(t.total, t.compute + t.reduce + t.update + t.gather);
        }
        // What is divided more is held less.
        let of = |shard| planned(name, &options, 8, shard).memory.total();
        assert!(of(Sharding::Parameters) < of(Sharding::Optimizer) && of(Sharding::Optimizer) < of(Sharding::None));
    }
}

#[test]
fn eight_billion_fits_where_it_should() {
    let total = |kind: usize, gpus, shard| {
        let (optimizer, gradients) = KINDS[kind];
        planned("8b", &options(optimizer, gradients), gpus, shard)
            .memory
            .total()
    };
    // f32 throughout: on no GPU of 80 or 96 GB alone, and on those of 80 only with weights divided.
    assert!(total(0, 1, Sharding::None) > 128 * GB);
    // But for the losses and sums of all ranks.
    assert!(total(0, 64, Sharding::None) - total(0, 1, Sharding::None) < 1 << 20);
    assert!(total(0, 2, Sharding::Optimizer) > 96 * GB);
    assert!(total(0, 8, Sharding::Parameters) < 60 * GB);
    // 8-bit moments and bf16 gradients: on one of 80, and divided on one of 48.
    assert!((70 * GB..75 * GB).contains(&total(2, 1, Sharding::None)));
    assert!(total(2, 64, Sharding::Optimizer) > 56 * GB);
    assert!(total(2, 8, Sharding::Parameters) < 40 * GB);
    // Gradients are whole: 16 GB of them, and the codes of 7 GB, are everywhere.
    let p = planned("8b", &options(KINDS[2].0, KINDS[2].1), 4096, Sharding::Parameters);
    assert!(p.memory.gradients > 16 * GB && p.memory.total() > 25 * GB);
}

#[test]
fn trits_are_an_eighth_of_bf16() {
    let config = presets::by_name("8b").unwrap().config;
    let options = options(OptimizerKind::AdamW8bit, Precision::Bf16);
    let sent = |phase, shard| {
        let rate = rate_of(None, &config, &options, phase);
        let run = Run {
            config: &config,
            options: &options,
            phase,
            rate,
        };
        plan(&run, &Fabric::h200(8), 8, shard).unwrap().traffic
    };
    let rest = 7.0 / 8.0 * 4.0 * Parts::new(&config).unwrap().rest as f64;
    let hard = sent(Phase::Hard, Sharding::Parameters).weights - rest;
    let soft = sent(Phase::Warmup, Sharding::Parameters).weights - rest;
    let wide = sent(Phase::Hard, Sharding::Optimizer).weights - rest;
    // The sums that γ is of are two thousandths of a byte a weight.
    assert!((hard / soft - 0.125).abs() < 1e-3, "{hard} of {soft}");
    assert!((hard / wide - 0.0625).abs() < 1e-3, "{hard} of {wide}");
    // Gradients: twice the volume where they are all-reduced.
    let of = |shard| sent(Phase::Hard, shard).gradients;
    assert_eq!(of(Sharding::None), 2.0 * of(Sharding::Optimizer));
}

/// Two H200 of a host, 18 NVLink links each, NCCL 2.28: MiB and microseconds.
#[test]
fn collectives_take_what_was_measured() {
    const REDUCE: [(f64, f64); 5] = [(512.0, 1710.0), (64.0, 251.0), (16.0, 77.0), (4.0, 39.0), (1.0, 37.0)];
    const SCATTER: [(f64, f64); 3] = [(512.0, 1060.0), (64.0, 161.0), (4.0, 36.0)];
    const GATHER: [(f64, f64); 4] = [(512.0, 1060.0), (64.0, 157.0), (16.0, 57.0), (4.0, 36.0)];
    let fabric = Fabric::h200(8);
    let near = |what: &str, found: f64, (mib, measured): (f64, f64)| {
        let off = 1e6 * found / measured - 1.0;
        assert!(
            off.abs() < 0.10,
            "{what} of {mib} MiB: {:.1} µs for {measured}",
            1e6 * found
        );
    };
    let bytes = |mib: f64| mib * f64::from(1 << 20);
    for point in REDUCE {
        near("all-reduce", fabric.all_reduce(bytes(point.0), 2), point);
    }
    for point in SCATTER {
        near("reduce-scatter", fabric.reduce_scatter(bytes(point.0), 2), point);
    }
    for point in GATHER {
        near("all-gather", fabric.all_gather(bytes(point.0), 2), point);
    }
}

#[test]
fn nodes_are_slower_than_what_is_in_them() {
    let fabric = Fabric::h200(8);
    let bytes = 1e9;
    for time in [Fabric::all_reduce, Fabric::all_gather] {
        assert_eq!(time(&fabric, bytes, 1), 0.0);
        assert_eq!(time(&fabric, 0.0, 8), 0.0);
        assert!(time(&fabric, bytes, 16) > time(&fabric, bytes, 8));
        assert!(time(&Fabric::h200(1), bytes, 8) > time(&fabric, bytes, 8));
        // Hops are what is left of a small one.
        assert!(time(&fabric, 8.0, 4096) > time(&fabric, 8.0, 16));
    }
}

#[test]
fn what_cannot_be_divided_is_refused() {
    let mut config = presets::by_name("125m").unwrap().config;
    let plan_of = |config: &ModelConfig, optimizer, gpus, per_node, shard| {
        let options = options(optimizer, Precision::F32);
        let run = Run {
            config,
            options: &options,
            phase: Phase::Hard,
            rate: rate_of(None, config, &options, Phase::Hard),
        };
        plan(&run, &Fabric::h200(per_node), gpus, shard).map_err(|e| e.to_string())
    };
    let (adamw, muon) = (OptimizerKind::AdamW, OptimizerKind::Muon);
    assert!(plan_of(&config, muon, 2, 8, Sharding::None).is_ok());
    for shard in [Sharding::Optimizer, Sharding::Parameters] {
        assert!(
            plan_of(&config, muon, 2, 8, shard)
                .unwrap_err()
                .starts_with("--optimizer: muon")
        );
    }
    assert!(
        plan_of(&config, adamw, 0, 8, Sharding::None)
            .unwrap_err()
            .starts_with("--gpus")
    );
    assert!(
        plan_of(&config, adamw, 2, 0, Sharding::None)
            .unwrap_err()
            .starts_with("--gpus-per-node")
    );
    config.layer_modes[3].v = LinearMode::Int8;
    let refusal = plan_of(&config, adamw, 2, 8, Sharding::Parameters).unwrap_err();
    assert!(refusal.contains("model.layers.3.self_attn.v_proj"), "{refusal}");
    assert!(plan_of(&config, adamw, 2, 8, Sharding::Optimizer).is_ok());
    assert_eq!("parameters".parse(), Ok(Sharding::Parameters));
    assert!(
        "all"
            .parse::<Sharding>()
            .unwrap_err()
            .contains("optimizer or parameters")
    );
}

#[test]
fn measured_rates_are_those_of_their_options() {
    let config = presets::by_name("8b").unwrap().config;
    let least = options(OptimizerKind::AdamW8bit, Precision::Bf16);
    assert_eq!(
        rate_of(Some("8b"), &config, &least, Phase::Hard).source,
        Source::Measured
    );
    for (name, changed) in [
        (None, least.clone()),
        (Some("8b"), options(OptimizerKind::AdamW8bit, Precision::F32)),
        (Some("8b"), TrainOptions { seq_len: 4096, ..least }),
    ] {
        let rate = rate_of(name, &config, &changed, Phase::Hard);
        assert_eq!(rate.source, Source::Estimated);
        // Of the order of what was measured.
        assert!((8e3..9.5e3).contains(&rate.tokens_per_second), "{rate:?}");
    }
    let soft = rate_of(
        Some("8b"),
        &config,
        &options(OptimizerKind::AdamW8bit, Precision::Bf16),
        Phase::Warmup,
    );
    assert_eq!(soft.source, Source::Estimated);
    // Where both are known, the estimate is below what was measured, by a quarter at most of the large ones.
    let plain = TrainOptions {
        recompute: false,
        ..options(OptimizerKind::AdamW, Precision::F32)
    };
    for (name, batch_size, seq_len) in [("125m", 64, 1024), ("1b3", 8, 2048)] {
        let config = presets::by_name(name).unwrap().config;
        let options = TrainOptions {
            batch_size,
            seq_len,
            ..plain.clone()
        };
        let [measured, estimated] = [Some(name), None].map(|name| rate_of(name, &config, &options, Phase::Hard));
        assert_eq!(
            (measured.source, estimated.source),
            (Source::Measured, Source::Estimated)
        );
        let ratio = estimated.tokens_per_second / measured.tokens_per_second;
        assert!((0.75..1.01).contains(&ratio), "{name}: {ratio}");
    }
}
