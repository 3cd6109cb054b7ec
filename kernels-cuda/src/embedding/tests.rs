//! The planner against what a plan must be, and the kernels against the same sums in the same order.

use half::bf16;
use onebit_kernels_cpu::rng::Key;

use super::planner::PARTIAL;
use super::*;

fn seed(test: &str) -> u64 {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    let seed = now.map_or(1, |d| d.as_nanos() as u64);
    println!("{test}: seed {seed}");
    seed
}

/// Ids of which a few are frequent, as in text.
fn text(key: &Key, tokens: usize, vocab: usize) -> Vec<u32> {
    let id = |i: u64| ((vocab as f32).powf(key.uniform(i)) - 1.0) as u32;
    (0..tokens as u64).map(|i| id(i).min(vocab as u32 - 1)).collect()
}

fn plan_of(shape: PlanShape, ids: &[u32]) -> Vec<u32> {
    let mut planner = Planner::new(shape).unwrap();
    // What was there before must not matter, neither in the planner nor in the plan.
    let mut plan = vec![u32::MAX; shape.words()];
    planner.plan(&vec![0; shape.tokens], &mut plan).unwrap();
    planner.plan(ids, &mut plan).unwrap();
    plan
}

fn batches(key: &Key) -> Vec<(PlanShape, Vec<u32>)> {
    let shape = |tokens, vocab| PlanShape { tokens, vocab };
    let mut batches = vec![
        (shape(1, 1), vec![0]),
        (shape(2, 70), vec![69, 69]),
        (shape(500, 3), vec![2; 500]),
        (shape(64, 64), (0..64).rev().collect()),
        // Every id just frequent enough to have partial sums: the most rows of them that there can be.
        (shape(330, 10), (0..330).map(|i| i % 10).collect()),
    ];
    for (tokens, vocab) in [(31, 5), (33, 40), (1000, 97), (4096, 300)] {
        batches.push((shape(tokens, vocab), text(key, tokens, vocab)));
    }
    batches
}

#[test]
fn a_plan_has_every_position_once_in_order() {
    let key = Key::new(seed("plans"), 0, 0);
    for (shape, ids) in batches(&key) {
        let plan = plan_of(shape, &ids);
        let counts = &plan[..4];
        let segments = &plan[shape.segments_at()..shape.frequent_at()];
        let frequent = &plan[shape.frequent_at()..shape.order_at()];
        let order = &plan[shape.order_at()..shape.present_at()];
        let present = &plan[shape.present_at()..];
        let mut rows = vec![None; shape.partial_rows()];
        for f in frequent[..3 * counts[1] as usize].chunks(3) {
            for row in f[1]..f[1] + f[2] {
                assert!(
                    rows[row as usize].replace(f[0]).is_none(),
                    "a row of partial sums has one id"
                );
            }
        }
        let (mut seen, mut used, mut last_row) = (Vec::new(), vec![false; shape.vocab], None);
        for s in 0..counts[0] as usize {
            let (start, end) = (segments[2 * s] as usize, segments[2 * s + 2] as usize);
            assert!(start < end && end - start <= SEGMENT && start == seen.len());
            let positions = &order[start..end];
            let id = ids[positions[0] as usize];
            assert!(positions.is_sorted_by(|a, b| a < b) && positions.iter().all(|&p| ids[p as usize] == id));
            match segments[2 * s + 1] {
                partial if partial & PARTIAL != 0 => {
                    let row = partial & !PARTIAL;
                    assert_eq!(rows[row as usize], Some(id));
                    assert!(last_row.replace(row) < Some(row), "the pieces of an id are in order");
                }
                direct => assert!(direct == id && !used[id as usize], "an id is written once"),
            }
            used[id as usize] = true;
            seen.extend_from_slice(positions);
        }
        seen.sort_unstable();
        assert!(seen.iter().enumerate().all(|(i, &p)| p == i as u32) && seen.len() == shape.tokens);
        for (id, used) in used.iter().enumerate() {
            assert_eq!(present[id / 32] >> (id % 32) & 1 == 1, *used);
        }
    }
}

#[test]
fn an_id_outside_the_table_is_refused() {
    let shape = PlanShape { tokens: 3, vocab: 10 };
    let mut planner = Planner::new(shape).unwrap();
    let mut plan = vec![0; shape.words()];
    let error = planner.plan(&[1, 10, 2], &mut plan).unwrap_err();
    assert_eq!(error.to_string(), "embedding plan: expected ids below 10, found 10");
    assert!(planner.plan(&[1, 2], &mut plan).is_err());
    assert!(planner.plan(&[1, 2, 3], &mut plan[1..]).is_err());
}

#[test]
fn rows_are_those_of_the_ids() {
    let Some(gpu) = Gpu::for_test("embedding") else { return };
    let key = Key::new(seed("embedding"), 0, 0);
    for (tokens, vocab, dim) in [(0, 5, 4), (1, 1, 4), (7, 30, 12), (65, 11, 516), (3, 9, 2048)] {
        let table: Vec<f32> = (0..vocab * dim).map(|i| key.normal(i as u64)).collect();
        let mut ids = text(&key, tokens, vocab);
        if let Some(last) = ids.last_mut() {
            *last = vocab as u32;
        }
        let x = gpu.poisoned::<f32>(tokens * dim).unwrap();
        let narrow = gpu.poisoned::<bf16>(tokens * dim).unwrap();
        let (t, i) = (gpu.upload(&table).unwrap(), gpu.upload(&ids).unwrap());
        embedding(&gpu, &t, &i, dim, &x, Some(&narrow)).unwrap();
        let (x, narrow) = (gpu.download(&x).unwrap(), gpu.download(&narrow).unwrap());
        for t in 0..tokens {
            let row = &x[t * dim..][..dim];
            if ids[t] < vocab as u32 {
                assert_eq!(row, &table[ids[t] as usize * dim..][..dim]);
            } else {
                assert!(row.iter().all(|x| x.is_nan()));
            }
            for (x, n) in row.iter().zip(&narrow[t * dim..]) {
                assert!(n.to_bits() == bf16::from_f32(*x).to_bits() || x.is_nan() && n.is_nan());
            }
        }
        let alone = gpu.poisoned::<f32>(tokens * dim).unwrap();
        embedding(&gpu, &t, &i, dim, &alone, None).unwrap();
        let alone = gpu.download(&alone).unwrap();
        assert!(alone.iter().zip(&x).all(|(a, b)| a.to_bits() == b.to_bits()));
    }
}

/// The sums that the kernels form, in their order.
fn twin(ids: &[u32], dx: &[f32], dim: usize, dtable: &mut [f32], accumulate: bool) {
    for (id, row) in dtable.chunks_mut(dim).enumerate() {
        let positions: Vec<usize> = (0..ids.len()).filter(|&t| ids[t] == id as u32).collect();
        for (c, out) in row.iter_mut().enumerate() {
            let pieces: Vec<f32> = positions
                .chunks(SEGMENT)
                .map(|piece| piece.iter().fold(0.0, |sum, t| sum + dx[t * dim + c]))
                .collect();
            let total = match pieces[..] {
                [] => 0.0,
                [one] => one,
                _ => {
                    let mut sums = [0.0f32; 16];
                    let each = pieces.len().div_ceil(16);
                    for (sum, group) in sums.iter_mut().zip(pieces.chunks(each)) {
                        *sum = group.iter().fold(0.0, |sum, x| sum + x);
                    }
                    sums[1..].iter().fold(sums[0], |total, x| total + x)
                }
            };
            *out = if accumulate { *out + total } else { total };
        }
    }
}

#[test]
fn the_gradient_is_the_sum_over_positions() {
    let Some(gpu) = Gpu::for_test("embedding backward") else {
        return;
    };
    let key = Key::new(seed("embedding backward"), 0, 0);
    let mut batches = batches(&key);
    if !gpu.properties().name.contains("emulated") {
        let shape = PlanShape {
            tokens: 20_000,
            vocab: 3000,
        };
        batches.push((shape, text(&key, 20_000, 3000)));
    }
    for (shape, ids) in batches {
        let plan = gpu.upload(&plan_of(shape, &ids)).unwrap();
        for dim in [4, 132, 516] {
            let dx: Vec<f32> = (0..ids.len() * dim).map(|i| key.normal(i as u64)).collect();
            let before: Vec<f32> = (0..shape.vocab * dim).map(|i| key.normal(1 << 40 | i as u64)).collect();
            let device_dx = gpu.upload(&dx).unwrap();
            for accumulate in [true, false] {
                let partials = gpu.poisoned::<f32>(shape.partial_rows() * dim).unwrap();
                let dtable = if accumulate {
                    gpu.upload(&before)
                } else {
                    gpu.poisoned(before.len())
                }
                .unwrap();
                embedding_backward(&gpu, &device_dx, &plan, shape, &partials, &dtable, accumulate).unwrap();
                let got = gpu.download(&dtable).unwrap();
                let mut want = before.clone();
                twin(&ids, &dx, dim, &mut want, accumulate);
                assert!(got == want, "{shape:?} {dim} {accumulate}");
                // The twin itself, against the CPU's sums.
                let mut plain = if accumulate {
                    before.clone()
                } else {
                    vec![0.0; before.len()]
                };
                onebit_kernels_cpu::embedding::scatter_add(onebit_kernels_cpu::Isa::best(), &dx, dim, &ids, &mut plain);
                let error: f32 = got.iter().zip(&plain).map(|(a, b)| (a - b).powi(2)).sum();
                let size: f32 = plain.iter().map(|x| x * x).sum();
                assert!(error <= 1e-10 * size, "{shape:?} {dim}: {error} of {size}");
            }
        }
    }
}

#[test]
fn one_recording_serves_every_batch() {
    let Some(gpu) = Gpu::for_test("embedding backward, recorded") else {
        return;
    };
    let key = Key::new(seed("recorded"), 0, 0);
    let (shape, dim) = (PlanShape { tokens: 200, vocab: 50 }, 8);
    let dx: Vec<f32> = (0..200 * dim).map(|i| key.normal(i as u64)).collect();
    let device_dx = gpu.upload(&dx).unwrap();
    let plan = gpu.zeros::<u32>(shape.words()).unwrap();
    let partials = gpu.zeros::<f32>(shape.partial_rows() * dim).unwrap();
    let dtable = gpu.poisoned::<f32>(50 * dim).unwrap();
    let graph = gpu
        .record(|| embedding_backward(&gpu, &device_dx, &plan, shape, &partials, &dtable, false))
        .unwrap();
    for ids in [vec![7; 200], (0..200).map(|i| i % 50).collect(), text(&key, 200, 50)] {
        gpu.write(&plan, &plan_of(shape, &ids)).unwrap();
        graph.launch().unwrap();
        let mut want = vec![0.0; 50 * dim];
        twin(&ids, &dx, dim, &mut want, false);
        assert!(gpu.download(&dtable).unwrap() == want);
    }
    // A plan of nonsense goes nowhere outside the arrays.
    gpu.fill_bytes(&plan, 0xff).unwrap();
    graph.launch().unwrap();
    gpu.synchronize().unwrap();
}

#[test]
fn shapes_that_do_not_fit_are_refused() {
    let Some(gpu) = Gpu::for_test("shapes of embeddings") else {
        return;
    };
    let ids = gpu.zeros::<u32>(6).unwrap();
    let [table, x] = [5 * 8, 6 * 8].map(|n| gpu.zeros::<f32>(n).unwrap());
    assert!(embedding(&gpu, &table, &ids, 8, &x, None).is_ok());
    assert!(embedding(&gpu, &table, &ids, 6, &x, None).is_err());
    assert!(embedding(&gpu, &table, &ids, 8, &x.slice(..40), None).is_err());
    assert!(embedding(&gpu, &table, &ids, 0, &x, None).is_err());
    let shape = PlanShape { tokens: 6, vocab: 5 };
    let plan = gpu.upload(&plan_of(shape, &[0, 1, 2, 3, 4, 4])).unwrap();
    let partials = gpu.zeros::<f32>(shape.partial_rows() * 8).unwrap();
    let run = |dx: &DeviceArray<f32>, plan: &DeviceArray<u32>, dtable: &DeviceArray<f32>| {
        embedding_backward(&gpu, dx, plan, shape, &partials, dtable, true)
    };
    assert!(run(&x, &plan, &table).is_ok());
    assert!(run(&x.slice(..40), &plan, &table).is_err());
    assert!(run(&x, &plan.slice(1..), &table).is_err());
    assert!(run(&x, &plan, &table.slice(..32)).is_err());
}

#[test]
#[ignore = "a bench"]
fn bench_embedding() {
    let Some(gpu) = Gpu::for_test("bench of embeddings") else {
        return;
    };
    for (tokens, vocab, dim) in [
        (65_536, 8192, 512),
        (65_536, 32_768, 768),
        (16_384, 32_768, 2048),
        (8192, 128_256, 2560),
    ] {
        let shape = PlanShape { tokens, vocab };
        let ids = text(&Key::new(1, 0, 0), tokens, vocab);
        let mut planner = Planner::new(shape).unwrap();
        let mut words = vec![0; shape.words()];
        let start = std::time::Instant::now();
        planner.plan(&ids, &mut words).unwrap();
        let planned = start.elapsed().as_secs_f64();
        let (plan, device_ids) = (gpu.upload(&words).unwrap(), gpu.upload(&ids).unwrap());
        let [table, dtable] = [0; 2].map(|_| gpu.zeros::<f32>(vocab * dim).unwrap());
        let x = gpu.zeros::<f32>(tokens * dim).unwrap();
        let partials = gpu.zeros::<f32>(shape.partial_rows() * dim).unwrap();
        let time = |run: &dyn Fn()| {
            let mut times: Vec<f64> = (0..15)
                .map(|_| {
                    let start = gpu.mark().unwrap();
                    run();
                    gpu.mark().unwrap().seconds_since(&start).unwrap()
                })
                .collect();
            times.sort_by(f64::total_cmp);
            times[7]
        };
        let forward = time(&|| embedding(&gpu, &table, &device_ids, dim, &x, None).unwrap());
        let [add, fresh] =
            [true, false].map(|a| time(&|| embedding_backward(&gpu, &x, &plan, shape, &partials, &dtable, a).unwrap()));
        let moved = |seconds: f64, elements: usize| (4 * elements) as f64 / seconds / 1e9;
        println!(
            "embedding [{tokens}, {dim}] of {vocab}: forward {:.1} us ({:.0} GB/s), backward onto the head's {:.1} us ({:.0} GB/s of dx), \
             alone {:.1} us ({:.0} GB/s of dx and zeros), plan {:.0} us on the host",
            forward * 1e6,
            moved(forward, 2 * tokens * dim),
            add * 1e6,
            moved(add, tokens * dim),
            fresh * 1e6,
            moved(fresh, (tokens + vocab) * dim),
            planned * 1e6,
        );
    }
}
