use half::bf16;
use onebit_kernels_cpu::rope as cpu;

use super::*;
use crate::attention::tests::median;

fn random(state: &mut u64) -> f64 {
    *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mut z = *state;
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    ((z ^ (z >> 31)) >> 11) as f64 / (1u64 << 52) as f64 - 1.0
}

fn seed() -> u64 {
    let seed = std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .map_or(1, |t| t.as_nanos() as u64);
    println!("seed {seed}");
    seed
}

fn shape_of(batch: usize, seq: usize, heads: usize, kv_heads: usize, head_dim: usize) -> AttentionShape {
    AttentionShape {
        batch,
        seq,
        heads,
        kv_heads,
        head_dim,
    }
}

fn shapes() -> Vec<AttentionShape> {
    let mut shapes = vec![shape_of(0, 5, 2, 1, 64), shape_of(2, 0, 2, 1, 64)];
    for head_dim in [8, 16, 24, 32, 64, 80, 128] {
        for (batch, seq, heads, kv_heads) in [(1, 1, 1, 1), (2, 7, 4, 2), (1, 33, 3, 1), (3, 13, 8, 8)] {
            shapes.push(shape_of(batch, seq, heads, kv_heads, head_dim));
        }
    }
    shapes
}

const THETA: f64 = 1e4;
const EPS: f32 = 1e-5;

/// ‖x − reference‖ / ‖reference‖ of bf16 or f32.
fn distance(x: impl Iterator<Item = f64>, reference: &[f64]) -> f64 {
    let difference: f64 = x.zip(reference).map(|(x, r)| (x - r).powi(2)).sum();
    let norm: f64 = reference.iter().map(|r| r * r).sum();
    (difference / norm.max(1e-30)).sqrt()
}

fn bf16s(x: &[bf16]) -> impl Iterator<Item = f64> {
    x.iter().map(|x| x.to_f64())
}

/// Turns every head but the values' in f64.
fn turn(shape: &AttentionShape, x: &mut [f64], sign: f64) {
    let half = shape.head_dim / 2;
    for (token, row) in x.chunks_mut(shape.qkv_row()).enumerate() {
        for head in row.chunks_mut(shape.head_dim).take(shape.heads + shape.kv_heads) {
            for i in 0..half {
                let angle = (token % shape.seq) as f64 * THETA.powf(-(i as f64) / half as f64);
                let (sin, cos) = angle.sin_cos();
                let (a, b) = (head[i], head[i + half]);
                head[i] = a * cos - sign * b * sin;
                head[i + half] = b * cos + sign * a * sin;
            }
        }
    }
}

/// The norm of every head but the values' in f64.
fn norm_heads(shape: &AttentionShape, x: &mut [f64], weights: [&[f32]; 2]) {
    for row in x.chunks_mut(shape.qkv_row()) {
        for (h, head) in row
            .chunks_mut(shape.head_dim)
            .take(shape.heads + shape.kv_heads)
            .enumerate()
        {
            let w = weights[usize::from(h >= shape.heads)];
            let mean = head.iter().map(|x| x * x).sum::<f64>() / head.len() as f64;
            let r = 1.0 / (mean + f64::from(EPS)).sqrt();
            head.iter_mut().zip(w).for_each(|(x, w)| *x *= r * f64::from(*w));
        }
    }
}

/// The backward of [`norm_heads`]: changes `g`, returns the gradients of the weights.
fn norm_heads_backward(shape: &AttentionShape, x: &[f64], g: &mut [f64], weights: [&[f32]; 2]) -> [Vec<f64>; 2] {
    let n = shape.head_dim;
    let mut dw = [vec![0.0; n], vec![0.0; n]];
    for (x, g) in x.chunks(shape.qkv_row()).zip(g.chunks_mut(shape.qkv_row())) {
        let heads = x.chunks(n).zip(g.chunks_mut(n)).take(shape.heads + shape.kv_heads);
        for (h, (x, g)) in heads.enumerate() {
            let kind = usize::from(h >= shape.heads);
            let w = weights[kind];
            let squares = x.iter().map(|x| x * x).sum::<f64>();
            let r = if squares == 0.0 {
                0.0
            } else {
                1.0 / (squares / n as f64 + f64::from(EPS)).sqrt()
            };
            let c = (0..n).map(|i| g[i] * f64::from(w[i]) * x[i] * r).sum::<f64>() / n as f64;
            for i in 0..n {
                dw[kind][i] += g[i] * x[i] * r;
                g[i] = r * (g[i] * f64::from(w[i]) - x[i] * r * c);
            }
        }
    }
    dw
}

fn inputs(shape: &AttentionShape, state: &mut u64) -> Vec<bf16> {
    (0..shape.tokens() * shape.qkv_row())
        .map(|_| bf16::from_f64(2.0 * random(state)))
        .collect()
}

fn weights(shape: &AttentionShape, state: &mut u64) -> Vec<f32> {
    (0..shape.head_dim)
        .map(|_| (1.0 + 0.5 * random(state)) as f32)
        .collect()
}

/// What is stored in bf16 is off by at most half a unit in the last place: 2^-9 of it, on average less.
const ROUNDING: f64 = 3e-3;

#[test]
fn it_turns_in_place_to_another_array_and_back() {
    let Some(gpu) = Gpu::for_test("rope") else { return };
    let mut state = seed();
    for shape in shapes() {
        let values = inputs(&shape, &mut state);
        let table = RopeTable::new(&gpu, THETA, shape.head_dim, shape.seq + 3).unwrap();
        let qkv = gpu.upload(&values).unwrap();
        let out = gpu.poisoned(qkv.len()).unwrap();
        rope(&gpu, shape, &table, None, &qkv, &out).unwrap();
        let mut expected: Vec<f64> = bf16s(&values).collect();
        if shape.seq > 0 {
            turn(&shape, &mut expected, 1.0);
        }
        let turned = gpu.download(&out).unwrap();
        assert!(distance(bf16s(&turned), &expected) < ROUNDING, "{shape:?}");
        rope(&gpu, shape, &table, None, &qkv, &qkv).unwrap();
        assert!(gpu.download(&qkv).unwrap() == turned, "{shape:?} in place");
        rope_backward(&gpu, shape, &table, &qkv).unwrap();
        let back = gpu.download(&qkv).unwrap();
        let values: Vec<f64> = bf16s(&values).collect();
        assert!(distance(bf16s(&back), &values) < 2.0 * ROUNDING, "{shape:?} and back");
    }
}

#[test]
fn it_is_what_the_cpu_computes() {
    let Some(gpu) = Gpu::for_test("rope against the CPU's") else {
        return;
    };
    let mut state = seed();
    let shape = shape_of(1, 50, 3, 1, 64);
    let values = inputs(&shape, &mut state);
    let table = RopeTable::new(&gpu, THETA, 64, 50).unwrap();
    let qkv = gpu.upload(&values).unwrap();
    rope(&gpu, shape, &table, None, &qkv, &qkv).unwrap();
    let (mut cos, mut sin) = (vec![0.0; 50 * 32], vec![0.0; 50 * 32]);
    cpu::rope_table(THETA, 64, 0, &mut cos, &mut sin);
    let on_gpu = gpu.download(&table.cos).unwrap();
    assert!(on_gpu.iter().zip(&cos).all(|(a, b)| (a - b).abs() < 1e-6));
    let turned: Vec<f32> = values
        .chunks(320)
        .flat_map(|r| r[..256].iter().map(|x| x.to_f32()))
        .collect();
    let mut turned = turned;
    cpu::rope(
        onebit_kernels_cpu::isa::Isa::best(),
        &mut turned,
        4,
        64,
        &cos,
        &sin,
        false,
    );
    let expected: Vec<f64> = turned.iter().map(|&x| f64::from(x)).collect();
    let out = gpu.download(&qkv).unwrap();
    let out: Vec<bf16> = out.chunks(320).flat_map(|r| r[..256].to_vec()).collect();
    assert!(distance(bf16s(&out), &expected) < ROUNDING);
}

#[test]
fn a_norm_goes_before_it() {
    let Some(gpu) = Gpu::for_test("rope with a norm") else {
        return;
    };
    let mut state = seed();
    for shape in shapes() {
        let mut values = inputs(&shape, &mut state);
        let gradients = inputs(&shape, &mut state);
        // The second token is a word that was dropped at the beginning of a text.
        if let Some(token) = values.chunks_mut(shape.qkv_row()).nth(1) {
            token.fill(bf16::ZERO);
        }
        let [wq, wk] = [weights(&shape, &mut state), weights(&shape, &mut state)];
        let table = RopeTable::new(&gpu, THETA, shape.head_dim, shape.seq).unwrap();
        let (q, k) = (gpu.upload(&wq).unwrap(), gpu.upload(&wk).unwrap());
        let norm = QkNorm { q: &q, k: &k, eps: EPS };
        let (qkv, dqkv) = (gpu.upload(&values).unwrap(), gpu.upload(&gradients).unwrap());
        let out = gpu.poisoned(qkv.len()).unwrap();
        rope(&gpu, shape, &table, Some(norm), &qkv, &out).unwrap();
        let x: Vec<f64> = bf16s(&values).collect();
        let (mut expected, mut g) = (x.clone(), bf16s(&gradients).collect::<Vec<_>>());
        if shape.seq > 0 {
            norm_heads(&shape, &mut expected, [&wq, &wk]);
            turn(&shape, &mut expected, 1.0);
            turn(&shape, &mut g, -1.0);
        }
        assert!(
            distance(bf16s(&gpu.download(&out).unwrap()), &expected) < ROUNDING,
            "{shape:?}"
        );

        let dw = norm_heads_backward(&shape, &x, &mut g, [&wq, &wk]);
        let partials = gpu.poisoned(rope_norm_partials(shape)).unwrap();
        let (dq, dk) = (
            gpu.poisoned(shape.head_dim).unwrap(),
            gpu.poisoned(shape.head_dim).unwrap(),
        );
        let backward = |dqkv, accumulate| {
            rope_norm_backward(&gpu, shape, &table, norm, &qkv, dqkv, &dq, &dk, accumulate, &partials).unwrap();
        };
        backward(&dqkv, false);
        let first = [gpu.download(&dq).unwrap(), gpu.download(&dk).unwrap()];
        let result = gpu.download(&dqkv).unwrap();
        assert!(distance(bf16s(&result), &g) < ROUNDING, "{shape:?}: dqkv");
        for (dw, expected) in first.iter().zip(&dw) {
            assert!(
                distance(dw.iter().map(|&x| f64::from(x)), expected) < 1e-4,
                "{shape:?}: dw"
            );
        }
        // Once more, added to the first: twice that, and the same bytes of what is in place.
        let again = gpu.upload(&gradients).unwrap();
        backward(&again, true);
        assert!(gpu.download(&again).unwrap() == result, "{shape:?}: again");
        for (array, first) in [&dq, &dk].into_iter().zip(first) {
            let doubled: Vec<f32> = first.iter().map(|x| 2.0 * x).collect();
            assert_eq!(gpu.download(array).unwrap(), doubled, "{shape:?}: accumulated");
        }
    }
}

#[test]
fn shapes_that_do_not_fit_are_refused() {
    let Some(gpu) = Gpu::for_test("rope's shapes") else {
        return;
    };
    let shape = shape_of(1, 8, 2, 1, 64);
    let qkv = gpu.zeros(8 * 256).unwrap();
    let table = RopeTable::new(&gpu, THETA, 64, 8).unwrap();
    rope(&gpu, shape, &table, None, &qkv, &qkv).unwrap();
    let refused = |answer: Result<()>| matches!(answer, Err(CudaError::Shape { .. }));
    assert!(refused(rope(&gpu, shape_of(1, 9, 2, 1, 64), &table, None, &qkv, &qkv)));
    assert!(refused(rope_backward(&gpu, shape_of(2, 8, 2, 1, 64), &table, &qkv)));
    assert!(refused(rope_backward(&gpu, shape_of(1, 8, 4, 2, 32), &table, &qkv)));
    let w = gpu.zeros(64).unwrap();
    let norm = QkNorm { q: &w, k: &w, eps: EPS };
    assert!(refused(rope(&gpu, shape, &table, Some(norm), &qkv, &qkv)));
    assert!(RopeTable::new(&gpu, THETA, 7, 8).is_err());
}

#[test]
#[ignore = "a bench"]
fn bench_rope() {
    let Some(gpu) = Gpu::for_test("rope bench") else { return };
    for (batch, seq, heads, kv_heads, head_dim) in [
        (256, 256, 8, 8, 64),
        (64, 1024, 12, 12, 64),
        (8, 2048, 32, 32, 64),
        (8, 2048, 32, 8, 128),
    ] {
        let shape = shape_of(batch, seq, heads, kv_heads, head_dim);
        let qkv = gpu.zeros::<bf16>(shape.tokens() * shape.qkv_row()).unwrap();
        let out = gpu.zeros::<bf16>(qkv.len()).unwrap();
        let table = RopeTable::new(&gpu, THETA, head_dim, seq).unwrap();
        let (w, dw) = (gpu.zeros(head_dim).unwrap(), gpu.zeros(head_dim).unwrap());
        let partials = gpu.zeros(rope_norm_partials(shape)).unwrap();
        let norm = QkNorm { q: &w, k: &w, eps: EPS };
        let turned = (shape.tokens() * (heads + kv_heads) * head_dim) as f64;
        let report = |name: &str, bytes: f64, run: &dyn Fn()| {
            let seconds = median(&gpu, run);
            let rate = bytes / seconds / 1e9;
            println!(
                "{name} {batch}x{seq} heads {heads}/{kv_heads} of {head_dim}: {:.1} us, {rate:.0} GB/s",
                seconds * 1e6
            );
        };
        report("rope in place", 4.0 * turned, &|| {
            rope(&gpu, shape, &table, None, &qkv, &qkv).unwrap()
        });
        report("rope with a norm", 2.0 * qkv.bytes() as f64, &|| {
            rope(&gpu, shape, &table, Some(norm), &qkv, &out).unwrap();
        });
        report("rope with a norm, backward", 6.0 * turned, &|| {
            rope_norm_backward(
                &gpu,
                shape,
                &table,
                norm,
                &qkv,
                &out,
                &dw,
                &dw.clone(),
                false,
                &partials,
            )
            .unwrap();
        });
    }
}
