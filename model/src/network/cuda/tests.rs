mod tables;

use onebit_autograd::Tape;
use onebit_engine::ops::cross_entropy::Likely;
use onebit_engine::{Device, rng::Key};

use super::*;
use crate::config::{LinearMode, presets};
use crate::network::{Dropout, DropoutRates, ForwardMode};

const BATCH: usize = 3;
const SEQ: usize = 40;
const TOKENS: usize = BATCH * SEQ;

fn gpu(test: &str) -> Option<Gpu> {
    match Gpu::open(0) {
        Ok(gpu) => Some(gpu),
        Err(error) => {
            println!("SKIPPED (no GPU): {test}; {error}");
            None
        }
    }
}

fn shape(recompute: bool) -> BatchShape {
    BatchShape {
        batch: BATCH,
        seq: SEQ,
        recompute,
        soft_phases: true,
        bf16_gradients: false,
    }
}

/// A small model with sub-norms, gated ReLU² and a tied head.
fn small() -> ModelConfig {
    let mut config = ModelConfig {
        vocab_size: 101,
        hidden_size: 64,
        intermediate_size: 96,
        num_hidden_layers: 2,
        num_attention_heads: 4,
        num_key_value_heads: 2,
        head_dim: 16,
        max_position_embeddings: SEQ,
        initializer_range: 0.2,
        ..presets::by_name("25m").unwrap().config
    };
    config.set_all_modes(LinearMode::Ternary);
    config
}

/// Models that between them use every option of the network.
fn variants() -> Vec<(&'static str, ModelConfig)> {
    let primer = ModelConfig {
        feed_forward: FeedForward::Relu2,
        qk_norm: true,
        residual_scaling: true,
        head_dim: 32,
        ..small()
    };
    let llama = ModelConfig {
        feed_forward: FeedForward::SwiGlu,
        sub_norms: false,
        tie_word_embeddings: false,
        num_key_value_heads: 4,
        ..small()
    };
    let mut mixed = small();
    mixed.layer_modes[0].k = LinearMode::F16;
    mixed.layer_modes[0].v = LinearMode::Int8;
    mixed.layer_modes[0].down = LinearMode::F16;
    mixed.layer_modes[1].o = LinearMode::Binary;
    mixed.layer_modes[1].up = LinearMode::Int4;
    mixed.layer_modes[1].gate = LinearMode::F16;
    let capped = ModelConfig {
        final_logit_softcapping: Some(2.0),
        ..small()
    };
    let mut all = vec![
        ("bitnet", small()),
        ("primer", primer),
        ("llama", llama),
        ("mixed", mixed),
        ("capped", capped),
    ];
    all.extend(tables::variants());
    all
}

fn network(config: &ModelConfig) -> Network {
    let mut network = Network::new(config.clone(), Device::cpu().unwrap(), 5).unwrap();
    // Norms that are not 1, so that what multiplies by them shows.
    let kinds: Vec<_> = network.specs().iter().map(|s| s.kind).collect();
    for (i, (tensor, kind)) in network.parameters_mut().iter_mut().zip(kinds).enumerate() {
        if kind == crate::config::TensorKind::Norm {
            let key = Key::new(7, 1, i as u64);
            for (j, value) in tensor.f32_mut().unwrap().iter_mut().enumerate() {
                *value = 1.0 + 0.3 * key.normal(j as u64);
            }
        }
    }
    network
}

fn batch(config: &ModelConfig, number: u64) -> (Vec<u32>, Vec<u32>) {
    let key = Key::new(11, 2, number);
    // Few ids are frequent, as in text.
    let id = |i: usize| {
        let id = key.below(i as u64, config.vocab_size as u32);
        if id.is_multiple_of(3) { 7 } else { id }
    };
    ((0..TOKENS).map(id).collect(), (1..=TOKENS).map(id).collect())
}

/// Some at each place.
const RATES: DropoutRates = DropoutRates {
    word: 0.15,
    input: 0.1,
    attention: 0.15,
    hidden: 0.2,
    output: 0.25,
    depth: 0.5,
};

/// Loss and gradients on the CPU.
fn on_the_cpu(
    network: &Network,
    number: u64,
    anneal: f32,
    dropout: Option<CudaDropout>,
    terms: LossTerms,
) -> (f64, Vec<Vec<f32>>) {
    taught_on_the_cpu(network, number, anneal, dropout, terms, (&[], 0.0))
}

fn taught_on_the_cpu(
    network: &Network,
    number: u64,
    anneal: f32,
    dropout: Option<CudaDropout>,
    terms: LossTerms,
    (teachers, share): (&[Network], f32),
) -> (f64, Vec<Vec<f32>>) {
    let (ids, targets) = batch(network.config(), number);
    let tensor = |ids: Vec<u32>| Tensor::from_u32(network.device(), [TOKENS], ids).unwrap();
    let mode = ForwardMode {
        dropout: dropout.map(|d| Dropout {
            rates: d.rates,
            seed: d.seed,
            step: number,
        }),
        ..ForwardMode::evaluation(anneal)
    };
    let tape = Tape::new();
    let leaves = network.leaves(&tape);
    let batch = (&tensor(ids), &tensor(targets));
    let likely = (!teachers.is_empty()).then(|| Likely {
        probabilities: Network::likely(teachers, batch.0, SEQ).unwrap(),
        share,
    });
    let (objective, losses) = network.loss(&leaves, batch, SEQ, mode, (terms, likely)).unwrap();
    let mut gradients = tape.backward(&objective).unwrap();
    let gradients = leaves
        .iter()
        .map(|leaf| gradients.take(leaf).unwrap().f32().unwrap().to_vec());
    (losses.nll, gradients.collect())
}

fn on_the_gpu(cuda: &CudaNetwork, number: u64, anneal: f32, accumulate: bool) -> (f64, Vec<Vec<f32>>) {
    let (ids, targets) = batch(&cuda.config, number);
    let mut host = cuda.host_batch().unwrap();
    host.fill((&ids, &targets), number, 0, anneal).unwrap();
    cuda.send(&host).unwrap();
    cuda.forward_backward(Stage::of(anneal), accumulate).unwrap();
    results(cuda)
}

fn results(cuda: &CudaNetwork) -> (f64, Vec<Vec<f32>>) {
    let losses = cuda.gpu.download(cuda.losses()).unwrap();
    let mut gradients = cuda.gpu.download(cuda.gradients()).unwrap();
    if let Some(narrow) = cuda.matrix_gradients() {
        gradients.extend(cuda.gpu.download(narrow).unwrap().iter().map(|g| g.to_f32()));
    }
    let specs = cuda.config.tensors();
    let gradients = (0..specs.len()).map(|i| gradients[cuda.layout.range(i)].to_vec());
    (f64::from(losses[0]) / TOKENS as f64, gradients.collect())
}

fn distance(a: &[f32], b: &[f32]) -> f64 {
    let norm = |x: &mut dyn Iterator<Item = f64>| x.map(|x| x * x).sum::<f64>().sqrt();
    let difference = norm(&mut a.iter().zip(b).map(|(a, b)| f64::from(a - b)));
    difference / norm(&mut b.iter().map(|&b| f64::from(b))).max(1e-12)
}

#[test]
fn losses_and_gradients_are_those_of_the_cpu() {
    let Some(gpu) = gpu("gradients of the network") else {
        return;
    };
    for (name, config) in variants() {
        let network = network(&config);
        let terms = |smoothing, z_loss| LossTerms { smoothing, z_loss };
        let everywhere = CudaDropout { rates: RATES, seed: 3 };
        for (anneal, dropout, terms) in [
            (0.0, None, terms(0.0, 0.0)),
            (0.6, None, terms(0.1, 1e-3)),
            (1.0, None, terms(0.0, 1e-2)),
            (1.0, Some(everywhere), terms(0.0, 0.0)),
        ] {
            let cuda = CudaNetwork::new(&gpu, &network, shape(false), 1, (dropout, terms)).unwrap();
            let (expected, gradients) = on_the_cpu(&network, 4, anneal, dropout, terms);
            let (loss, found) = on_the_gpu(&cuda, 4, anneal, false);
            assert!(
                (loss - expected).abs() < 0.01 * expected,
                "{name} at {anneal}: loss {loss}, on the CPU {expected}"
            );
            let mut worst = (0.0, "");
            for ((spec, found), expected) in network.specs().iter().zip(&found).zip(&gradients) {
                let distance = distance(found, expected);
                if distance > worst.0 {
                    worst = (distance, &spec.name);
                }
                // Rounding an input to the other neighbour among 255 is a change of 0.4 % of the largest, which bf16 causes now and then.
                assert!(
                    distance < 0.08,
                    "{name} at {anneal}: {} differs by {distance:.4}",
                    spec.name
                );
            }
            println!("{name} at {anneal}: loss {loss:.5} ({expected:.5}), worst gradient {worst:.4?}");
        }
    }
}

#[test]
fn an_evaluation_drops_nothing() {
    let Some(gpu) = gpu("evaluation of a run with dropout") else {
        return;
    };
    let network = network(&small());
    let everywhere = CudaDropout { rates: RATES, seed: 3 };
    let (ids, targets) = batch(network.config(), 4);
    let losses = [None, Some(everywhere)].map(|dropout| {
        let cuda = CudaNetwork::new(&gpu, &network, shape(false), 1, (dropout, LossTerms::default())).unwrap();
        let mut host = cuda.host_batch().unwrap();
        host.fill((&ids, &targets), 4, 0, 1.0).unwrap();
        cuda.send(&host).unwrap();
        cuda.evaluate(Stage::Hard).unwrap();
        gpu.download(cuda.token_losses()).unwrap()
    });
    assert_eq!(losses[0], losses[1]);
}

#[test]
fn what_teachers_find_likely_is_learned_as_on_the_cpu() {
    let Some(gpu) = gpu("teachers") else { return };
    let mut plain = small();
    plain.set_all_modes(LinearMode::F16);
    // A cap of each's own, which what it thinks and what is learned of it are behind.
    plain.final_logit_softcapping = Some(1.5);
    let learner = network(&ModelConfig {
        final_logit_softcapping: Some(3.0),
        ..small()
    });
    // One in full precision, one ternary and of another shape.
    let mut other = small();
    other.num_hidden_layers = 1;
    other.layer_modes.truncate(1);
    let teachers = [
        Network::new(plain.clone(), learner.device(), 71).unwrap(),
        Network::new(other.clone(), learner.device(), 72).unwrap(),
    ];
    let (terms, share) = (LossTerms::default(), 0.75);
    let cuda = CudaNetwork::new(&gpu, &learner, shape(false), 1, (None, terms)).unwrap();
    let needed = CudaTeachers::bytes_needed(&[plain, other], &cuda.shape()).unwrap();
    if gpu.properties().name.contains("emulated") {
        // Other tests take memory and give it back meanwhile: one undisturbed look is enough.
        let taken = [(); 8].map(|()| {
            let before = gpu.free_memory().unwrap();
            let _taught = CudaTeachers::new(&cuda, &teachers, share).unwrap();
            before.saturating_sub(gpu.free_memory().unwrap())
        });
        let planned = needed / 2..=needed + needed / 50;
        assert!(
            taken.iter().any(|taken| planned.contains(taken)),
            "{taken:?} bytes of {needed}"
        );
    }
    let taught = CudaTeachers::new(&cuda, &teachers, share).unwrap();
    for anneal in [0.0, 1.0] {
        let (expected, gradients) = taught_on_the_cpu(&learner, 4, anneal, None, terms, (&teachers, share));
        let (ids, targets) = batch(&cuda.config, 4);
        let mut host = cuda.host_batch().unwrap();
        host.fill((&ids, &targets), 4, 0, anneal).unwrap();
        cuda.send(&host).unwrap();
        taught.send(&host).unwrap();
        cuda.forward_backward_taught::<NetworkError>(Stage::of(anneal), false, Some(&taught), &mut |_| Ok(()))
            .unwrap();
        let (loss, found) = results(&cuda);
        assert!(
            (loss - expected).abs() < 0.01 * expected,
            "loss {loss}, on the CPU {expected}"
        );
        for ((spec, found), expected) in learner.specs().iter().zip(&found).zip(&gradients) {
            let distance = distance(found, expected);
            assert!(distance < 0.08, "{} differs by {distance:.4}", spec.name);
        }
        // Without teachers the gradients are others.
        let (_, alone) = on_the_gpu(&cuda, 4, anneal, false);
        assert!(distance(&alone[0], &gradients[0]) > 0.2);
    }
    let mut wide = small();
    wide.vocab_size += 1;
    let wide = Network::new(wide, learner.device(), 1).unwrap();
    assert!(CudaTeachers::new(&cuda, &[wide], 0.5).is_err());
}

#[test]
fn equal_runs_give_equal_bytes_however_they_are_launched() {
    let Some(gpu) = gpu("equal bytes") else { return };
    let network = network(&variants()[1].1);
    let dropout = Some(CudaDropout { rates: RATES, seed: 1 });
    for anneal in [0.0, 0.5, 1.0] {
        let make =
            |recompute| CudaNetwork::new(&gpu, &network, shape(recompute), 1, (dropout, LossTerms::default())).unwrap();
        let cuda = make(false);
        let first = on_the_gpu(&cuda, 2, anneal, false);
        assert_eq!(first, on_the_gpu(&cuda, 2, anneal, false), "a second run at {anneal}");
        let graph = gpu.record(|| launches(&cuda, Stage::of(anneal))).unwrap();
        on_the_gpu(&cuda, 3, anneal, false);
        let mut host = cuda.host_batch().unwrap();
        let (ids, targets) = batch(&cuda.config, 2);
        host.fill((&ids, &targets), 2, 0, anneal).unwrap();
        cuda.send(&host).unwrap();
        graph.launch().unwrap();
        assert_eq!(first, results(&cuda), "a recording at {anneal}");
        assert_eq!(
            first,
            on_the_gpu(&make(true), 2, anneal, false),
            "with recomputation at {anneal}"
        );
    }
}

fn launches(cuda: &CudaNetwork, stage: Stage) -> onebit_kernels_cuda::Result<()> {
    cuda.forward_backward(stage, false).map_err(|error| match error {
        NetworkError::Cuda(error) => error,
        other => panic!("{other}"),
    })
}

#[test]
fn gradients_of_micro_batches_add_up() {
    let Some(gpu) = gpu("accumulation") else { return };
    let network = network(&small());
    let cuda = CudaNetwork::new(&gpu, &network, shape(false), 1, (None, LossTerms::default())).unwrap();
    let (_, first) = on_the_gpu(&cuda, 1, 1.0, false);
    let (_, second) = on_the_gpu(&cuda, 2, 1.0, false);
    on_the_gpu(&cuda, 1, 1.0, false);
    let (_, sum) = on_the_gpu(&cuda, 2, 1.0, true);
    for ((a, b), sum) in first.iter().zip(&second).zip(&sum) {
        let expected: Vec<f32> = a.iter().zip(b).map(|(a, b)| a + b).collect();
        assert!(distance(sum, &expected) < 1e-5);
    }
}

/// The same sums, rounded once; and one step's only.
#[test]
fn gradients_in_bf16_are_those_in_f32_rounded() {
    let Some(gpu) = gpu("gradients in bf16") else { return };
    for (name, config) in variants() {
        let network = network(&config);
        let narrow = |recompute| BatchShape {
            bf16_gradients: true,
            ..shape(recompute)
        };
        for anneal in [0.0, 0.5, 1.0] {
            let make = |shape| CudaNetwork::new(&gpu, &network, shape, 1, (None, LossTerms::default())).unwrap();
            let (loss, expected) = on_the_gpu(&make(shape(false)), 2, anneal, false);
            let (found_loss, found) = on_the_gpu(&make(narrow(true)), 2, anneal, false);
            assert_eq!(loss, found_loss);
            for ((spec, expected), found) in network.specs().iter().zip(&expected).zip(&found) {
                let is_matrix = matches!(spec.kind, crate::config::TensorKind::Linear(_));
                let rounded = |g: &f32| if is_matrix { bf16::from_f32(*g).to_f32() } else { *g };
                let expected: Vec<f32> = expected.iter().map(rounded).collect();
                assert_eq!(*found, expected, "{name} at {anneal}: {}", spec.name);
            }
        }
        let refused = CudaNetwork::new(&gpu, &network, narrow(false), 2, (None, LossTerms::default())).unwrap_err();
        assert!(refused.to_string().contains("bf16 gradients = 2"), "{refused}");
    }
}

#[test]
fn a_plan_needs_no_gpu_and_refuses_what_has_no_kernel() {
    for preset in presets::all() {
        let shape = BatchShape {
            batch: 4,
            seq: 64,
            recompute: false,
            soft_phases: true,
            bf16_gradients: false,
        };
        let plan = CudaNetwork::plan(&preset.config, &shape, 1).unwrap();
        assert!(plan.weights >= 4 * preset.config.parameter_count(), "{}", preset.name);
        let less = CudaNetwork::plan(
            &preset.config,
            &BatchShape {
                recompute: true,
                ..shape
            },
            1,
        )
        .unwrap();
        assert!(less.activations <= plan.activations, "{}", preset.name);
        let narrow = BatchShape {
            bf16_gradients: true,
            ..shape
        };
        let narrow = CudaNetwork::plan(&preset.config, &narrow, 1).unwrap();
        assert!(narrow.gradients < plan.gradients, "{}", preset.name);
    }
    let odd = ModelConfig {
        hidden_size: 72,
        ..small()
    };
    let refused = CudaNetwork::plan(&odd, &shape(false), 1).unwrap_err().to_string();
    assert!(refused.contains("hidden_size = 72"), "{refused}");
}
