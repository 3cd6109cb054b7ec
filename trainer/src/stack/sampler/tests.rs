//! The order of visits.

use std::collections::{HashMap, HashSet};

use super::*;

fn shards(of: &[(&str, usize, u64)]) -> Vec<Shard> {
    let mut shards = Vec::new();
    for &(language, count, bytes) in of {
        for i in 0..count {
            shards.push(Shard {
                id: format!("{language}-{i}"),
                language: language.into(),
                path: format!("data/{language}/{i}.parquet"),
                bytes,
                sha256: None,
                dataset: "d".into(),
                revision: "r".into(),
            });
        }
    }
    shards
}

fn options() -> SamplerOptions {
    SamplerOptions {
        seed: 7,
        ..Default::default()
    }
}

fn counts(shards: &[Shard], sampler: &Sampler, visits: usize) -> HashMap<String, f64> {
    let mut counts: HashMap<String, f64> = HashMap::new();
    for visit in sampler.walk().take(visits) {
        *counts.entry(shards[visit.shard].language.clone()).or_default() += 1.0;
    }
    counts
}

#[test]
fn languages_come_by_their_weights() {
    let shards = shards(&[("c", 5, 100), ("go", 10, 30), ("rust", 2, 100)]);
    let n = 10_000;
    let expect = |weights: &[(&str, f64)], shares: &[(&str, f64)]| {
        let weights = weights
            .iter()
            .map(|(name, weight)| (name.to_string(), *weight))
            .collect();
        let sampler = Sampler::new(&shards, SamplerOptions { weights, ..options() }).unwrap();
        let counts = counts(&shards, &sampler, n);
        for (name, share) in shares {
            let (expected, found) = (n as f64 * share, counts.get(*name).copied().unwrap_or(0.0));
            let deviation = (n as f64 * share * (1.0 - share)).sqrt();
            assert!(
                (found - expected).abs() <= 4.0 * deviation,
                "{name}: {found} of {expected}"
            );
        }
    };
    expect(&[], &[("c", 0.5), ("go", 0.3), ("rust", 0.2)]);
    expect(
        &[("rust", 2.0), ("c", 1.0)],
        &[("rust", 2.0 / 3.0), ("c", 1.0 / 3.0), ("go", 0.0)],
    );
}

#[test]
fn a_language_is_gone_through_before_a_shard_comes_again() {
    let shards = shards(&[("c", 7, 100), ("rust", 3, 50)]);
    let sampler = Sampler::new(&shards, options()).unwrap();
    let mut by_language: HashMap<&str, Vec<usize>> = HashMap::new();
    for visit in sampler.walk().take(500) {
        assert_eq!((visit.pass, visit.replay), (visit.number / 10, false));
        by_language
            .entry(&shards[visit.shard].language)
            .or_default()
            .push(visit.shard);
    }
    for (language, n) in [("c", 7), ("rust", 3)] {
        let mut orders = HashSet::new();
        for pass in by_language[language].chunks_exact(n) {
            assert_eq!(pass.iter().collect::<HashSet<_>>().len(), n);
            orders.insert(pass.to_vec());
        }
        assert!(orders.len() > 3, "each pass has an order of its own");
    }
}

#[test]
fn a_part_of_the_visits_is_of_the_last_shards() {
    let shards = shards(&[("c", 1000, 100)]);
    let sampler = Sampler::new(
        &shards,
        SamplerOptions {
            replay: 4,
            replay_share: 0.25,
            ..options()
        },
    )
    .unwrap();
    let mut walk = sampler.walk();
    let mut replays = 0;
    for _ in 0..2000 {
        let recent: Vec<usize> = walk.recent().collect();
        let visit = walk.next().unwrap();
        assert!(recent.len() <= 4);
        replays += usize::from(visit.replay);
        assert!(!visit.replay || recent.contains(&visit.shard));
    }
    // Standard deviation 19.
    assert!((420..580).contains(&replays), "{replays}");
}

#[test]
fn the_order_is_a_function_of_its_settings() {
    let shards = shards(&[("c", 50, 100), ("rust", 20, 10)]);
    let visits =
        |options: SamplerOptions| -> Vec<Visit> { Sampler::new(&shards, options).unwrap().walk().take(300).collect() };
    let replaying = SamplerOptions {
        replay: 3,
        replay_share: 0.1,
        ..options()
    };
    assert_eq!(visits(replaying.clone()), visits(replaying.clone()));
    assert_ne!(visits(replaying.clone()), visits(options()));
    assert_ne!(visits(SamplerOptions { seed: 8, ..options() }), visits(options()));
    let ending = SamplerOptions {
        max_visits: 12,
        ..replaying.clone()
    };
    assert_eq!(visits(ending), visits(replaying)[..12]);
}

#[test]
fn what_cannot_be_drawn_from_is_refused() {
    let shards = shards(&[("c", 2, 100)]);
    let refused = |shards: &[Shard], options: SamplerOptions| Sampler::new(shards, options).unwrap_err().to_string();
    let weights = |name: &str, weight| SamplerOptions {
        weights: BTreeMap::from([(name.to_string(), weight)]),
        ..options()
    };
    assert!(refused(&[], options()).contains("no shard"));
    assert!(refused(&shards, weights("perl", 1.0)).contains("no shard of perl; it has c"));
    assert!(refused(&shards, weights("c", 0.0)).contains("has a weight"));
    assert!(refused(&shards, weights("c", -1.0)).contains("is no weight"));
    assert!(refused(&shards, weights("c", f64::NAN)).contains("is no weight"));
    let share = SamplerOptions {
        replay_share: 1.0,
        ..options()
    };
    assert!(refused(&shards, share).contains("--replay-share"));
}
