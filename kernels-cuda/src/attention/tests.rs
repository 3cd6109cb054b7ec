use half::bf16;
use onebit_kernels_cpu::rng::Key;
use onebit_kernels_cpu::{attention as cpu, isa};

use super::backward::attention_backward_by;
use super::forward::attention_by;
use super::*;
use crate::device::Gpu;
use crate::dropout::Dropout;
use crate::rope::{RopeTable, rope_backward};

/// Uniform in −1..1, times `scale`, as bf16.
pub(super) fn random(state: &mut u64, len: usize, scale: f32) -> Vec<bf16> {
    let mut next = || {
        *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = *state;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((z ^ (z >> 31)) >> 40) as f32 / (1 << 23) as f32 - 1.0
    };
    (0..len).map(|_| bf16::from_f32(next() * scale)).collect()
}

pub(super) fn seed() -> u64 {
    let seed = std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .map_or(1, |t| t.as_nanos() as u64);
    println!("seed {seed}");
    seed
}

/// ‖x − reference‖ / ‖reference‖.
pub(super) fn distance(x: &[bf16], reference: &[f64]) -> f64 {
    assert_eq!(x.len(), reference.len());
    let (mut difference, mut norm) = (0.0, 0.0);
    for (x, r) in x.iter().zip(reference) {
        difference += (x.to_f64() - r).powi(2);
        norm += r * r;
    }
    // A single key has no gradient through the softmax: what is left is rounding, against a norm of nothing.
    (difference / norm.max(1e-6 * x.len() as f64)).sqrt()
}

pub(super) struct Reference {
    o: Vec<f64>,
    lse: Vec<f64>,
    dqkv: Vec<f64>,
}

/// The formulas of the module's page in f64, with dropout of probability `mask.0` by the numbers of `mask.1`.
pub(super) fn reference(shape: &AttentionShape, mask: Option<(f32, Key)>, qkv: &[bf16], d_o: &[bf16]) -> Reference {
    let AttentionShape {
        batch,
        seq,
        heads,
        kv_heads,
        head_dim: n,
    } = *shape;
    let (row, o_row) = (shape.qkv_row(), shape.o_row());
    let qkv: Vec<f64> = qkv.iter().map(|x| x.to_f64()).collect();
    let d_o: Vec<f64> = d_o.iter().map(|x| x.to_f64()).collect();
    let scale = 1.0 / (n as f64).sqrt();
    let dot = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f64>();
    let mut r = Reference {
        o: vec![0.0; shape.tokens() * o_row],
        lse: vec![0.0; shape.rows()],
        dqkv: vec![0.0; qkv.len()],
    };
    for s in 0..batch {
        for h in 0..heads {
            let kv = h / (heads / kv_heads);
            for i in 0..seq {
                let q_at = (s * seq + i) * row + h * n;
                let k_at = |j: usize| (s * seq + j) * row + (heads + kv) * n;
                let v_at = |j: usize| k_at(j) + kv_heads * n;
                let o_at = (s * seq + i) * o_row + h * n;
                let scores: Vec<f64> = (0..=i)
                    .map(|j| dot(&qkv[q_at..][..n], &qkv[k_at(j)..][..n]) * scale)
                    .collect();
                let most = scores.iter().copied().fold(f64::NEG_INFINITY, f64::max);
                let lse = most + scores.iter().map(|s| (s - most).exp()).sum::<f64>().ln();
                r.lse[(s * heads + h) * seq + i] = lse;
                let p: Vec<f64> = scores.iter().map(|s| (s - lse).exp()).collect();
                // The numbers of a row begin at a multiple of four.
                let first = ((s * heads + h) * seq + i) * seq.div_ceil(4) * 4;
                let factor = |j: usize| match mask {
                    Some((p, key)) if key.uniform((first + j) as u64) < p => 0.0,
                    Some((p, _)) => 1.0 / (1.0 - f64::from(p)),
                    None => 1.0,
                };
                let m: Vec<f64> = (0..=i).map(factor).collect();
                for j in 0..=i {
                    for c in 0..n {
                        r.o[o_at + c] += p[j] * m[j] * qkv[v_at(j) + c];
                    }
                }
                let delta = dot(&d_o[o_at..][..n], &r.o[o_at..][..n]);
                for j in 0..=i {
                    let ds = p[j] * (m[j] * dot(&d_o[o_at..][..n], &qkv[v_at(j)..][..n]) - delta) * scale;
                    for c in 0..n {
                        r.dqkv[v_at(j) + c] += p[j] * m[j] * d_o[o_at + c];
                        r.dqkv[q_at + c] += ds * qkv[k_at(j) + c];
                        r.dqkv[k_at(j) + c] += ds * qkv[q_at + c];
                    }
                }
            }
        }
    }
    r
}

/// The kernels that the GPU has for the shape: whether they are Hopper's own.
fn paths(gpu: &Gpu, shape: &AttentionShape) -> impl Iterator<Item = bool> {
    [false, true]
        .into_iter()
        .take(if has_hopper_kernel(gpu, shape) { 2 } else { 1 })
}

/// What the kernels make of it: `o`, `lse` and `dqkv`.
pub(super) fn run(
    gpu: &Gpu,
    shape: AttentionShape,
    qkv: &[bf16],
    d_o: &[bf16],
    table: Option<&RopeTable>,
    hopper: bool,
) -> (Vec<bf16>, Vec<f32>, Vec<bf16>) {
    run_dropped(gpu, shape, None, qkv, d_o, table, hopper)
}

/// The same with dropout, which no kernel of Hopper's own has.
pub(super) fn run_dropped(
    gpu: &Gpu,
    shape: AttentionShape,
    dropout: Option<&Dropout<'_>>,
    qkv: &[bf16],
    d_o: &[bf16],
    table: Option<&RopeTable>,
    hopper: bool,
) -> (Vec<bf16>, Vec<f32>, Vec<bf16>) {
    let (qkv, d_o) = (gpu.upload(qkv).unwrap(), gpu.upload(d_o).unwrap());
    let (o, dqkv) = (gpu.poisoned(d_o.len()).unwrap(), gpu.poisoned(qkv.len()).unwrap());
    let (lse, delta) = (gpu.poisoned(shape.rows()).unwrap(), gpu.poisoned(shape.rows()).unwrap());
    attention_by(gpu, shape, dropout, &qkv, &o, &lse, hopper).unwrap();
    attention_backward_by(gpu, shape, dropout, &qkv, &o, &lse, &d_o, table, &delta, &dqkv, hopper).unwrap();
    (
        gpu.download(&o).unwrap(),
        gpu.download(&lse).unwrap(),
        gpu.download(&dqkv).unwrap(),
    )
}

fn check(gpu: &Gpu, shape: AttentionShape, state: &mut u64, scale: f32) {
    let qkv = random(state, shape.tokens() * shape.qkv_row(), scale);
    let d_o = random(state, shape.tokens() * shape.o_row(), 1.0);
    let expected = reference(&shape, None, &qkv, &d_o);
    for hopper in paths(gpu, &shape) {
        let found = run(gpu, shape, &qkv, &d_o, None, hopper);
        compare(
            &format!("{shape:?}, Hopper's {hopper}"),
            &shape,
            &found,
            &expected,
            scale,
        );
    }
}

pub(super) fn compare(
    what: &str,
    shape: &AttentionShape,
    (o, lse, dqkv): &(Vec<bf16>, Vec<f32>, Vec<bf16>),
    expected: &Reference,
    scale: f32,
) {
    let error = distance(o, &expected.o);
    assert!(error < 5e-3, "{what}: o is {error} off");
    for (i, (l, r)) in lse.iter().zip(&expected.lse).enumerate() {
        assert!((f64::from(*l) - r).abs() < 1e-3, "{what}: lse[{i}] is {l}, not {r}");
    }
    // Queries, keys and values each, lest a large one hide a small one.
    let (q, kv) = (shape.o_row(), shape.kv_heads * shape.head_dim);
    for (name, columns) in [("dq", 0..q), ("dk", q..q + kv), ("dv", q + kv..q + 2 * kv)] {
        let part = |from: &[bf16]| -> Vec<bf16> {
            from.chunks(shape.qkv_row())
                .flat_map(|row| row[columns.clone()].to_vec())
                .collect()
        };
        let expected = expected
            .dqkv
            .chunks(shape.qkv_row())
            .flat_map(|row| row[columns.clone()].to_vec());
        let error = distance(&part(dqkv), &expected.collect::<Vec<_>>());
        // With large scores p is nearly one key's, and do·v − delta a difference of near equals, of which delta is from an o that was rounded to bf16.
        let bound = if scale > 1.0 { 2.5e-2 } else { 1e-2 };
        assert!(error < bound, "{what}: {name} is {error} off");
    }
}

pub(super) fn shape_of(batch: usize, seq: usize, heads: usize, kv_heads: usize, head_dim: usize) -> AttentionShape {
    AttentionShape {
        batch,
        seq,
        heads,
        kv_heads,
        head_dim,
    }
}

pub(super) fn is_emulated(gpu: &Gpu) -> bool {
    gpu.properties().name.contains("emulated")
}

#[test]
fn it_is_what_the_formulas_say() {
    let Some(gpu) = Gpu::for_test("attention against f64") else {
        return;
    };
    let mut state = seed();
    let sizes: &[usize] = if is_emulated(&gpu) {
        &[1, 7, 65, 130]
    } else {
        &[1, 7, 64, 65, 127, 130, 300, 520]
    };
    for &seq in sizes {
        for (heads, kv_heads) in [(1, 1), (4, 2), (8, 1)] {
            if is_emulated(&gpu) && heads == 8 && seq > 65 || seq > 200 && heads != 4 {
                continue;
            }
            for head_dim in [16, 32, 64, 80, 128_usize] {
                // The reference is slow.
                if seq > 200 && !head_dim.is_multiple_of(64) {
                    continue;
                }
                check(&gpu, shape_of(2, seq, heads, kv_heads, head_dim), &mut state, 1.0);
            }
        }
    }
}

#[test]
fn large_scores_do_not_overflow() {
    let Some(gpu) = Gpu::for_test("attention with large scores") else {
        return;
    };
    let mut state = seed();
    // Scores of a standard deviation of 12 and 100: maxima that rise by much from step to step, and rows with one key that counts.
    for scale in [4.0, 11.0] {
        for head_dim in [64, 128] {
            check(&gpu, shape_of(1, 200, 2, 1, head_dim), &mut state, scale);
        }
    }
}

#[test]
fn it_is_what_the_cpu_computes() {
    let Some(gpu) = Gpu::for_test("attention against the CPU's") else {
        return;
    };
    let mut state = seed();
    let shape = shape_of(1, 100, 4, 2, 64);
    let qkv = random(&mut state, shape.tokens() * shape.qkv_row(), 1.5);
    let d_o = random(&mut state, shape.tokens() * shape.o_row(), 1.0);
    let (o, lse, dqkv) = run(&gpu, shape, &qkv, &d_o, None, has_hopper_kernel(&gpu, &shape));

    let on_cpu = cpu::AttentionShape {
        seq: 100,
        heads: 4,
        kv_heads: 2,
        head_dim: 64,
    };
    let columns = |from: &[bf16], row: usize, range: std::ops::Range<usize>| -> Vec<f32> {
        from.chunks(row)
            .flat_map(|r| r[range.clone()].iter().map(|x| x.to_f32()).collect::<Vec<_>>())
            .collect()
    };
    let ranges = [0..256, 256..384, 384..512];
    let [q, k, v] = ranges.clone().map(|range| columns(&qkv, 512, range));
    let d_o = columns(&d_o, 256, 0..256);
    let (mut out, mut sums) = (vec![0.0; q.len()], vec![0.0; 400]);
    let mut scratch = vec![0.0; cpu::scratch_len(&on_cpu)];
    let isa = isa::Isa::best();
    cpu::causal_attention(isa, &on_cpu, None, &q, &k, &v, &mut out, &mut sums, &mut scratch);
    let (mut dq, mut dk, mut dv) = (vec![0.0; q.len()], vec![0.0; k.len()], vec![0.0; v.len()]);
    cpu::causal_attention_backward(
        isa,
        &on_cpu,
        None,
        &q,
        &k,
        &v,
        &out,
        &sums,
        &d_o,
        &mut dq,
        &mut dk,
        &mut dv,
        &mut scratch,
    );
    let near = |a: &[f32], b: &[f32], bound: f32, name: &str| {
        let norm = |x: &mut dyn Iterator<Item = f32>| x.map(|x| x * x).sum::<f32>().sqrt();
        let error = norm(&mut a.iter().zip(b).map(|(a, b)| a - b)) / norm(&mut b.iter().copied());
        assert!(error < bound, "{name} is {error} off");
    };
    near(&columns(&o, 256, 0..256), &out, 5e-3, "o");
    near(&lse, &sums, 1e-4, "lse");
    for ((range, expected), name) in ranges.into_iter().zip([dq, dk, dv]).zip(["dq", "dk", "dv"]) {
        near(&columns(&dqkv, 512, range), &expected, 1e-2, name);
    }
}

#[test]
fn equal_inputs_give_equal_bytes() {
    let Some(gpu) = Gpu::for_test("attention, twice") else {
        return;
    };
    let mut state = seed();
    let seq = if is_emulated(&gpu) { 150 } else { 1000 };
    for head_dim in [64, 128] {
        let shape = shape_of(3, seq, 4, 2, head_dim);
        let qkv = random(&mut state, shape.tokens() * shape.qkv_row(), 1.0);
        let d_o = random(&mut state, shape.tokens() * shape.o_row(), 1.0);
        for hopper in paths(&gpu, &shape) {
            let first = run(&gpu, shape, &qkv, &d_o, None, hopper);
            let second = run(&gpu, shape, &qkv, &d_o, None, hopper);
            assert!(
                first.0 == second.0 && first.2 == second.2,
                "head_dim {head_dim}, Hopper's {hopper}"
            );
            assert_eq!(first.1, second.1);
        }
    }
}

#[test]
fn the_rotation_can_be_undone_on_the_way_out() {
    let Some(gpu) = Gpu::for_test("attention's backward with the rotation's") else {
        return;
    };
    let mut state = seed();
    for head_dim in [24, 32, 64, 128] {
        let shape = shape_of(2, 130, 2, 1, head_dim);
        let table = RopeTable::new(&gpu, 1e4, head_dim, 200).unwrap();
        let qkv = random(&mut state, shape.tokens() * shape.qkv_row(), 1.0);
        let d_o = random(&mut state, shape.tokens() * shape.o_row(), 1.0);
        for hopper in paths(&gpu, &shape) {
            let (_, _, apart) = run(&gpu, shape, &qkv, &d_o, None, hopper);
            let apart = gpu.upload(&apart).unwrap();
            rope_backward(&gpu, shape, &table, &apart).unwrap();
            let apart: Vec<f64> = gpu.download(&apart).unwrap().iter().map(|x| x.to_f64()).collect();
            let (_, _, fused) = run(&gpu, shape, &qkv, &d_o, Some(&table), hopper);
            let error = distance(&fused, &apart);
            assert!(error < 4e-3, "head_dim {head_dim}, Hopper's {hopper}: {error} off");
        }
    }
}

#[test]
fn shapes_that_do_not_fit_are_refused() {
    let Some(gpu) = Gpu::for_test("attention's shapes") else {
        return;
    };
    let shape = shape_of(1, 8, 2, 1, 64);
    let (qkv, o) = (gpu.zeros(8 * 256).unwrap(), gpu.zeros(8 * 128).unwrap());
    let lse = gpu.zeros(16).unwrap();
    attention(&gpu, shape, None, &qkv, &o, &lse).unwrap();
    let refused = |shape, o| {
        matches!(
            attention(&gpu, shape, None, &qkv, o, &lse),
            Err(CudaError::Shape { .. })
        )
    };
    assert!(refused(shape, &qkv));
    assert!(refused(shape_of(1, 8, 2, 1, 68), &o));
    assert!(refused(shape_of(1, 8, 2, 0, 64), &o));
    assert!(refused(shape_of(1, 8, 1, 2, 64), &o));
    assert!(refused(shape_of(1, 8, 2, 1, 136), &o));
    let short = RopeTable::new(&gpu, 1e4, 64, 7).unwrap();
    let answer = attention_backward(&gpu, shape, None, &qkv, &o, &lse, &o, Some(&short), &lse, &qkv);
    assert!(matches!(answer, Err(CudaError::Shape { .. })));
    let none = gpu.zeros(0).unwrap();
    attention(
        &gpu,
        shape_of(0, 8, 2, 1, 64),
        None,
        &none,
        &none,
        &gpu.zeros(0).unwrap(),
    )
    .unwrap();
}

/// Seconds of a run: the median of 20, after 3.
pub(crate) fn median(gpu: &Gpu, run: &dyn Fn()) -> f64 {
    (0..3).for_each(|_| run());
    let mut times: Vec<f64> = (0..20)
        .map(|_| {
            let begin = gpu.mark().unwrap();
            run();
            gpu.mark().unwrap().seconds_since(&begin).unwrap()
        })
        .collect();
    times.sort_by(f64::total_cmp);
    times[times.len() / 2]
}
