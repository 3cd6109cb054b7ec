//! The front against its definition.

use onebit_engine::rng::Key;

use super::*;

/// Random points on a small grid, so that equal ones come.
fn points(seed: u64, n: usize) -> Vec<Point> {
    let key = Key::new(seed, 4, 0);
    (0..n as u64)
        .map(|i| Point {
            bytes: 100 + u64::from(key.below(3 * i, 12)),
            loss: 1.0 + f64::from(key.below(3 * i + 1, 12)) / 4.0,
            map: Candidate::new(vec![key.below(3 * i + 2, 4) as u8]),
        })
        .collect()
}

#[test]
fn a_front_is_what_nothing_dominates() {
    for seed in 0..300 {
        let points = points(seed, [0, 1, 2, 7, 31][seed as usize % 5]);
        let front: Front = points.iter().cloned().collect();
        let mut expected: Vec<Point> = (points.iter())
            .filter(|point| !points.iter().any(|other| other.dominates(point)))
            .cloned()
            .collect();
        expected.sort_by(|a, b| a.bytes.cmp(&b.bytes).then(a.map.cmp(&b.map)));
        expected.dedup_by_key(|point| point.bytes);
        assert_eq!(front.points(), expected);
        let backwards: Front = points.iter().rev().cloned().collect();
        assert_eq!(front, backwards);
        for point in &points {
            let dominated = points.iter().any(|other| other.dominates(point));
            assert_eq!(front.dominates(point), dominated);
            let within = points
                .iter()
                .filter(|other| other.bytes <= point.bytes)
                .map(|other| other.loss);
            assert_eq!(
                front.within(point.bytes).unwrap().loss,
                within.fold(f64::INFINITY, f64::min)
            );
            let reaching = points
                .iter()
                .filter(|other| other.loss <= point.loss)
                .map(|other| other.bytes);
            assert_eq!(Some(front.reaching(point.loss).unwrap().bytes), reaching.min());
        }
        assert!(front.within(99).is_none() && front.reaching(0.9).is_none() && front.reaching(f64::NAN).is_none());
    }
}

#[test]
fn the_hypervolume_is_the_area_that_is_dominated() {
    for seed in 0..100 {
        let front: Front = points(seed, 1 + seed as usize % 9).into_iter().collect();
        let (bytes, loss) = (109, 3.0);
        let mut cells = 0.0;
        for b in 95..bytes {
            for l in 0..12 {
                // The cell from (b, l/4) to (b + 1, (l + 1)/4).
                let corner = l as f64 / 4.0;
                let dominated = front
                    .points()
                    .iter()
                    .any(|point| point.bytes <= b && point.loss <= corner);
                cells += if dominated { 0.25 } else { 0.0 };
            }
        }
        assert_eq!(front.hypervolume(bytes, loss), cells, "{seed}");
        assert_eq!(front.hypervolume(0, loss), 0.0);
    }
}

#[test]
fn losses_that_are_no_numbers_are_on_no_front() {
    let mut front = Front::default();
    for loss in [f64::NAN, f64::INFINITY, f64::NEG_INFINITY] {
        let map = Candidate::new(vec![0]);
        assert!(!front.insert(Point { bytes: 1, loss, map }));
    }
    assert!(front.points().is_empty() && front.best().is_none());
}
