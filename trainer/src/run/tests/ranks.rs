//! Runs of several ranks, as threads: the same run as one rank's that accumulates as many micro-batches.

use std::sync::Mutex;

use super::*;
use crate::options::Sharding;
use crate::parallel::threads;

/// The token files are written by one rank at a time.
static FILES: Mutex<()> = Mutex::new(());

/// What `then` makes of the trainer of each of `n` ranks.
fn on_ranks<T: Send>(
    directory: &Path,
    name: &str,
    (n, options): (usize, TrainOptions),
    then: impl Fn(usize, crate::Result<Trainer>) -> T + Sync,
) -> Vec<T> {
    threads::ranks(n, |world| {
        let rank = world.rank();
        let mut inputs = {
            let _one = FILES.lock().unwrap();
            inputs(directory, name, options.clone())
        };
        inputs.world = world;
        then(rank, Trainer::new(inputs, true, &mut |_| ()))
    })
}

/// Runs to the end on `n` ranks, or until, some steps after `stop_at`, the last rank is asked to stop.
fn run_on(directory: &Path, name: &str, n: usize, options: TrainOptions, stop_at: u64) -> Vec<(Outcome, u64)> {
    let stops: Vec<AtomicBool> = (0..n).map(|_| AtomicBool::new(false)).collect();
    on_ranks(directory, name, (n, options), |rank, trainer| {
        let mut trainer = trainer.unwrap();
        let outcome = trainer.run(&stops[rank], &mut |event| {
            assert_eq!(rank, 0, "only rank 0 tells");
            if let Event::Step(m) = event
                && m.step == stop_at
            {
                stops[n - 1].store(true, Ordering::Relaxed);
            }
        });
        (outcome.unwrap(), trainer.steps_done())
    })
}

/// `all` micro-batches a step, in shares of `n` ranks.
fn shared(all: usize, n: usize) -> TrainOptions {
    TrainOptions {
        accumulation_steps: all / n,
        precision: Precision::F32,
        ..options()
    }
}

/// The loss of every step, and of every validation.
fn losses(directory: &Path, name: &str) -> Vec<f64> {
    let metrics = fs::read_to_string(directory.join(name).join("metrics.jsonl")).unwrap();
    let lines = metrics
        .lines()
        .map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap());
    lines
        .filter_map(|line| line.get("loss").or(line.get("val_loss"))?.as_f64())
        .collect()
}

#[test]
fn ranks_make_the_run_of_one_that_accumulates() {
    let dir = tempfile::tempdir().unwrap();
    let same = |name: &str, other: &str| bytes(dir.path(), name) == bytes(dir.path(), other);
    run_on(dir.path(), "one", 1, shared(2, 1), 0);
    // Where each rank has one micro-batch even the order of the sums is the same.
    for name in ["two", "two again"] {
        let ends = run_on(dir.path(), name, 2, shared(2, 2), 0);
        assert_eq!(ends, [(Outcome::Finished, 24); 2]);
        assert!(same("one", name), "{name}");
    }
    run_on(dir.path(), "four", 1, shared(4, 1), 0);
    run_on(dir.path(), "four of four", 4, shared(4, 4), 0);
    assert!(same("four", "four of four"));
    // In another order they are the same but for rounding, and the same from run to run.
    run_on(dir.path(), "four of two", 2, shared(4, 2), 0);
    run_on(dir.path(), "four of two again", 2, shared(4, 2), 0);
    assert!(same("four of two", "four of two again"));
    let [one, two] = ["four", "four of two"].map(|name| losses(dir.path(), name));
    assert_eq!(one.len(), two.len());
    for (a, b) in one.iter().zip(&two) {
        assert!((a - b).abs() < 1e-3, "{a} {b}");
    }
    // It is no matter of what is computed: another number of micro-batches is another run.
    assert!(!same("one", "four"));
}

#[test]
fn twice_the_batch_is_two_ranks() {
    let dir = tempfile::tempdir().unwrap();
    let plain = |batch_size, accumulation_steps| TrainOptions {
        batch_size,
        accumulation_steps,
        precision: Precision::F32,
        max_steps: 50,
        // Through all phases; of so small a model a few trits that round the other way show at higher rates.
        lr: 1e-3,
        quant_warmup_steps: 20,
        quant_anneal_steps: 20,
        ..still(options())
    };
    run_on(dir.path(), "one", 1, plain(8, 1), 0);
    run_on(dir.path(), "two", 2, plain(4, 1), 0);
    let [one, two] = ["one", "two"].map(|name| losses(dir.path(), name));
    assert_eq!((one.len(), two.len()), (58, 58));
    for (i, (a, b)) in one.iter().zip(&two).enumerate() {
        assert!((a - b).abs() < 1e-3, "{i}: {a} {b}");
    }
}

/// The newest checkpoint's files but for the options, which say how many ranks there were.
fn checkpointed(directory: &Path, name: &str) -> [Vec<u8>; 2] {
    let found = checkpoint::latest(&directory.join(name).join("checkpoints"))
        .unwrap()
        .unwrap();
    ["model.safetensors", "optimizer.safetensors"].map(|file| fs::read(found.path.join(file)).unwrap())
}

#[test]
fn divided_moments_change_no_byte() {
    let dir = tempfile::tempdir().unwrap();
    for optimizer in OPTIMIZERS {
        let options = |shard| TrainOptions {
            optimizer,
            shard,
            ..shared(3, 3)
        };
        let name = |what: &str| format!("{what}-{optimizer:?}");
        run_on(dir.path(), &name("whole"), 3, options(Sharding::None), 0);
        run_on(dir.path(), &name("divided"), 3, options(Sharding::Optimizer), 0);
        assert!(bytes(dir.path(), &name("whole")) == bytes(dir.path(), &name("divided")));
        assert!(checkpointed(dir.path(), &name("whole")) == checkpointed(dir.path(), &name("divided")));
        // Stopped, and gone on with other shares.
        run_on(dir.path(), &name("parted"), 3, options(Sharding::Optimizer), 7);
        run_on(dir.path(), &name("parted"), 3, options(Sharding::None), 14);
        run_on(dir.path(), &name("parted"), 3, options(Sharding::Optimizer), 0);
        assert!(bytes(dir.path(), &name("whole")) == bytes(dir.path(), &name("parted")));
        assert!(checkpointed(dir.path(), &name("whole")) == checkpointed(dir.path(), &name("parted")));
    }
}

#[test]
fn each_rank_holds_its_share_of_the_moments_alone() {
    let dir = tempfile::tempdir().unwrap();
    let options = TrainOptions {
        shard: Sharding::Optimizer,
        max_steps: 2,
        eval_every: 0,
        quant_warmup_steps: 1,
        quant_anneal_steps: 1,
        ..shared(2, 2)
    };
    let held = on_ranks(dir.path(), "run", (2, options), |_, trainer| {
        let mut trainer = trainer.unwrap();
        trainer.run(&AtomicBool::new(false), &mut |_| ()).unwrap();
        let specs = trainer.network.specs().to_vec();
        let state = trainer.optimizer.state(&specs).unwrap();
        state.iter().map(|stored| stored.name.clone()).collect::<Vec<_>>()
    });
    let whole = 2 * config().tensors().len();
    assert_eq!(held[0].len() + held[1].len(), whole);
    assert!(held[0].iter().all(|name| !held[1].contains(name)) && !held[0].is_empty() && !held[1].is_empty());
}

#[test]
fn all_ranks_stop_after_the_same_step_when_one_is_asked_to() {
    let dir = tempfile::tempdir().unwrap();
    run_on(dir.path(), "whole", 3, shared(3, 3), 0);
    let ends = run_on(dir.path(), "parted", 3, shared(3, 3), 9);
    let (outcome, step) = ends[0];
    assert_eq!(outcome, Outcome::Interrupted);
    assert!((9..=12).contains(&step), "{step}");
    assert_eq!(ends, [(outcome, step); 3]);
    run_on(dir.path(), "parted", 3, shared(3, 3), 0);
    assert!(bytes(dir.path(), "whole") == bytes(dir.path(), "parted"));
}

#[test]
fn a_run_goes_on_with_any_number_of_ranks_that_shares_its_step() {
    let dir = tempfile::tempdir().unwrap();
    run_on(dir.path(), "whole", 2, shared(6, 2), 0);
    // As the command has it: the same options, and another number of ranks.
    for (n, stop_at) in [(2, 4), (1, 8), (3, 12), (6, 16), (3, 20), (2, 0)] {
        run_on(dir.path(), "run", n, shared(6, 2), stop_at);
    }
    let [one, two] = ["whole", "run"].map(|name| losses(dir.path(), name));
    assert_eq!(one.len(), two.len());
    for (a, b) in one.iter().zip(&two) {
        assert!((a - b).abs() < 1e-3, "{a} {b}");
    }
    let refused = threads::ranks(4, |world| {
        let mut inputs = {
            let _one = FILES.lock().unwrap();
            inputs(dir.path(), "run", shared(6, 2))
        };
        inputs.world = world;
        Trainer::new(inputs, true, &mut |_| ()).unwrap_err().to_string()
    });
    for said in refused {
        assert!(
            said.contains("6 micro-batches a step") && said.contains("go on with 1, 2, 3, 6"),
            "{said}"
        );
    }
    // One process is told what it must say.
    run_on(dir.path(), "alone", 1, shared(6, 1), 4);
    let said = match Trainer::new(inputs(dir.path(), "alone", shared(2, 1)), true, &mut |_| ()) {
        Err(error) => error.to_string(),
        Ok(_) => panic!("another run"),
    };
    assert!(said.contains("--accumulation-steps: the run has 6"), "{said}");
}

#[test]
fn a_rank_that_does_not_see_the_directory_is_sent_what_it_needs() {
    let dir = tempfile::tempdir().unwrap();
    for shard in [Sharding::None, Sharding::Optimizer] {
        let options = TrainOptions {
            shard,
            optimizer: OptimizerKind::AdamW8bit,
            ..shared(3, 3)
        };
        let (whole, parted) = (format!("whole-{shard:?}"), format!("parted-{shard:?}"));
        run_on(dir.path(), &whole, 3, options.clone(), 0);
        run_on(dir.path(), &parted, 3, options.clone(), 9);
        threads::ranks(3, |world| {
            let elsewhere = dir.path().join(format!("of rank {}", world.rank()));
            let mut inputs = {
                let _one = FILES.lock().unwrap();
                inputs(dir.path(), &parted, options.clone())
            };
            if !world.is_first() {
                inputs.output_dir = elsewhere.clone();
            }
            let writes_nothing = !world.is_first();
            inputs.world = world;
            let mut trainer = Trainer::new(inputs, true, &mut |_| ()).unwrap();
            trainer.run(&AtomicBool::new(false), &mut |_| ()).unwrap();
            assert!(!writes_nothing || !elsewhere.exists());
        });
        assert!(bytes(dir.path(), &whole) == bytes(dir.path(), &parted), "{shard:?}");
    }
}

#[test]
fn ranks_of_different_runs_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let said = threads::ranks(2, |world| {
        let mut options = shared(2, 2);
        options.lr = if world.rank() == 1 { 0.125 } else { 0.25 };
        let mut inputs = {
            let _one = FILES.lock().unwrap();
            inputs(dir.path(), "run", options)
        };
        inputs.world = world;
        Trainer::new(inputs, false, &mut |_| ()).unwrap_err().to_string()
    });
    for said in said {
        assert!(
            said.contains("the option lr differs between ranks: rank 0 has 0.25, and rank 1 has 0.125"),
            "{said}"
        );
    }
    // The same options and other weights, in the same directory: nothing was begun there.
    let said = threads::ranks(2, |world| {
        let mut inputs = {
            let _one = FILES.lock().unwrap();
            inputs(dir.path(), "run", shared(2, 2))
        };
        if world.rank() == 1 {
            inputs.network.parameters_mut()[3].f32_mut().unwrap()[0] += 1e-3;
        }
        inputs.world = world;
        Trainer::new(inputs, false, &mut |_| ()).unwrap_err().to_string()
    });
    assert!(
        said.iter().all(|said| said.contains("the hash of the weights differs")),
        "{said:?}"
    );
}

#[test]
fn what_goes_wrong_on_one_rank_is_known_to_all() {
    let dir = tempfile::tempdir().unwrap();
    // A step that is not finite on rank 1 is skipped by all; the run goes on.
    let bad_on_1 = |name: &str, steps: std::ops::Range<u64>| {
        on_ranks(dir.path(), name, (2, shared(2, 2)), |rank, trainer| {
            let mut trainer = trainer.unwrap();
            if rank == 1 {
                trainer.tampered[0] = steps.clone();
            }
            let outcome = trainer.run(&AtomicBool::new(false), &mut |_| ());
            outcome.map(|_| trainer.guard.skipped).map_err(|e| e.to_string())
        })
    };
    assert_eq!(bad_on_1("two", 5..7), [Ok(2), Ok(2)]);
    // Too many stop all at the same state, and say where it was.
    for said in bad_on_1("many", 5..99) {
        let said = said.unwrap_err();
        for part in ["step 8: loss is not finite", "on rank 1", "step-5"] {
            assert!(said.contains(part), "{part:?} is not in {said:?}");
        }
    }
    // A gradient's place is its rank's too.
    let said = on_ranks(dir.path(), "nan", (2, shared(2, 2)), |_, trainer| {
        let mut trainer = trainer.unwrap();
        let at = trainer
            .network
            .specs()
            .iter()
            .position(|s| s.name.ends_with("1.mlp.up_proj.weight"));
        trainer.network.parameters_mut()[at.unwrap()].f32_mut().unwrap()[3] = f32::NAN;
        trainer
            .run(&AtomicBool::new(false), &mut |_| ())
            .unwrap_err()
            .to_string()
    });
    for said in said {
        assert!(
            said.contains("model.layers.1.mlp") && said.contains("on rank 0"),
            "{said}"
        );
    }
}

#[test]
fn ranks_go_back_together() {
    let dir = tempfile::tempdir().unwrap();
    let spiky = |n: usize| TrainOptions {
        max_steps: 80,
        quant_warmup_steps: 80,
        quant_anneal_steps: 8,
        spike_guard: 4.0,
        save_every: 20,
        ..shared(2, n)
    };
    for (name, n) in [("one", 1), ("two", 2)] {
        let ends = on_ranks(dir.path(), name, (n, spiky(n)), |_, trainer| {
            let mut trainer = trainer.unwrap();
            // The micro-batches of three steps.
            trainer.tampered[1] = 140..146;
            trainer.run(&AtomicBool::new(false), &mut |_| ()).unwrap();
            trainer.guard.rollbacks
        });
        assert_eq!(ends, vec![1; n]);
    }
    assert!(bytes(dir.path(), "one") == bytes(dir.path(), "two"));
    let metrics = fs::read_to_string(dir.path().join("two/metrics.jsonl")).unwrap();
    assert!(metrics.contains("\"rolled_back_from\":73"), "{metrics}");
}
