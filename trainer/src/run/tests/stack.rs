//! Runs on a stream of shards that is larger than its room on the disk: the program ends at any moment, and the run that goes on is the one that nothing happened to.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Mutex;
use std::sync::atomic::Ordering;

use super::*;
use crate::stack::fetch::{Fetch, FromFolder};
use crate::stack::filter::Duplicates;
use crate::stack::manifest::Shard;
use crate::stack::stream::{Stream, StreamOptions};
use crate::stack::testing::{DataSet, Trouble, Watched};

const SEQ: usize = 16;

fn data() -> DataSet {
    DataSet::usual(20)
}

fn train_options() -> TrainOptions {
    TrainOptions {
        max_steps: 120,
        quant_warmup_steps: 30,
        quant_anneal_steps: 30,
        save_every: 6,
        eval_every: 0,
        log_every: 20,
        ..options()
    }
}

/// A step takes 8 windows of 16 tokens; three steps are a visit at most.
fn stream_options(data: &DataSet, name: &str) -> StreamOptions {
    StreamOptions {
        shards: data.shards.clone(),
        sampler: crate::stack::sampler::SamplerOptions {
            seed: 3,
            replay: 2,
            replay_share: 0.1,
            ..Default::default()
        },
        filters: crate::stack::filter::FilterOptions {
            licenses: ["mit", "apache-2.0"].map(String::from).into(),
            duplicates: Duplicates::Near,
            window: 200,
        },
        tokens_per_visit: 3 * 8 * SEQ as u64,
        skip_damaged: false,
        seq_len: SEQ,
        windows_ahead: 24,
        root: data.folder.path().join(format!("{name}-shards")),
        // And the lock.
        budget: 3 * data.largest() + 10,
    }
}

fn on_stack(data: &DataSet, directory: &Path, name: &str, fetch: Arc<dyn Fetch>, options: &StreamOptions) -> RunInputs {
    let mut config = config();
    config.vocab_size = data.tokenizer.vocab_size();
    let stream = Stream::open(options.clone(), data.tokenizer.clone(), fetch, Arc::new(|_| ())).unwrap();
    RunInputs {
        network: Network::new(config, Device::cpu().unwrap(), 1).unwrap(),
        train: TrainData::Stream(Box::new(stream)),
        validation: None,
        ..inputs(directory, name, train_options())
    }
}

/// Everything that a finished run leaves but for the lock.
fn left(directory: &Path) -> Vec<(String, Vec<u8>)> {
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

#[test]
fn a_stream_that_is_killed_ten_times_is_the_stream_that_is_not() {
    let (data, dir) = (data(), tempfile::tempdir().unwrap());
    // What is undisturbed has room for all.
    let mut roomy = stream_options(&data, "whole");
    roomy.budget = 1 << 30;
    let fetch = Arc::new(FromFolder(data.hub()));
    let mut whole = Trainer::new(on_stack(&data, dir.path(), "whole", fetch, &roomy), false, &mut |_| ()).unwrap();
    whole.run(&AtomicBool::new(false), &mut |_| ()).unwrap();
    drop(whole);
    let expected = left(&dir.path().join("whole"));
    assert!(expected.iter().any(|(name, _)| name.ends_with("step-120/stream.bin")));

    let options = stream_options(&data, "killed");
    let watched = Watched::new(&data.hub(), &options.root);
    let key = onebit_engine::rng::Key::new(77, 0, 0);
    let (mut kills, mut reached) = (0, 0);
    loop {
        let inputs = on_stack(&data, dir.path(), "killed", watched.clone(), &options);
        // Some ten steps, half a save's worth and more.
        let end = reached + 1 + u64::from(key.below(kills, 20));
        let outcome = catch_unwind(AssertUnwindSafe(|| {
            let mut trainer = Trainer::new(inputs, true, &mut |_| ())?;
            let first = trainer.steps_done();
            trainer.run(&AtomicBool::new(false), &mut |event| {
                watched.look();
                // As if the program ended here: nothing more is saved, what the threads do is left as it is.
                if let Event::Step(m) = event
                    && kills < 10
                    && m.step >= end.max(first + 1)
                {
                    panic!("killed");
                }
            })
        }));
        match outcome {
            Ok(ended) => {
                assert_eq!(ended.unwrap(), Outcome::Finished);
                break;
            }
            Err(_) => (kills, reached) = (kills + 1, end),
        }
    }
    assert_eq!(kills, 10);
    let found = left(&dir.path().join("killed"));
    let names = |files: &[(String, Vec<u8>)]| files.iter().map(|(name, _)| name.clone()).collect::<Vec<_>>();
    assert_eq!(names(&found), names(&expected));
    for ((name, found), (_, expected)) in found.iter().zip(&expected) {
        assert!(found == expected, "{name} differs");
    }
    let most = watched.most.load(Ordering::Relaxed);
    assert!(most <= options.budget, "{most} bytes of {}", options.budget);
    assert!(most > 2 * data.largest(), "the room was put to use");
    let fetched: std::collections::HashSet<String> = watched.fetches.lock().unwrap().iter().cloned().collect();
    assert!(fetched.len() > 15, "{} shards of 20 were seen", fetched.len());
}

/// A shard that does not come ends the run with what it has done.
#[test]
fn a_stream_that_fails_saves_the_steps_done() {
    let (data, dir) = (data(), tempfile::tempdir().unwrap());
    for (trouble, times) in [(Trouble::Full, 5), (Trouble::Cut, 1)] {
        let name = format!("{trouble:?}");
        let options = stream_options(&data, &name);
        let watched = Watched::new(&data.hub(), &options.root);
        let inputs = on_stack(&data, dir.path(), &name, watched.clone(), &options);
        let mut trainer = Trainer::new(inputs, false, &mut |_| ()).unwrap();
        let troubled = Mutex::new(false);
        let error = trainer
            .run(&AtomicBool::new(false), &mut |event| {
                if let Event::Step(m) = event
                    && m.step == 20
                    && !std::mem::replace(&mut *troubled.lock().unwrap(), true)
                {
                    for shard in &data.shards {
                        (0..times).for_each(|_| watched.trouble(&shard.id, trouble));
                    }
                }
            })
            .unwrap_err();
        assert!(matches!(error, TrainError::Io { .. }), "{error}");
        let done = trainer.steps_done();
        drop(trainer);
        let found = checkpoint::latest(&dir.path().join(&name).join("checkpoints"))
            .unwrap()
            .unwrap();
        assert!(
            done > 20 && found.state.step == done,
            "{done} steps, {} are saved",
            found.state.step
        );
        watched.troubles.lock().unwrap().clear();
        let inputs = on_stack(&data, dir.path(), &name, watched, &options);
        let mut trainer = Trainer::new(inputs, true, &mut |_| ()).unwrap();
        trainer.run(&AtomicBool::new(false), &mut |_| ()).unwrap();
    }
    let read = |name: &str| bytes(dir.path(), name);
    assert!(read("Full") == read("Cut"));
}

/// Whoever presses Ctrl-C while a shard does not come gets the checkpoint, and the program's end.
#[test]
fn a_run_that_waits_for_a_shard_can_be_interrupted() {
    /// The first shards come, and then none.
    #[derive(Debug)]
    struct FirstFew(FromFolder, std::sync::atomic::AtomicU64);
    impl Fetch for FirstFew {
        fn fetch(&self, shard: &Shard, to: &Path, stop: &AtomicBool) -> crate::Result<()> {
            if self.1.fetch_add(1, Ordering::Relaxed) < 3 {
                return self.0.fetch(shard, to, stop);
            }
            while !stop.load(Ordering::Relaxed) {
                std::thread::yield_now();
            }
            Err(crate::stack::StackError::Stopped.into())
        }
    }
    let (data, dir) = (data(), tempfile::tempdir().unwrap());
    let options = stream_options(&data, "waiting");
    let fetch = Arc::new(FirstFew(FromFolder(data.hub()), Default::default()));
    let inputs = on_stack(&data, dir.path(), "waiting", fetch, &options);
    let mut trainer = Trainer::new(inputs, false, &mut |_| ()).unwrap();
    let stop = AtomicBool::new(false);
    let last = Mutex::new(0);
    let outcome = std::thread::scope(|scope| {
        // Once no step has come for a while.
        scope.spawn(|| {
            let mut seen = (0, 0);
            while seen.1 < 20 {
                std::thread::sleep(std::time::Duration::from_millis(10));
                let now = *last.lock().unwrap();
                seen = if now == seen.0 && now > 0 {
                    (now, seen.1 + 1)
                } else {
                    (now, 0)
                };
            }
            stop.store(true, Ordering::Relaxed);
        });
        trainer.run(&stop, &mut |event| {
            if let Event::Step(m) = event {
                *last.lock().unwrap() = m.step;
            }
        })
    });
    assert_eq!(outcome.unwrap(), Outcome::Interrupted);
    let done = trainer.steps_done();
    drop(trainer);
    let found = checkpoint::latest(&dir.path().join("waiting/checkpoints"))
        .unwrap()
        .unwrap();
    assert!(done > 0 && found.state.step == done);
}
