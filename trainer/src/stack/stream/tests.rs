//! Streams of small shards: what they give, from wherever they are gone on with, whatever goes wrong.

mod trouble;

use std::ops::ControlFlow;
use std::sync::atomic::Ordering;

use onebit_engine::rng::Key;

use super::*;
use crate::data::{TokenFile, TokenizeOptions, tokenize};
use crate::stack::filter::Duplicates;
use crate::stack::testing::{DataSet, Watched};

const SEQ: usize = 24;

/// A stream, who fetches for it, and what it tells.
struct Setting {
    stream: Stream,
    fetch: Arc<Watched>,
    told: Arc<Mutex<Vec<StackEvent>>>,
}

fn options(data: &DataSet, name: &str) -> StreamOptions {
    StreamOptions {
        shards: data.shards.clone(),
        sampler: SamplerOptions {
            seed: 5,
            ..Default::default()
        },
        filters: FilterOptions::default(),
        tokens_per_visit: 0,
        skip_damaged: false,
        seq_len: SEQ,
        windows_ahead: 8,
        root: data.folder.path().join(name),
        // And the lock.
        budget: 3 * data.largest() + 10,
    }
}

fn open(data: &DataSet, options: &StreamOptions) -> Setting {
    let fetch = Watched::new(&data.hub(), &options.root);
    let told = Arc::new(Mutex::new(Vec::new()));
    let telling = told.clone();
    let observe: Observer = Arc::new(move |event| telling.lock().unwrap().push(event));
    let stream = Stream::open(options.clone(), data.tokenizer.clone(), fetch.clone(), observe).unwrap();
    Setting { stream, fetch, told }
}

/// Windows `from..to`, as far as there are any.
fn windows(stream: &Stream, range: std::ops::Range<u64>) -> Vec<Vec<u32>> {
    let mut found = Vec::new();
    for index in range {
        let mut window = Vec::new();
        if !stream.window(index, &mut window).unwrap() {
            break;
        }
        assert_eq!(window.len(), SEQ + 1);
        found.push(window);
    }
    found
}

/// The tokens of windows, each once.
fn tokens(windows: &[Vec<u32>]) -> Vec<u32> {
    let mut tokens = windows.first().map_or(Vec::new(), |first| first[..1].to_vec());
    for window in windows {
        assert_eq!(tokens.last(), window.first());
        tokens.extend_from_slice(&window[1..]);
    }
    tokens
}

/// What `onebit tokenize` makes of a shard.
fn tokenized(data: &DataSet, shard: usize) -> Vec<u32> {
    let output = data.folder.path().join("whole.tokens");
    let options = TokenizeOptions {
        force: true,
        ..Default::default()
    };
    let input = data.hub().join(&data.shards[shard].path);
    tokenize(&[input], &data.tokenizer, &output, &options, &mut |_| {
        ControlFlow::Continue(())
    })
    .unwrap();
    let (file, mut ids) = (TokenFile::open(&output).unwrap(), Vec::new());
    file.get(0..file.len(), &mut ids).unwrap();
    ids
}

#[test]
fn the_tokens_are_those_of_tokenize_visit_by_visit() {
    let data = DataSet::usual(20);
    let mut options = options(&data, "cache");
    options.sampler.max_visits = 30;
    let s = open(&data, &options);
    let found = tokens(&windows(&s.stream, 0..u64::MAX));
    let sampler = Sampler::new(&data.shards, options.sampler).unwrap();
    let expected: Vec<u32> = sampler.walk().flat_map(|visit| tokenized(&data, visit.shard)).collect();
    assert!(
        expected.len() - found.len() < SEQ,
        "{} of {}",
        found.len(),
        expected.len()
    );
    assert!(found == expected[..found.len()]);
    // Three passes were begun by then: 30 visits of 20 shards are two.
    assert_eq!(
        (s.stream.epoch(0), s.stream.epoch(found.len() as u64 / SEQ as u64 - 1)),
        (1, 2)
    );
    assert!(s.fetch.fetches.lock().unwrap().len() >= 20);
    assert!(s.fetch.most.load(Ordering::Relaxed) <= options.budget);
}

#[test]
fn visits_that_end_early_are_gone_on_with() {
    let data = DataSet::usual(3);
    let mut options = options(&data, "cache");
    options.tokens_per_visit = 500;
    options.sampler.max_visits = 18;
    let s = open(&data, &options);
    let found = tokens(&windows(&s.stream, 0..u64::MAX));
    let whole: Vec<Vec<u32>> = (0..3).map(|shard| tokenized(&data, shard)).collect();
    assert!(
        whole
            .iter()
            .all(|tokens| tokens.len() > 1000 && tokens.len() % 500 != 0)
    );
    let (mut expected, mut at) = (Vec::new(), [0; 3]);
    for visit in Sampler::new(&data.shards, options.sampler).unwrap().walk() {
        let (tokens, at) = (&whole[visit.shard], &mut at[visit.shard]);
        let end = tokens.len().min(*at + 500);
        expected.extend_from_slice(&tokens[*at..end]);
        *at = if end == tokens.len() && end - *at < 500 { 0 } else { end };
    }
    assert!(found == expected[..found.len()] && expected.len() - found.len() < SEQ);
}

/// The windows of a stream, and the state before each, one behind the other.
fn followed(data: &DataSet, options: &StreamOptions, n: u64) -> (Vec<Vec<u32>>, Vec<StreamState>) {
    let s = open(data, options);
    let (mut all, mut states) = (Vec::new(), Vec::new());
    for index in 0..n {
        states.push(s.stream.state(index).unwrap());
        all.extend(windows(&s.stream, index..index + 1));
        // As a run does, some steps behind.
        s.stream.forget(index.saturating_sub(6));
    }
    assert_eq!(all.len() as u64, n);
    (all, states)
}

#[test]
fn gone_on_with_from_anywhere_it_is_the_same_stream() {
    let data = DataSet::usual(20);
    let n = 400;
    let mut settings = Vec::new();
    for duplicates in [Duplicates::Keep, Duplicates::Exact, Duplicates::Near] {
        let mut options = options(&data, &format!("cache-{duplicates:?}"));
        options.filters.duplicates = duplicates;
        options.filters.window = 50;
        options.filters.licenses = ["mit", "apache-2.0"].map(String::from).into();
        options.tokens_per_visit = if duplicates == Duplicates::Exact { 0 } else { 700 };
        (options.sampler.replay, options.sampler.replay_share) = (4, 0.2);
        settings.push(options);
    }
    for options in settings {
        let (all, states) = followed(&data, &options, n);
        let key = Key::new(options.tokens_per_visit, 31, 0);
        let mut at: u64 = 0;
        let mut resumed = 0;
        while at < n {
            let mut elsewhere = options.clone();
            // With the same folder or an empty one, and another room to be ahead in.
            if key.below(3 * resumed, 2) == 0 {
                elsewhere.root = data
                    .folder
                    .path()
                    .join(format!("cache-{resumed}-{}", options.tokens_per_visit));
            }
            elsewhere.windows_ahead = 1 + u64::from(key.below(3 * resumed + 1, 60));
            let s = open(&data, &elsewhere);
            assert_eq!(s.stream.identity(), open_identity(&data, &options));
            s.stream.go_on(at, &states[at as usize]).unwrap();
            let end = n.min(at + 1 + u64::from(key.below(3 * resumed + 2, 70)));
            for index in at..end {
                assert_eq!(
                    s.stream.state(index).unwrap(),
                    states[index as usize],
                    "window {index} from {at}"
                );
                assert_eq!(windows(&s.stream, index..index + 1)[0], all[index as usize]);
                s.stream.forget(index);
            }
            assert!(s.fetch.most.load(Ordering::Relaxed) <= options.budget);
            (at, resumed) = (end, resumed + 1);
        }
        assert!(resumed > 5);
        let memory = states.last().unwrap().memory.len();
        assert_eq!(memory, 50 * [0, 16, 136][options.filters.duplicates as usize]);
    }
}

fn open_identity(data: &DataSet, options: &StreamOptions) -> String {
    identity(options, &data.tokenizer)
}

#[test]
fn windows_may_be_passed_over_and_asked_for_again() {
    let data = DataSet::usual(6);
    let options = options(&data, "cache");
    let (all, _) = followed(&data, &options, 120);
    let s = open(&data, &options);
    // Every third micro-batch of four windows, and each twice.
    for first in (0..108).step_by(12) {
        assert_eq!(
            s.stream.wait(first + 11, &AtomicBool::new(false)).unwrap(),
            Arrival::Here
        );
        for _ in 0..2 {
            assert_eq!(
                windows(&s.stream, first + 4..first + 8),
                all[first as usize + 4..first as usize + 8]
            );
        }
        s.stream.forget(first);
    }
    let error = s.stream.window(3, &mut Vec::new()).unwrap_err().to_string();
    assert!(error.contains("window 3 is not among"), "{error}");
}

#[test]
fn licences_and_copies_are_left_out() {
    let data = DataSet::usual(8);
    let mut options = options(&data, "cache");
    options.sampler.max_visits = 8;
    options.filters.licenses = ["mit", "apache-2.0"].map(String::from).into();
    options.filters.duplicates = Duplicates::Exact;
    let s = open(&data, &options);
    windows(&s.stream, 0..u64::MAX);
    let left_out = s
        .told
        .lock()
        .unwrap()
        .iter()
        .fold((0, 0), |(licenses, duplicates), event| match event {
            StackEvent::Visited { left_out, .. } => (licenses + left_out.licenses, duplicates + left_out.duplicates),
            _ => (licenses, duplicates),
        });
    // One row of each has another licence, and one is one of four.
    let visited = Sampler::new(&data.shards, options.sampler.clone()).unwrap();
    let shards: std::collections::HashSet<usize> = visited.walk().map(|visit| visit.shard).collect();
    let texts: std::collections::HashSet<usize> = shards.iter().map(|shard| shard % 4).collect();
    assert_eq!(left_out, (8, (shards.len() - texts.len()) as u64));
    // Shards that are visited again are no copies of themselves.
    options.sampler.max_visits = 40;
    options.root = data.folder.path().join("again");
    let again = open(&data, &options);
    let found = tokens(&windows(&again.stream, 0..u64::MAX));
    options.root = data.folder.path().join("once");
    options.filters.duplicates = Duplicates::Keep;
    let kept = tokens(&windows(&open(&data, &options).stream, 0..u64::MAX));
    assert!(
        found.len() < kept.len() && found.len() > kept.len() * 9 / 10,
        "{} of {}",
        found.len(),
        kept.len()
    );
    options.filters.licenses = ["wtfpl"].map(String::from).into();
    options.root = data.folder.path().join("nothing");
    options.sampler.max_visits = 0;
    let error = open(&data, &options)
        .stream
        .window(0, &mut Vec::new())
        .unwrap_err()
        .to_string();
    assert!(error.contains("the filters left nothing"), "{error}");
}

/// Shards in The Stack's own layout.
#[test]
fn shards_of_the_stack() {
    let default = concat!(env!("CARGO_MANIFEST_DIR"), "/../../shared");
    let shared = PathBuf::from(std::env::var("ONEBIT_TESTDATA").unwrap_or_else(|_| default.into()));
    let hub = shared.join("fakehub/root");
    let mut data = DataSet::usual(1);
    data.shards.clear();
    for i in 0..3 {
        let path = format!("data/rust/train-{i:05}-of-00003.parquet");
        let Ok(about) = std::fs::metadata(hub.join(&path)) else {
            eprintln!("SKIPPED (no test data): {path} is absent; set ONEBIT_TESTDATA");
            return;
        };
        let target = data.hub().join(&path);
        std::fs::create_dir_all(target.parent().unwrap()).unwrap();
        std::fs::copy(hub.join(&path), target).unwrap();
        data.shards.push(Shard {
            id: format!("rust/{i}"),
            language: "rust".into(),
            path,
            bytes: about.len(),
            sha256: None,
            dataset: "d".into(),
            revision: "r".into(),
        });
    }
    let mut options = options(&data, "stack");
    options.sampler.max_visits = 3;
    let found = tokens(&windows(&open(&data, &options).stream, 0..u64::MAX));
    let sampler = Sampler::new(&data.shards, options.sampler.clone()).unwrap();
    let expected: Vec<u32> = sampler.walk().flat_map(|visit| tokenized(&data, visit.shard)).collect();
    assert!(found == expected[..found.len()] && expected.len() - found.len() < SEQ);
    options.filters.licenses = ["mit", "apache-2.0"].map(String::from).into();
    options.root = data.folder.path().join("licensed");
    let licensed = tokens(&windows(&open(&data, &options).stream, 0..u64::MAX));
    println!(
        "{} tokens, {} of them under MIT or Apache-2.0",
        found.len(),
        licensed.len()
    );
    assert!(licensed.len() <= found.len());
}
