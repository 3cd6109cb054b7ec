//! Shards that are damaged or do not come.

use super::*;
use crate::stack::StackError;
use crate::stack::testing::Trouble;

fn told(s: &Setting) -> Vec<StackEvent> {
    s.told.lock().unwrap().clone()
}

#[test]
fn a_damaged_shard_is_fetched_again() {
    let data = DataSet::usual(6);
    let mut options = options(&data, "cache");
    options.sampler.max_visits = 6;
    let expected = windows(&open(&data, &options).stream, 0..u64::MAX);
    options.root = data.folder.path().join("damaged");
    let s = open(&data, &options);
    for shard in [1, 4] {
        s.fetch.trouble(&data.shards[shard].id, Trouble::Damage);
    }
    assert!(windows(&s.stream, 0..u64::MAX) == expected);
    let again = told(&s)
        .iter()
        .filter(|event| matches!(event, StackEvent::FetchedAgain { .. }))
        .count();
    let drawn = Sampler::new(&data.shards, options.sampler.clone()).unwrap();
    let both = drawn.walk().filter(|visit| [1, 4].contains(&visit.shard)).count();
    assert_eq!(again, both.min(2));
    assert!(again > 0);
    assert!(s.fetch.most.load(Ordering::Relaxed) <= options.budget);
}

#[test]
fn a_shard_that_stays_damaged_is_named_or_passed_over() {
    let data = DataSet::usual(4);
    let mut options = options(&data, "cache");
    options.sampler.max_visits = 12;
    let bad = Sampler::new(&data.shards, options.sampler.clone())
        .unwrap()
        .walk()
        .nth(2)
        .unwrap()
        .shard;
    // For good: where it comes from it is damaged.
    let path = data.hub().join(&data.shards[bad].path);
    let mut bytes = std::fs::read(&path).unwrap();
    let middle = bytes.len() * 3 / 4;
    bytes[middle..middle + 400].fill(0xff);
    std::fs::write(&path, bytes).unwrap();

    let s = open(&data, &options);
    let mut index = 0;
    let error = loop {
        match s.stream.window(index, &mut Vec::new()) {
            Ok(there) => assert!(there),
            Err(error) => break error,
        }
        index += 1;
    };
    assert!(
        matches!(&error, TrainError::Stack(StackError::Damaged { shard, row, .. }) if *shard == data.shards[bad].id && *row < 20),
        "{error}"
    );
    drop(s);

    options.skip_damaged = true;
    options.root = data.folder.path().join("skipping");
    let (all, states) = {
        let s = open(&data, &options);
        let (mut all, mut states) = (Vec::new(), Vec::new());
        loop {
            states.push(s.stream.state(all.len() as u64).unwrap());
            let next = windows(&s.stream, all.len() as u64..all.len() as u64 + 1);
            if next.is_empty() {
                break;
            }
            all.extend(next);
        }
        let passed = told(&s)
            .iter()
            .filter(|event| matches!(event, StackEvent::PassedOver { .. }))
            .count();
        assert_eq!(passed, 1, "once; it is known then");
        (all, states)
    };
    assert!(all.len() as u64 > index);
    // Before, within and behind the damage.
    for at in [index - 20, index - 1, index, index + 5, index + 30] {
        let s = open(&data, &options);
        s.stream.go_on(at, &states[at as usize]).unwrap();
        assert!(
            windows(&s.stream, at..u64::MAX) == all[at as usize..],
            "from window {at}"
        );
        assert_eq!(s.stream.state(all.len() as u64).unwrap(), *states.last().unwrap());
    }
}

#[test]
fn a_fetch_that_fails_is_told_and_gone_on_with() {
    let data = DataSet::usual(4);
    let mut options = options(&data, "cache");
    options.sampler.max_visits = 8;
    let expected = windows(&open(&data, &options).stream, 0..u64::MAX);
    options.root = data.folder.path().join("cut");
    let third = Sampler::new(&data.shards, options.sampler.clone())
        .unwrap()
        .walk()
        .nth(2)
        .unwrap()
        .shard;
    let s = open(&data, &options);
    s.fetch.trouble(&data.shards[third].id, Trouble::Cut);
    let mut found = Vec::new();
    let error = loop {
        let mut window = Vec::new();
        match s.stream.window(found.len() as u64, &mut window) {
            Ok(there) => assert!(there),
            Err(error) => break error,
        }
        found.push(window);
    };
    // What was there was given before.
    assert!(error.to_string().contains("make room there"), "{error}");
    assert!(!found.is_empty() && found[..] == expected[..found.len()]);
    let (at, state) = (found.len() as u64, s.stream.state(found.len() as u64).unwrap());
    drop(s);
    let s = open(&data, &options);
    s.stream.go_on(at, &state).unwrap();
    assert!(windows(&s.stream, at..u64::MAX) == expected[found.len()..]);
}

#[test]
fn whoever_waits_can_be_asked_to_stop() {
    /// Never comes.
    #[derive(Debug)]
    struct Never;
    impl Fetch for Never {
        fn fetch(&self, _: &Shard, _: &std::path::Path, stop: &AtomicBool) -> Result<()> {
            while !stop.load(Ordering::Relaxed) {
                std::thread::yield_now();
            }
            Err(StackError::Stopped.into())
        }
    }
    let data = DataSet::usual(2);
    let options = options(&data, "cache");
    let stream = Stream::open(options, data.tokenizer.clone(), Arc::new(Never), Arc::new(|_| ())).unwrap();
    assert_eq!(stream.wait(0, &AtomicBool::new(true)).unwrap(), Arrival::Stopped);
    // Nor does it keep the program from ending.
    drop(stream);
}

#[test]
fn impossible_streams_are_refused_before_anything_is_fetched() {
    let data = DataSet::usual(3);
    let refused = |change: fn(&mut StreamOptions)| {
        let mut options = options(&data, "cache");
        change(&mut options);
        let fetch = Watched::new(&data.hub(), &options.root);
        let error = Stream::open(options, data.tokenizer.clone(), fetch.clone(), Arc::new(|_| ()))
            .err()
            .unwrap();
        assert!(fetch.fetches.lock().unwrap().is_empty());
        error.to_string()
    };
    assert!(refused(|o| o.budget = o.shards[1].bytes / 2).contains("raise --disk-budget-gb"));
    assert!(refused(|o| o.shards.clear()).contains("no shard"));
    assert!(refused(|o| o.sampler.replay_share = 2.0).contains("--replay-share"));
    let good = options(&data, "cache");
    let s = open(&data, &good);
    for cursor in [
        serde_json::json!({}),
        serde_json::json!({"visit": 1, "row": 0, "within": 0, "taken": 0, "last": 1, "documents": 0, "left_at": {"3": {"row": 1, "within": 1}}, "damaged": {}}),
    ] {
        let state = StreamState {
            cursor,
            memory: Vec::new(),
        };
        let error = s.stream.go_on(4, &state).unwrap_err().to_string();
        assert!(error.contains("place in the stream"), "{error}");
    }
}
