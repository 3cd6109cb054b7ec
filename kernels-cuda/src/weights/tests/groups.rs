//! int4's groups at their limits, and rows that are looked up.

use super::*;

/// Groups of zeros, of one sign, too small and too large for the steps of f16, and with one weight far from the others.
#[test]
fn groups_of_every_magnitude_are_the_cpus() {
    let Some(gpu) = Gpu::for_test("weights, groups") else {
        return;
    };
    let mut case = Case::new(&gpu, &[(64, 96, Int4)]);
    let t = case.table.tensors()[0];
    let mut random = Random::new();
    for (i, group) in case.weights[t.master..t.master + t.len()].chunks_mut(32).enumerate() {
        let magnitude = 10f32.powi(i as i32 % 18 - 12);
        for w in group.iter_mut() {
            *w *= magnitude / 0.02;
        }
        match i % 7 {
            0 => group.fill(0.0),
            1 => group.iter_mut().for_each(|w| *w = w.abs()),
            2 => group.iter_mut().for_each(|w| *w = -w.abs()),
            3 => group[random.next() as usize % 32] = 40.0 * magnitude,
            4 => group.fill(magnitude),
            _ => (),
        }
    }
    gpu.write(&case.master, &case.weights).unwrap();
    for anneal in [0.3, 1.0] {
        case.run(0..1, true, true, anneal);
        case.check(0..1, true, true, anneal);
    }
}

#[test]
fn a_group_without_a_step_is_not_a_number() {
    let Some(gpu) = Gpu::for_test("weights, overflow") else {
        return;
    };
    let mut case = Case::new(&gpu, &[(2, 64, Int4)]);
    let t = case.table.tensors()[0];
    case.weights[t.master + 40] = 1e6;
    gpu.write(&case.master, &case.weights).unwrap();
    for anneal in [0.5, 1.0] {
        case.run(0..1, true, true, anneal);
        let dense = gpu.download(&case.dense).unwrap();
        for (i, value) in dense[t.dense..t.dense + t.len()].iter().enumerate() {
            assert_eq!(value.is_nan(), (32..64).contains(&i), "{i}: {value}");
        }
    }
}

#[test]
fn rows_by_id_are_the_cpus() {
    let Some(gpu) = Gpu::for_test("weights, rows") else {
        return;
    };
    let case = Case::new(&gpu, &MATRICES);
    let scales = gpu.zeros::<f32>(case.scales.len()).unwrap();
    for anneal in [0.0, 0.6, 1.0] {
        case.table
            .measure(&gpu, 0..MATRICES.len(), &case.master, &scales)
            .unwrap();
        let anneal_there = gpu.upload(&[anneal]).unwrap();
        for (i, t) in case.table.tensors().iter().enumerate().filter(|(_, t)| t.rows > 0) {
            let last = t.rows as u32 - 1;
            let ids = [last, 0, last / 2, last, last + 1];
            let x = gpu.poisoned::<f32>(ids.len() * t.cols).unwrap();
            let there = gpu.upload(&ids).unwrap();
            case.table
                .rows(&gpu, i, &there, &case.master, &scales, &anneal_there, &x)
                .unwrap();
            let w = effective(t, case.weights_of(t), anneal);
            let gamma = quantised(t, case.weights_of(t)).0;
            for (id, row) in ids.iter().zip(gpu.download(&x).unwrap().chunks(t.cols)) {
                if *id > last {
                    assert!(row.iter().all(|x| x.is_nan()), "{t:?}");
                    continue;
                }
                for (x, e) in row.iter().zip(&w[*id as usize * t.cols..]) {
                    let soft = t.mode == Ternary && 0.0 < anneal && anneal < 1.0;
                    let same = x == e || soft && (x - e).abs() <= 1e-6 * gamma;
                    assert!(same, "{t:?} at {anneal}: {x}, not {e}");
                }
            }
        }
    }
}
