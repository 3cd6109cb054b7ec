//! Every operation on the disk fails once, in every way, and nothing is lost: the run, or the one that resumes it, ends with the bytes of a run that nothing happened to.

use std::sync::Arc;

use super::*;
use crate::storage::faulty::{Fault, Faulty};

/// Three phases, micro-batches, a save that comes in the middle of an epoch, moments of every kind.
fn options(optimizer: OptimizerKind) -> TrainOptions {
    TrainOptions {
        optimizer,
        max_steps: 8,
        quant_warmup_steps: 2,
        quant_anneal_steps: 2,
        save_every: 3,
        eval_every: 4,
        eval_windows: 4,
        keep: 1,
        ..super::options()
    }
}

/// Runs to the end on `disk`; with `in_turn` nothing is done while a checkpoint is written, so that the operations have an order.
fn run_on(disk: Faulty, inputs: RunInputs, in_turn: bool) -> crate::Result<Outcome> {
    let mut trainer = Trainer::on(Arc::new(disk), inputs, true, &mut |_| ())?;
    trainer.in_turn = in_turn;
    trainer.run(&AtomicBool::new(false), &mut |_| ())
}

/// Everything that a finished run leaves, by name: all files, to the byte. Locks hold a process's number.
fn contents(directory: &Path) -> Vec<(String, Vec<u8>)> {
    let (mut found, mut directories) = (Vec::new(), vec![directory.to_path_buf()]);
    while let Some(at) = directories.pop() {
        for entry in fs::read_dir(at).unwrap() {
            let path = entry.unwrap().path();
            let name = path.strip_prefix(directory).unwrap().display().to_string();
            if path.is_dir() {
                directories.push(path);
            } else if name != ".lock" {
                found.push((name, fs::read(&path).unwrap()));
            }
        }
    }
    found.sort();
    found
}

fn assert_same(found: &[(String, Vec<u8>)], expected: &[(String, Vec<u8>)], what: &str) {
    let names = |files: &[(String, Vec<u8>)]| files.iter().map(|(name, _)| name.clone()).collect::<Vec<_>>();
    assert_eq!(names(found), names(expected), "{what}");
    // The manifest differs if anything does.
    let others = |name: &str| !name.ends_with("manifest.json");
    for ((name, a), (_, b)) in found.iter().zip(expected).filter(|((name, _), _)| others(name)) {
        let [left, right] = [a, b].map(|bytes| String::from_utf8_lossy(bytes));
        assert!(a == b, "{what}: {name} differs: {left:.3000} {right:.3000}");
    }
}

#[test]
fn every_failure_of_the_disk_loses_nothing() {
    for optimizer in OPTIMIZERS {
        let dir = tempfile::tempdir().unwrap();
        let options = options(optimizer);
        let name = |what: &str| format!("{optimizer:?}-{what}");
        let whole = Faulty::new(None);
        run_on(whole.clone(), inputs(dir.path(), &name("whole"), options.clone()), true).unwrap();
        let expected = contents(&dir.path().join(name("whole")));
        let operations = whole.count();
        assert!(operations > 60, "{operations}");
        let (mut survived, mut failures) = (0, 0);
        // The files of the other optimisers are written by the same operations.
        let every = if optimizer == OptimizerKind::AdamW { 1 } else { 7 };
        for at in (0..operations).step_by(every) {
            for fault in Fault::ALL {
                failures += 1;
                let what = format!("{optimizer:?}, {fault:?} at operation {at}");
                let name = name(&format!("{at}-{fault:?}"));
                let inputs = || inputs(dir.path(), &name, options.clone());
                let outcome = run_on(Faulty::new(Some((at, fault))), inputs(), true);
                assert!(outcome.is_err() || !fault.ends_the_program(), "{what}");
                match outcome {
                    // The run went on, and tried again at its next save.
                    Ok(_) => survived += 1,
                    Err(_) => {
                        run_on(Faulty::new(None), inputs(), true).unwrap_or_else(|e| panic!("{what}: {e}"));
                    }
                }
                assert_same(&contents(&dir.path().join(&name)), &expected, &what);
                fs::remove_dir_all(dir.path().join(&name)).unwrap();
            }
        }
        println!("{optimizer:?}: {operations} operations, {failures} failures, {survived} survived by the run itself");
        assert!(survived > 5, "no run went on after a failed save");
    }
}

/// The resumed run fails too, at any operation, and the one after it ends as if nothing had been.
#[test]
fn failures_on_failures_lose_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let options = options(OptimizerKind::AdamW);
    run_on(Faulty::new(None), inputs(dir.path(), "whole", options.clone()), true).unwrap();
    let expected = contents(&dir.path().join("whole"));
    for at in (0..80).step_by(4) {
        let name = format!("run-{at}");
        let inputs = || inputs(dir.path(), &name, options.clone());
        let mut failures = 0;
        // Each attempt comes a little further.
        while run_on(
            Faulty::new(Some((at + 5 * failures, Fault::ALL[2 + (at + failures) % 4]))),
            inputs(),
            true,
        )
        .is_err()
        {
            failures += 1;
            assert!(failures < 60, "no attempt ends");
        }
        assert_same(
            &contents(&dir.path().join(&name)),
            &expected,
            &format!("{failures} failures from {at}"),
        );
        fs::remove_dir_all(dir.path().join(&name)).unwrap();
    }
}

/// As it is used: training goes on while a checkpoint is written, and both may meet the failure.
#[test]
fn failures_while_training_goes_on_lose_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let options = options(OptimizerKind::AdamW);
    let whole = Faulty::new(None);
    run_on(whole.clone(), inputs(dir.path(), "whole", options.clone()), false).unwrap();
    let expected = contents(&dir.path().join("whole"));
    for at in (0..whole.count()).step_by(2) {
        let fault = Fault::ALL[at / 2 % 6];
        let name = format!("run-{at}");
        let inputs = || inputs(dir.path(), &name, options.clone());
        if run_on(Faulty::new(Some((at, fault))), inputs(), false).is_err() {
            run_on(Faulty::new(None), inputs(), false).unwrap();
        }
        assert_same(
            &contents(&dir.path().join(&name)),
            &expected,
            &format!("{fault:?} at {at}"),
        );
    }
}

#[test]
fn a_run_stopped_after_any_step_ends_the_same() {
    let dir = tempfile::tempdir().unwrap();
    // Of which no step begins an epoch.
    let options = TrainOptions {
        max_steps: 14,
        quant_warmup_steps: 4,
        quant_anneal_steps: 5,
        save_every: 0,
        eval_every: 5,
        ..super::options()
    };
    run(dir.path(), "whole", options.clone(), 0, false).unwrap();
    let expected = contents(&dir.path().join("whole"));
    for first in 1..14 {
        let name = format!("run-{first}");
        let pool = |threads| rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        let part = |threads, stop_at, resume| {
            pool(threads).install(|| run(dir.path(), &name, options.clone(), stop_at, resume).unwrap())
        };
        assert_eq!(part(2, first, false), Outcome::Interrupted);
        // At once, before a step is taken; then after one; then to the end. With other numbers of threads.
        let mut trainer = Trainer::new(inputs(dir.path(), &name, options.clone()), true, &mut |_| ()).unwrap();
        assert_eq!(
            trainer.run(&AtomicBool::new(true), &mut |_| ()).unwrap(),
            Outcome::Interrupted
        );
        drop(trainer);
        part(1, first + 1, true);
        part(3, 0, true);
        let (mut found, mut expected) = (contents(&dir.path().join(&name)), expected.clone());
        // The checkpoints of the interruptions are kept or gone by their number; the last is that of the whole run.
        for files in [&mut found, &mut expected] {
            files
                .retain(|(name, _)| !name.starts_with("checkpoints/step-") || name.starts_with("checkpoints/step-14/"));
        }
        assert_same(&found, &expected, &name);
    }
}

/// Somebody shortens the metrics: what can be kept is kept, in whole lines.
#[test]
fn metrics_that_were_cut_begin_with_whole_lines() {
    let dir = tempfile::tempdir().unwrap();
    run(dir.path(), "run", super::options(), 6, false).unwrap();
    let path = dir.path().join("run/metrics.jsonl");
    let before = fs::read_to_string(&path).unwrap();
    fs::write(&path, &before[..before.len() / 2]).unwrap();
    run(dir.path(), "run", super::options(), 0, true).unwrap();
    for line in fs::read_to_string(&path).unwrap().lines() {
        serde_json::from_str::<serde_json::Value>(line).unwrap();
    }
}
