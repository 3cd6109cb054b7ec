//! Runs on windows that come one after another.

use std::collections::BTreeMap;
use std::sync::Mutex;

use serde_json::json;

use super::*;

/// Windows of counted tokens. It keeps what may be asked for again and nothing else, as a stream does.
#[derive(Debug)]
struct Counting {
    length: u64,
    inner: Mutex<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    next: u64,
    forgotten: u64,
    /// Windows that were given, for how often.
    given: BTreeMap<u64, u32>,
}

impl Counting {
    fn data(length: u64) -> TrainData {
        TrainData::Stream(Box::new(Counting {
            length,
            inner: Mutex::default(),
        }))
    }
}

impl WindowStream for Counting {
    fn identity(&self) -> String {
        format!("{} windows", self.length)
    }

    fn seq_len(&self) -> usize {
        16
    }

    fn window(&self, index: u64, into: &mut Vec<u32>) -> crate::Result<bool> {
        let mut inner = self.inner.lock().unwrap();
        assert!(index >= inner.forgotten, "window {index} was forgotten");
        if index >= self.length {
            return Ok(false);
        }
        assert!(index < inner.next + 32, "window {index} is far ahead of {}", inner.next);
        inner.next = inner.next.max(index + 1);
        *inner.given.entry(index).or_default() += 1;
        let key = onebit_engine::rng::Key::new(index, 3, 0);
        into.push(key.below(0, VOCAB as u32));
        for i in 0..16 {
            let last = into[into.len() - 1];
            into.push(match key.below(i + 1, 10) {
                0 => key.below(i + 100, VOCAB as u32),
                _ => (last * 5 + 3) % VOCAB as u32,
            });
        }
        Ok(true)
    }

    fn wait(&self, index: u64, _: &AtomicBool) -> crate::Result<Arrival> {
        Ok(if index < self.length {
            Arrival::Here
        } else {
            Arrival::Never
        })
    }

    fn epoch(&self, index: u64) -> u64 {
        index / 40 + 1
    }

    fn state(&self, index: u64) -> crate::Result<StreamState> {
        let inner = self.inner.lock().unwrap();
        assert!((inner.forgotten..=inner.next).contains(&index), "{index}: {inner:?}");
        Ok(StreamState {
            cursor: json!({ "window": index }),
            memory: index.to_le_bytes().to_vec(),
        })
    }

    fn go_on(&self, index: u64, state: &StreamState) -> crate::Result<()> {
        let mut inner = self.inner.lock().unwrap();
        assert!(inner.given.is_empty());
        assert_eq!(state.cursor, json!({ "window": index }));
        assert_eq!(state.memory, index.to_le_bytes());
        (inner.next, inner.forgotten) = (index, index);
        Ok(())
    }

    fn forget(&self, index: u64) {
        let mut inner = self.inner.lock().unwrap();
        assert!(index >= inner.forgotten && index <= inner.next);
        inner.forgotten = index;
    }
}

/// Runs on such a stream until `stop_at` steps are done (0: to the end). Returns how it ended, and its steps.
fn run_on(
    directory: &Path,
    name: &str,
    options: TrainOptions,
    length: u64,
    stop_at: u64,
) -> crate::Result<(Outcome, u64)> {
    let inputs = RunInputs {
        train: Counting::data(length),
        ..inputs(directory, name, options)
    };
    let mut trainer = Trainer::new(inputs, true, &mut |_| ())?;
    let stop = AtomicBool::new(false);
    let outcome = trainer.run(&stop, &mut |event| {
        if let Event::Step(m) = event
            && m.step == stop_at
        {
            stop.store(true, std::sync::atomic::Ordering::Relaxed);
        }
    })?;
    Ok((outcome, trainer.steps_done()))
}

#[test]
fn a_stream_is_gone_on_with_at_its_cursor() {
    let dir = tempfile::tempdir().unwrap();
    // 24 steps of 8 windows.
    let whole = run_on(dir.path(), "whole", options(), 1000, 0).unwrap();
    assert_eq!(whole, (Outcome::Finished, 24));
    for stop_at in [3, 10, 17] {
        let (outcome, _) = run_on(dir.path(), "pieces", options(), 1000, stop_at).unwrap();
        assert_eq!(outcome, Outcome::Interrupted);
    }
    run_on(dir.path(), "pieces", options(), 1000, 0).unwrap();
    let (model, metrics) = bytes(dir.path(), "whole");
    assert!((model, metrics.clone()) == bytes(dir.path(), "pieces"));
    let metrics = String::from_utf8(metrics).unwrap();
    let epochs: Vec<&str> = metrics.lines().filter(|line| line.contains("\"epoch\":5")).collect();
    assert_eq!(epochs.len(), 4, "steps 21 to 24 see windows from 160 on");
    let error = run_on(dir.path(), "pieces", options(), 999, 0).err().unwrap();
    assert!(error.to_string().contains("other training data"), "{error}");
}

/// The steps that are not finite are looked into, and the state before them is saved with its cursor.
#[test]
fn steps_that_are_not_finite_see_their_windows_again() {
    let dir = tempfile::tempdir().unwrap();
    let inputs = || RunInputs {
        train: Counting::data(1000),
        ..inputs(dir.path(), "nan", options())
    };
    let mut trainer = Trainer::new(inputs(), true, &mut |_| ()).unwrap();
    trainer.tampered[0] = 7..10;
    let error = trainer.run(&AtomicBool::new(false), &mut |_| ()).unwrap_err();
    assert!(matches!(error, TrainError::NotFinite { step: 10, .. }), "{error}");
    drop(trainer);
    let state = checkpoint::latest(&dir.path().join("nan/checkpoints"))
        .unwrap()
        .unwrap()
        .state;
    assert_eq!((state.step, state.stream), (7, Some(json!({ "window": 56 }))));
    run_on(dir.path(), "nan", options(), 1000, 0).unwrap();
}

#[test]
fn a_rollback_goes_on_with_later_windows() {
    let dir = tempfile::tempdir().unwrap();
    let options = TrainOptions {
        max_steps: 70,
        spike_guard: 4.0,
        quant_warmup_steps: 200,
        lr: 1e-4,
        save_every: 8,
        ..options()
    };
    let inputs = |name: &str| RunInputs {
        train: Counting::data(10_000),
        ..inputs(dir.path(), name, options.clone())
    };
    let mut back = Vec::new();
    let mut trainer = Trainer::new(inputs("spike"), true, &mut |_| ()).unwrap();
    trainer.tampered[1] = 118..200;
    let stop = AtomicBool::new(false);
    let outcome = trainer.run(&stop, &mut |event| match event {
        Event::RolledBack(rollback) => {
            back.push((rollback.rolled_back_from, rollback.step));
            stop.store(true, std::sync::atomic::Ordering::Relaxed);
        }
        Event::Step(_)
        | Event::Resumed { .. }
        | Event::Validated(_)
        | Event::Saved(_)
        | Event::SaveFailed(_)
        | Event::Regrouped { .. } => {}
    });
    assert_eq!(outcome.unwrap(), Outcome::Interrupted);
    assert_eq!(back, [(62, 56)]);
    let state = checkpoint::latest(&dir.path().join("spike/checkpoints"))
        .unwrap()
        .unwrap()
        .state;
    // Six steps of eight windows were left out.
    assert_eq!((state.step, state.stream), (56, Some(json!({ "window": 8 * 62 }))));
}

#[test]
fn a_stream_that_ends_ends_the_run() {
    let dir = tempfile::tempdir().unwrap();
    // 11 steps and a half.
    let whole = run_on(dir.path(), "whole", options(), 92, 0).unwrap();
    assert_eq!(whole, (Outcome::Finished, 11));
    for stop_at in [4, 11] {
        run_on(dir.path(), "pieces", options(), 92, stop_at).unwrap();
    }
    assert_eq!(
        run_on(dir.path(), "pieces", options(), 92, 0).unwrap(),
        (Outcome::Finished, 11)
    );
    assert!(bytes(dir.path(), "whole") == bytes(dir.path(), "pieces"));
    let metrics = String::from_utf8(bytes(dir.path(), "whole").1).unwrap();
    assert!(metrics.lines().last().unwrap().contains("val_loss"), "{metrics}");
}

#[test]
fn what_a_stream_cannot_be_asked_for_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let refused = |options: TrainOptions| run_on(dir.path(), "x", options, 10, 0).err().unwrap().to_string();
    let error = refused(TrainOptions {
        align_documents: true,
        ..options()
    });
    assert!(error.contains("--align-documents"), "{error}");
    let error = refused(TrainOptions {
        max_epochs: 2,
        ..options()
    });
    assert!(error.contains("--max-epochs"), "{error}");
    let error = refused(TrainOptions {
        seq_len: 8,
        ..options()
    });
    assert!(error.contains("--seq-len"), "{error}");
}
