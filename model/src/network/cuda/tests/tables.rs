//! Embedding and head in modes of their own.

use super::*;

/// Every mode of embedding and of head, and int4 linears beside others, in rows whose last group of 32 columns is not whole.
pub(super) fn variants() -> Vec<(&'static str, ModelConfig)> {
    let with = |embedding, head| {
        let mut config = ModelConfig {
            hidden_size: 80,
            intermediate_size: 112,
            // Longer rows: scores as large as those of the others, and so errors of bf16 in them.
            initializer_range: 0.15,
            ..small()
        };
        config.tie_word_embeddings = embedding == head;
        (config.embedding_mode, config.head_mode) = (embedding, head);
        config
    };
    let mut groups = with(LinearMode::Ternary, LinearMode::Int4);
    groups.layer_modes[0].k = LinearMode::Int4;
    groups.layer_modes[0].down = LinearMode::Int4;
    groups.layer_modes[1].gate = LinearMode::Int8;
    groups.layer_modes[1].up = LinearMode::Int4;
    groups.layer_modes[1].q = LinearMode::Int4;
    groups.layer_modes[1].k = LinearMode::F16;
    groups.layer_modes[1].v = LinearMode::Int4;
    vec![
        ("int4 everywhere", {
            let mut config = with(LinearMode::Int4, LinearMode::Int4);
            config.set_all_modes(LinearMode::Int4);
            config
        }),
        ("ternary and int4 tables", groups),
        ("int8 and binary tables", with(LinearMode::Int8, LinearMode::Binary)),
        ("int4 and ternary tables", with(LinearMode::Int4, LinearMode::Ternary)),
        ("int8 table", with(LinearMode::Int8, LinearMode::Int8)),
    ]
}

/// A teacher has its map from the first step, whatever the learner's phase.
#[test]
fn a_teacher_of_other_modes_is_hard_from_the_start() {
    let Some(gpu) = gpu("a teacher of every mode") else {
        return;
    };
    let learner = network(&small());
    let terms = LossTerms::default();
    let cuda = CudaNetwork::new(&gpu, &learner, shape(false), 1, (None, terms)).unwrap();
    let teachers = [network(&variants()[1].1)];
    let taught = CudaTeachers::new(&cuda, &teachers, 0.5).unwrap();
    let (expected, gradients) = taught_on_the_cpu(&learner, 4, 0.0, None, terms, (&teachers, 0.5));
    let (ids, targets) = batch(&cuda.config, 4);
    let mut host = cuda.host_batch().unwrap();
    host.fill((&ids, &targets), 4, 0, 0.0).unwrap();
    cuda.send(&host).unwrap();
    taught.send(&host).unwrap();
    cuda.forward_backward_taught::<NetworkError>(Stage::Full, false, Some(&taught), &mut |_| Ok(()))
        .unwrap();
    let (loss, found) = results(&cuda);
    assert!((loss - expected).abs() < 0.01 * expected, "{loss}, not {expected}");
    for ((spec, found), expected) in learner.specs().iter().zip(&found).zip(&gradients) {
        let distance = distance(found, expected);
        assert!(distance < 0.08, "{} differs by {distance:.4}", spec.name);
    }
    // Another is that of the same teacher before it was quantised.
    let mut plain = teachers[0].config().clone();
    plain.set_all_modes(LinearMode::F16);
    (plain.embedding_mode, plain.head_mode) = (LinearMode::F16, LinearMode::F16);
    let plain = [teachers[0].with_map(plain).unwrap()];
    let (_, other) = taught_on_the_cpu(&learner, 4, 0.0, None, terms, (&plain, 0.5));
    let (near, far) = (distance(&found[0], &gradients[0]), distance(&found[0], &other[0]));
    assert!(2.0 * near < far, "{near} and {far}");
}

/// Tables in full precision take nothing, and the scales of others are all that they take.
#[test]
fn tables_cost_their_scales() {
    let plan = |config: &ModelConfig| CudaNetwork::plan(config, &shape(false), 1).unwrap();
    let with = |embedding, head| {
        let mut config = small();
        (config.vocab_size, config.tie_word_embeddings) = (4096, false);
        (config.embedding_mode, config.head_mode) = (embedding, head);
        plan(&config)
    };
    let plain = with(LinearMode::F16, LinearMode::F16);
    let rows = with(LinearMode::Int8, LinearMode::Ternary);
    let groups = with(LinearMode::Int4, LinearMode::Int4);
    assert_eq!(rows.activations, plain.activations);
    // An f32 a row of both; an f32 for each of two groups a row. The counts of one tensor more are less than the arena's grain.
    let more = |plan: &CudaMemory| plan.products - plain.products;
    assert!((32768..=32768 + 1024).contains(&more(&rows)), "{}", more(&rows));
    assert!((65536..=65536 + 1024).contains(&more(&groups)), "{}", more(&groups));
}
