//! The lists against trying every map.

use onebit_engine::rng::Key;

use super::*;
use crate::search::{Choice, Front, Point, Site, Width};

/// Random sites: few sizes, so that sums meet, and rises in eighths, so that sums are exact in any order.
fn instance(seed: u64, n: usize, sizes: u32) -> (Sites, Sensitivity) {
    let key = Key::new(seed, 7, 0);
    let (mut sites, mut table) = (Vec::new(), Vec::new());
    for i in 0..n as u64 {
        let widths = 1 + key.below(1000 * i, 5) as usize;
        let choices = (0..widths).map(|k| Choice {
            width: Width::ALL[k],
            bytes: u64::from(key.below(1000 * i + 1 + k as u64, sizes)),
        });
        let rise = |k: usize| f64::from(key.below(1000 * i + 500 + k as u64, 64)) / 8.0 - 2.0;
        table.push((0..widths).map(rise).collect());
        sites.push(Site {
            name: format!("{i}"),
            choices: choices.collect(),
        });
    }
    let sites = Sites::new(sites, 17).unwrap();
    let rises = Sensitivity::new(table, &sites).unwrap();
    (sites, rises)
}

/// The front of all maps, one after another.
fn brute(sites: &Sites, rises: &Sensitivity) -> Front {
    let mut maps = vec![Vec::new()];
    for site in sites.all() {
        let choices = 0..site.choices.len() as u8;
        maps = maps
            .iter()
            .flat_map(|map: &Vec<u8>| choices.clone().map(|choice| [&map[..], &[choice]].concat()))
            .collect();
    }
    let point = |map: Vec<u8>| {
        let map = Candidate::new(map);
        Point {
            bytes: sites.sum(&map),
            loss: rises.sum(&map),
            map,
        }
    };
    maps.into_iter().map(point).collect()
}

#[test]
fn every_budget_and_every_limit_is_answered_as_by_trying_all_maps() {
    for seed in 0..400 {
        let (sites, rises) = instance(seed, seed as usize % 7, [3, 40, 100_000][seed as usize % 3]);
        let (sums, truth) = (SumFront::new(&sites, &rises, u64::MAX), brute(&sites, &rises));
        assert_eq!(sums.slack(), 0);
        let expected: Vec<(u64, f64)> = truth.points().iter().map(|point| (point.bytes, point.loss)).collect();
        assert_eq!(sums.points().collect::<Vec<_>>(), expected, "{seed}");
        for (i, point) in truth.points().iter().enumerate() {
            let solution = sums.solution(i);
            assert_eq!(
                (sites.sum(&solution.map), rises.sum(&solution.map)),
                (point.bytes, point.loss)
            );
            assert_eq!(sums.within(point.bytes), Some(solution.clone()));
            assert_eq!(sums.reaching(point.loss), Some(solution));
            let just_below = point.bytes.checked_sub(1).and_then(|bytes| sums.within(bytes));
            assert_eq!(just_below, i.checked_sub(1).map(|i| sums.solution(i)));
            let up_to = SumFront::new(&sites, &rises, point.bytes);
            assert_eq!(up_to.points().collect::<Vec<_>>(), expected[..=i]);
        }
        let best = truth.best().unwrap().loss;
        assert_eq!((sums.reaching(best - 0.125), sums.reaching(f64::NAN)), (None, None));
        assert!(SumFront::new(&sites, &rises, truth.points()[0].bytes - 1).is_empty());
    }
}

#[test]
fn a_short_list_is_feasible_and_loses_no_more_than_it_says() {
    let mut thinned = 0;
    for seed in 0..200 {
        let (sites, rises) = instance(seed, 6, 100_000);
        let truth = brute(&sites, &rises);
        for cap in [3, 5, 16] {
            let sums = SumFront::with_cap(&sites, &rises, u64::MAX, cap);
            assert!(sums.len() <= cap);
            thinned += usize::from(sums.slack() > 0);
            for (i, (bytes, rise)) in sums.points().enumerate() {
                let map = sums.solution(i).map;
                assert_eq!((sites.sum(&map), rises.sum(&map)), (bytes, rise));
            }
            for point in truth.points() {
                // The smallest map never goes, so every budget that has a map has an answer.
                let answer = sums.within(point.bytes).unwrap();
                let promised = truth.within(point.bytes.saturating_sub(sums.slack()));
                assert!(
                    promised.is_none_or(|promised| answer.rise <= promised.loss),
                    "{seed} {cap}"
                );
            }
        }
    }
    assert!(thinned > 300, "{thinned}");
}

#[test]
fn a_width_that_never_comes_into_question_is_not_chosen_while_another_fits() {
    let (width, bytes) = (Width::ALL, [90, 40, 10]);
    let choices = (0..3).map(|k| Choice {
        width: width[k],
        bytes: bytes[k],
    });
    let site = Site {
        name: "site".into(),
        choices: choices.collect(),
    };
    let sites = Sites::new(vec![site.clone(), site], 0).unwrap();
    let rises = Sensitivity::new(vec![vec![0.0, 0.5, f64::INFINITY]; 2], &sites).unwrap();
    let sums = SumFront::new(&sites, &rises, u64::MAX);
    let found = |bytes: u64| sums.within(bytes).map(|solution| solution.map.to_string());
    let expected = [
        (180, Some("00")),
        (130, Some("01")),
        (80, Some("11")),
        (79, Some("22")),
        (19, None),
    ];
    for (bytes, map) in expected {
        let found = found(bytes);
        // Two maps of 130 bytes are alike.
        assert!(
            found.as_deref() == map || (bytes, found.as_deref()) == (130, Some("10")),
            "{bytes}: {found:?}"
        );
    }
}

#[test]
fn a_model_of_many_layers_is_solved_exactly() {
    // Shapes of a 2B-4T: q, k, v, o, gate, up, down of 30 layers; rises without a common grid.
    let shapes = [
        2560 * 2560,
        2560 * 640,
        2560 * 640,
        2560 * 2560,
        2560 * 6912,
        2560 * 6912,
        2560 * 6912u64,
    ];
    let (mut sites, mut table) = (Vec::new(), Vec::new());
    let key = Key::new(1, 8, 0);
    for i in 0..210u64 {
        let weights = shapes[i as usize % 7];
        let bytes = [2 * weights, weights, weights / 2, weights / 5, weights / 8];
        let choices = (0..5).map(|k| Choice {
            width: Width::ALL[k],
            bytes: bytes[k].next_multiple_of(64),
        });
        let depth = f64::from(key.uniform(10 * i)) * 0.05;
        table.push(
            (0..5u64)
                .map(|k| depth * ((1u64 << (2 * k)) as f64 + f64::from(key.uniform(10 * i + k))))
                .collect(),
        );
        sites.push(Site {
            name: format!("{i}"),
            choices: choices.collect(),
        });
    }
    let sites = Sites::new(sites, 300_000_000).unwrap();
    let rises = Sensitivity::new(table, &sites).unwrap();
    let sums = SumFront::new(&sites, &rises, u64::MAX);
    assert!(
        sums.slack() == 0 && sums.len() > 5000,
        "{} {}",
        sums.slack(),
        sums.len()
    );
    // Against the relaxation by prices: for any price of a byte, no map has less than the sum of each site's least (rise + price·bytes).
    for i in (0..sums.len()).step_by(sums.len() / 50) {
        let solution = sums.solution(i);
        let price = 1e-9 * (i + 1) as f64;
        let least = |site: usize| {
            let cost = |(k, choice): (usize, &Choice)| rises.rise(site, k as u8) + price * choice.bytes as f64;
            sites.all()[site]
                .choices
                .iter()
                .enumerate()
                .map(cost)
                .fold(f64::INFINITY, f64::min)
        };
        let bound: f64 = (0..210).map(least).sum::<f64>() + price * sites.base() as f64;
        assert!(solution.rise + price * solution.bytes as f64 >= bound - 1e-9);
        assert!((rises.sum(&solution.map) - solution.rise).abs() < 1e-9);
        assert_eq!(sites.sum(&solution.map), solution.bytes);
    }
}

#[test]
fn sizes_without_a_common_grid_are_solved_exactly_too() {
    let key = Key::new(2, 9, 0);
    let (mut sites, mut table) = (Vec::new(), Vec::new());
    for i in 0..58u64 {
        let bytes =
            |k: u64| (1_000_000 + u64::from(key.below(10 * i, 9_000_000))) * [16, 8, 4, 2, 1][k as usize] / 16 + k;
        let choices = (0..5).map(|k| Choice {
            width: Width::ALL[k as usize],
            bytes: bytes(k),
        });
        let depth = f64::from(key.uniform(10 * i + 1));
        table.push(
            (0..5)
                .map(|k| depth * f64::from(k * k) + f64::from(key.uniform(10 * i + 2 + k as u64)))
                .collect(),
        );
        sites.push(Site {
            name: format!("{i}"),
            choices: choices.collect(),
        });
    }
    let sites = Sites::new(sites, 0).unwrap();
    let rises = Sensitivity::new(table, &sites).unwrap();
    let sums = SumFront::new(&sites, &rises, u64::MAX);
    let range = sites.sum(&sites.highest()) - sites.sum(&sites.lowest());
    assert!(
        sums.len() > 4000 && sums.slack() == 0,
        "{} {}",
        sums.len(),
        sums.slack()
    );
    // Short lists lose what they say, and that is little.
    let short = SumFront::with_cap(&sites, &rises, u64::MAX, 512);
    assert!(
        short.len() <= 512 && short.slack() > 0 && short.slack() < range / 10,
        "{} of {range}",
        short.slack()
    );
    for part in 1..40 {
        let budget = sites.sum(&sites.lowest()) + range / 40 * part;
        let (answer, best) = (short.within(budget).unwrap(), sums.within(budget).unwrap());
        let promised = sums.within(budget.saturating_sub(short.slack()));
        assert!(promised.is_none_or(|promised| answer.rise <= promised.rise + 1e-9) && answer.rise >= best.rise - 1e-9);
    }
}
