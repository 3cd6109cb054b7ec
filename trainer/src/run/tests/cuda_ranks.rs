//! Steps that several ranks take together on GPUs, each a process that runs its test again.

use std::env;
use std::process::{Child, Command, Stdio};

use onebit_model::config::LinearMode;

use super::cuda::{gpu, wider};
use super::*;
use crate::data::WindowOrder;
use crate::optimizer::Optimizer;
use crate::options::Sharding;
use crate::parallel::launch::{Launcher, Place};
use crate::parallel::rendezvous;

const RANK: &str = "ONEBIT_TEST_RANK";
const PORT: &str = "ONEBIT_TEST_PORT";
const CASE: &str = "ONEBIT_TEST_CASE";
const FOLDER: &str = "ONEBIT_TEST_FOLDER";
const RANKS: usize = 2;
const STEPS: u64 = 6;

/// What is tried: how ranks divide things, by which optimiser, with which gradients.
fn cases() -> Vec<(&'static str, TrainOptions)> {
    let with = |shard, optimizer, gradients| TrainOptions {
        world: RANKS,
        shard,
        optimizer,
        gradients,
        batch_size: 8,
        seq_len: 16,
        accumulation_steps: if gradients == Precision::Bf16 { 1 } else { 2 },
        max_steps: STEPS,
        // Moments of eight bits fall to either side of a step.
        lr: if optimizer == OptimizerKind::AdamW8bit {
            1e-4
        } else {
            3e-4
        },
        quant_warmup_steps: 2,
        quant_anneal_steps: 2,
        ..options()
    };
    use OptimizerKind::{AdamW, AdamW8bit, Muon};
    use Precision::{Bf16, F32};
    vec![
        ("whole", with(Sharding::None, AdamW, F32)),
        ("whole again", with(Sharding::None, AdamW, F32)),
        ("sharded", with(Sharding::Optimizer, AdamW, F32)),
        ("divided", with(Sharding::Parameters, AdamW, F32)),
        ("whole, bf16", with(Sharding::None, AdamW, Bf16)),
        ("sharded, bf16", with(Sharding::Optimizer, AdamW, Bf16)),
        ("divided, bf16", with(Sharding::Parameters, AdamW, Bf16)),
        ("whole, 8 bits", with(Sharding::None, AdamW8bit, F32)),
        ("sharded, 8 bits", with(Sharding::Optimizer, AdamW8bit, F32)),
        ("divided, 8 bits", with(Sharding::Parameters, AdamW8bit, F32)),
        ("whole, muon", with(Sharding::None, Muon, F32)),
    ]
}

/// Losses of the steps of a run as rank `world.rank()`, and a hash of weights and moments where it is the first.
fn steps(gpu: &Gpu, world: &World, options: &TrainOptions, directory: &Path) -> (Vec<f64>, String) {
    let mut inputs = wider(inputs(directory, &format!("rank-{}", world.rank()), options.clone()));
    // A head of its own, and one matrix in full precision.
    let mut config = inputs.network.config().clone();
    config.tie_word_embeddings = false;
    config.layer_modes[0].v = LinearMode::F16;
    inputs.network = Network::new(config, Device::cpu().unwrap(), 5).unwrap();
    let network = &mut inputs.network;
    let train = &tokens(directory, &format!("ranks-{}", world.rank()), 3000);
    let mut optimizer = Optimizer::new(options.optimizer, network.specs(), network.parameters());
    let mut run = CudaRun::new((gpu, world), (network, &[]), &optimizer, options, 0).unwrap();
    let order = WindowOrder::new(train.len(), options.seq_len, 3).unwrap();
    let (batch, own) = (options.batch_size as u64, options.accumulation_steps as u64);
    let (quant, lr) = (options.quant_schedule(), options.lr_schedule(STEPS));
    let mut losses = Vec::new();
    let mut told = |result: Option<StepResult>| {
        if let Some(result) = result {
            assert!(!result.skipped && !result.stop);
            losses.push(result.loss);
        }
    };
    for step in 0..STEPS {
        let batches = (0..own).map(|i| {
            let number = (step * own + i) * world.size() as u64 + world.rank() as u64;
            let windows = (0..batch).map(|w| order.window(number * batch + w));
            let (ids, targets) = super::super::batch::windows_ids(train, windows, options.seq_len)?;
            Ok((number, ids, targets))
        });
        let rates = crate::optimizer::Rates {
            lr: lr.at(step),
            weight_decay: options.weight_decay,
        };
        let numbers = (step, rates, quant.anneal(step));
        told(run.launch(options, numbers, batches, (false, false)).unwrap());
    }
    while let Some(result) = run.collect().unwrap() {
        told(Some(result));
    }
    run.download(network, &mut optimizer).unwrap();
    let mut hash = blake3::Hasher::new();
    for tensor in network.parameters() {
        hash.update(bytemuck::cast_slice(tensor.f32().unwrap()));
    }
    if world.is_first() {
        for stored in optimizer.state(network.specs()).unwrap() {
            match stored.values {
                crate::checkpoint::Values::F32(v) => hash.update(bytemuck::cast_slice(v)),
                crate::checkpoint::Values::I8(v) => hash.update(bytemuck::cast_slice(v)),
                crate::checkpoint::Values::U8(v) => hash.update(v),
            };
        }
    }
    (losses, hash.finalize().to_hex().to_string())
}

/// This process as a rank, if it is one: every case, told by files.
fn as_rank() -> bool {
    let (Ok(rank), Ok(port), Ok(folder)) = (env::var(RANK), env::var(PORT), env::var(FOLDER)) else {
        return false;
    };
    let rank: usize = rank.parse().unwrap();
    let place = Place {
        rank,
        local_rank: rank,
        size: RANKS,
        launcher: Launcher::Torchrun,
        host: Some("127.0.0.1".into()),
        port: port.parse().unwrap(),
    };
    let link = rendezvous::join(&place, &Default::default()).unwrap();
    let world = World::new((rank, rank, RANKS), link, None);
    let gpu = Gpu::open(rank).unwrap();
    for (name, options) in cases() {
        if env::var(CASE).is_ok_and(|case| case != name) {
            continue;
        }
        let told = steps(&gpu, &world, &options, Path::new(&folder));
        let path = Path::new(&folder).join(format!("{name} {rank}.json"));
        fs::write(path, serde_json::to_vec(&told).unwrap()).unwrap();
    }
    world.link().finish().unwrap();
    true
}

#[test]
fn ranks_on_gpus_are_one_rank_that_accumulates() {
    if as_rank() {
        return;
    }
    let Some(gpu) = gpu("ranks on GPUs") else { return };
    if gpu.properties().name != "emulated" && Gpu::open(1).is_err() {
        return println!("SKIPPED (one GPU): ranks on GPUs");
    }
    let dir = tempfile::tempdir().unwrap();
    let port = std::net::TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap()
        .port();
    let spawn = |rank: usize| {
        Command::new(env::current_exe().unwrap())
            .args([
                "run::tests::cuda_ranks::ranks_on_gpus_are_one_rank_that_accumulates",
                "--exact",
                "--nocapture",
            ])
            .envs([(RANK, rank.to_string()), (PORT, port.to_string())])
            .env(FOLDER, dir.path())
            .env("ONEBIT_EMULATOR_GPUS", RANKS.to_string())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap()
    };
    let ranks: Vec<Child> = (0..RANKS).map(spawn).collect();
    for (rank, child) in ranks.into_iter().enumerate() {
        let output = child.wait_with_output().unwrap();
        let text = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "rank {rank}: {text}");
    }
    let told = |name: &str| -> (Vec<f64>, String) {
        let of = |rank: usize| {
            let path = dir.path().join(format!("{name} {rank}.json"));
            serde_json::from_slice::<(Vec<f64>, String)>(&fs::read(path).unwrap()).unwrap()
        };
        let (first, others) = (of(0), of(1));
        assert_eq!(first.0, others.0, "{name}: losses differ between ranks");
        first
    };
    let (whole, again) = (told("whole"), told("whole again"));
    assert_eq!(whole, again, "equal runs have equal bytes");
    for kind in ["", ", bf16", ", 8 bits"] {
        for how in ["sharded", "divided"] {
            let (whole, found) = (told(&format!("whole{kind}")), told(&format!("{how}{kind}")));
            assert_eq!(whole, found, "{how}{kind} has other bytes than whole");
        }
    }
    for (name, options) in cases() {
        if options.shard != Sharding::None || options.gradients == Precision::Bf16 {
            continue;
        }
        let alone = TrainOptions {
            world: 1,
            accumulation_steps: RANKS * options.accumulation_steps,
            ..options
        };
        let (losses, _) = steps(&gpu, &World::single(), &alone, dir.path());
        let (found, _) = told(name);
        assert_eq!((losses.len(), found.len()), (STEPS as usize, STEPS as usize));
        let apart = losses.iter().zip(&found).map(|(a, b)| (a - b).abs());
        let worst = apart.fold(0.0, f64::max);
        assert!(worst < 1e-3, "{name}: {found:?}, alone {losses:?}");
        println!("{name}: at most {worst:.1e} apart");
    }
}
