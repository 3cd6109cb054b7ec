//! Steps that go wrong: skipped, counted, stopped after, gone back from.

use onebit_engine::ops::cross_entropy::Losses;

use super::*;

impl Trainer {
    /// The losses that a micro-batch is said to have.
    pub(in crate::run) fn tamper(&self, step: u64, index: u64, losses: Losses) -> Losses {
        let [bad, high] = &self.tampered;
        let nll = match (bad.contains(&step), high.contains(&index)) {
            (true, _) => f64::NAN,
            (_, true) => losses.nll + 20.0,
            _ => return losses,
        };
        Losses {
            nll,
            smoothed: nll,
            ..losses
        }
    }
}

/// A run in which the loss of `bad` steps is not finite: what it says, and its metrics.
fn with_bad_steps(
    directory: &Path,
    name: &str,
    options: TrainOptions,
    bad: std::ops::Range<u64>,
) -> (crate::Result<Outcome>, String) {
    let mut trainer = Trainer::new(inputs(directory, name, options), true, &mut |_| ()).unwrap();
    trainer.tampered[0] = bad;
    let outcome = trainer.run(&AtomicBool::new(false), &mut |_| ());
    let metrics = fs::read_to_string(directory.join(name).join("metrics.jsonl")).unwrap();
    (outcome, metrics)
}

fn lines(metrics: &str) -> Vec<serde_json::Value> {
    metrics
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect()
}

#[test]
fn bad_steps_change_nothing_and_are_counted() {
    let dir = tempfile::tempdir().unwrap();
    for optimizer in OPTIMIZERS {
        let options = TrainOptions {
            optimizer,
            max_skipped: 3,
            save_every: 6,
            ..options()
        };
        let name = format!("two-{optimizer:?}");
        let (outcome, metrics) = with_bad_steps(dir.path(), &name, options.clone(), 5..7);
        assert_eq!(outcome.unwrap(), Outcome::Finished);
        let skipped: Vec<u64> = lines(&metrics)
            .iter()
            .filter(|line| line.get("skipped").is_some())
            .map(|line| {
                assert!(line["loss"].is_null() && line["skipped"] == "loss", "{line}");
                line["step"].as_u64().unwrap()
            })
            .collect();
        assert_eq!(skipped, [6, 7]);
        let found = checkpoint::latest(&dir.path().join(&name).join("checkpoints"))
            .unwrap()
            .unwrap();
        assert_eq!((found.state.guard.skipped, found.state.guard.skipped_in_a_row), (2, 0));
        // The run that was interrupted between the two is the same.
        let parted = format!("parted-{optimizer:?}");
        let mut trainer = Trainer::new(inputs(dir.path(), &parted, options.clone()), false, &mut |_| ()).unwrap();
        trainer.tampered[0] = 5..7;
        let stop = AtomicBool::new(false);
        trainer
            .run(&stop, &mut |event| {
                if let Event::Step(m) = event {
                    stop.store(m.step == 6, std::sync::atomic::Ordering::Relaxed);
                }
            })
            .unwrap();
        drop(trainer);
        let found = checkpoint::latest(&dir.path().join(&parted).join("checkpoints"))
            .unwrap()
            .unwrap();
        assert_eq!((found.state.step, found.state.guard.skipped_in_a_row), (6, 1));
        with_bad_steps(dir.path(), &parted, options, 5..7).0.unwrap();
        assert!(bytes(dir.path(), &parted) == bytes(dir.path(), &name), "{optimizer:?}");
    }
}

#[test]
fn too_many_bad_steps_stop_the_run_at_its_last_good_state() {
    let dir = tempfile::tempdir().unwrap();
    let options = TrainOptions {
        max_skipped: 3,
        save_every: 0,
        ..options()
    };
    let (outcome, _) = with_bad_steps(dir.path(), "run", options.clone(), 5..99);
    let error = outcome.unwrap_err();
    assert!(
        matches!(
            &error,
            TrainError::NotFinite {
                step: 8,
                what: "loss",
                skipped: 2,
                ..
            }
        ),
        "{error}"
    );
    assert!(error.to_string().contains("step-5"), "{error}");
    let found = checkpoint::latest(&dir.path().join("run/checkpoints"))
        .unwrap()
        .unwrap();
    assert_eq!((found.state.step, found.state.guard.skipped), (5, 0));
    // From there the run goes on as if those steps had not been tried.
    run(dir.path(), "run", options.clone(), 0, true).unwrap();
    run(dir.path(), "whole", options, 0, false).unwrap();
    assert!(bytes(dir.path(), "run") == bytes(dir.path(), "whole"));
}

fn guarded() -> TrainOptions {
    TrainOptions {
        max_steps: 130,
        quant_warmup_steps: 0,
        quant_anneal_steps: 0,
        accumulation_steps: 1,
        save_every: 20,
        eval_every: 0,
        keep: 2,
        spike_guard: 5.0,
        ..still(options())
    }
}

/// Three high losses in a row: the run goes back to step 80 and on from there with the data behind the spike's.
#[test]
fn a_spike_takes_the_run_back_and_on_with_other_data() {
    let dir = tempfile::tempdir().unwrap();
    let spiked = |name: &str, stop_at: u64, after: usize| {
        let mut trainer = Trainer::new(inputs(dir.path(), name, guarded()), true, &mut |_| ()).unwrap();
        // By micro-batch, as bad data is: the steps that see them after the rollback are others.
        trainer.tampered[1] = 90..94;
        let stop = AtomicBool::new(false);
        let mut rollbacks = Vec::new();
        let outcome = trainer
            .run(&stop, &mut |event| match event {
                Event::RolledBack(rollback) => {
                    rollbacks.push(rollback.clone());
                    // Whoever reads it now finds the steps up to there, and nothing of those behind.
                    let now = fs::read_to_string(dir.path().join(name).join("metrics.jsonl")).unwrap();
                    let last = lines(&now).last().map(|line| line["step"].clone());
                    assert_eq!(last, Some(rollback.step.into()));
                }
                Event::Step(m) if m.step == stop_at && rollbacks.len() == after => {
                    stop.store(true, std::sync::atomic::Ordering::Relaxed)
                }
                _ => {}
            })
            .unwrap();
        (outcome, rollbacks)
    };
    let (outcome, rollbacks) = spiked("run", 0, 0);
    assert_eq!((outcome, rollbacks.len()), (Outcome::Finished, 1));
    assert_eq!((rollbacks[0].step, rollbacks[0].rolled_back_from), (80, 93));
    let metrics = fs::read_to_string(dir.path().join("run/metrics.jsonl")).unwrap();
    let steps: Vec<u64> = lines(&metrics)
        .iter()
        .filter(|line| line.get("grad_norm").is_some())
        .map(|line| line["step"].as_u64().unwrap())
        .collect();
    assert_eq!(steps, (1..=130).collect::<Vec<_>>());
    assert!(lines(&metrics).iter().any(|line| line["rolled_back_from"] == 93));
    let found = checkpoint::latest(&dir.path().join("run/checkpoints"))
        .unwrap()
        .unwrap();
    assert_eq!((found.state.guard.rollbacks, found.state.guard.data_offset), (1, 13));
    // Interrupted before the spike, in it, and after the rollback.
    for (at, after) in [(85, 0), (92, 0), (88, 1), (81, 1)] {
        let name = format!("parted-{at}-{after}");
        assert_eq!(spiked(&name, at, after).0, Outcome::Interrupted);
        spiked(&name, 0, 0);
        assert!(bytes(dir.path(), &name) == bytes(dir.path(), "run"), "{name}");
    }
}

#[test]
fn a_run_that_spikes_again_and_again_ends() {
    let dir = tempfile::tempdir().unwrap();
    let mut trainer = Trainer::new(inputs(dir.path(), "run", guarded()), false, &mut |_| ()).unwrap();
    trainer.tampered[1] = 90..9999;
    let error = trainer.run(&AtomicBool::new(false), &mut |_| ()).unwrap_err();
    assert!(matches!(error, TrainError::Diverged { times: 3, .. }), "{error}");
}

/// Before the first checkpoint a spike is borne, and taken for what losses are from then on.
#[test]
fn a_spike_without_a_checkpoint_changes_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let options = TrainOptions {
        save_every: 500,
        ..guarded()
    };
    let mut trainer = Trainer::new(inputs(dir.path(), "run", options), false, &mut |_| ()).unwrap();
    trainer.tampered[1] = 90..130;
    let outcome = trainer.run(&AtomicBool::new(false), &mut |event| {
        assert!(!matches!(event, Event::RolledBack(_)));
    });
    assert_eq!(outcome.unwrap(), Outcome::Finished);
    assert_eq!(trainer.guard.rollbacks, 0);
}
