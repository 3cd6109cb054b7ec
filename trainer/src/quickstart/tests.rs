use std::sync::atomic::AtomicBool;

use super::*;
use crate::evaluate::{StoryTeller, score_stories};

/// The whole road in a few steps: too few to tell a story, enough to see that every part of it is there and that it learns.
#[test]
fn a_short_quickstart_goes_the_whole_way() {
    let dir = tempfile::tempdir().unwrap();
    let mut prepared = prepare(
        dir.path(),
        Device::cpu().unwrap(),
        1,
        preset("quickstart").unwrap(),
        1000,
    )
    .unwrap();
    assert!(prepared.tokenizer.vocab_size() <= prepared.preset.config.vocab_size);
    let steps = steps_within(&prepared, 0.05, &dir.path().join("scratch")).unwrap();
    assert!(steps >= 20);
    prepared.inputs.options = options(&prepared.preset, 40, 1);
    let mut trainer = Trainer::new(prepared.inputs, false, &mut |_| ()).unwrap();
    trainer.run(&AtomicBool::new(false), &mut |_| ()).unwrap();
    let (model, verdict) = judge(trainer.network(), &prepared.tokenizer, &prepared.grammar, dir.path(), 1).unwrap();
    let untrained = Network::new(trainer.network().config().clone(), Device::cpu().unwrap(), 1).unwrap();
    let (_, before) = judge(
        &untrained,
        &prepared.tokenizer,
        &prepared.grammar,
        &dir.path().join("untrained"),
        1,
    )
    .unwrap();
    println!(
        "40 steps: {:.3} bits per byte, untrained {:.3}, entropy {:.3}",
        verdict.bpb, before.bpb, verdict.entropy_bpb
    );
    assert!(verdict.bpb < 0.8 * before.bpb);
    assert!((verdict.entropy_bpb / prepared.grammar.entropy_bits_per_byte() - 1.0).abs() < 0.02);
    let params = sampling_params(&prepared.tokenizer);
    let teller = StoryTeller {
        model: &model,
        isa: onebit_engine::Isa::best(),
        tokenizer: &prepared.tokenizer,
        params: &params,
    };
    let suite = score_stories(teller, &prepared.grammar, 1).unwrap();
    assert_eq!(
        (suite.bpb, suite.entropy_bpb, suite.valid_fraction),
        (verdict.bpb, verdict.entropy_bpb, verdict.valid_fraction)
    );
    // By chance half; forty steps are enough for some of the words.
    let pairs: usize = suite.slots.values().map(|slot| slot.pairs).sum();
    assert!(pairs > 350 && (0.4..1.0).contains(&suite.agreement), "{suite:?}");
    assert!(model.bytes().total() < 4 * model.config().parameter_count() as usize / 3);
}

/// The recipe of each preset is one that a run takes, and a longer run has more to read.
#[test]
fn every_preset_has_a_recipe() {
    for name in PRESETS {
        let preset = preset(name).unwrap();
        options(&preset, 1000, 1).validate().unwrap();
        assert!(preset.training.seq_len <= preset.config.max_position_embeddings);
        let timed = name == TIMED;
        let expected = |stories| if timed { TRAINING_STORIES } else { stories };
        assert_eq!(stories(&preset, None), TRAINING_STORIES);
        assert_eq!(stories(&preset, Some(1)), TRAINING_STORIES);
        assert_eq!(
            stories(&preset, Some(2000)),
            expected(2000 * preset.training.batch_size)
        );
        assert_eq!(stories(&preset, Some(u64::MAX)), expected(MOST_STORIES));
    }
    assert!(preset("2b4t").unwrap_err().to_string().contains("stories-3m"));
}
