//! Dropout of probabilities: against the formulas with explicit masks, and which ones are dropped against the CPU.

use half::bf16;
use onebit_kernels_cpu::attention as cpu;
use onebit_kernels_cpu::isa::Isa;
use onebit_kernels_cpu::rng::Key;

use super::tests::{compare, is_emulated, random, reference, run_dropped, seed, shape_of};
use super::*;
use crate::device::Gpu;
use crate::dropout::Dropout;
use crate::rope::RopeTable;

const SEED: u64 = 0x1234_5678_9abc_def0;
const PURPOSE: u32 = 0x6174_746e + 3;
const STEP: u32 = 12;

fn place(p: f32, step: &DeviceArray<u32>) -> Dropout<'_> {
    Dropout {
        p,
        seed: SEED,
        purpose: PURPOSE,
        step,
    }
}

fn key() -> Key {
    Key::new(SEED, PURPOSE, u64::from(STEP))
}

#[test]
fn it_is_what_the_formulas_say() {
    let Some(gpu) = Gpu::for_test("attention with dropout against f64") else {
        return;
    };
    let (mut state, step) = (seed(), gpu.upload(&[STEP]).unwrap());
    // Rows of whole and of broken blocks of four numbers, one tile of queries and more, second warps with nothing and with much to do.
    let sizes: &[usize] = if is_emulated(&gpu) {
        &[1, 7, 65, 130]
    } else {
        &[1, 7, 64, 65, 127, 130, 300]
    };
    for &seq in sizes {
        for (heads, kv_heads) in [(1, 1), (4, 2)] {
            for head_dim in [16, 32, 64, 80, 128] {
                for p in [0.1, 0.5] {
                    // Of a single key the gradient through the softmax is what rounding the output leaves: nothing, if 1/(1 − p) is a power of two.
                    if seq == 1 && p != 0.5 {
                        continue;
                    }
                    if is_emulated(&gpu) && seq == 130 && (p == 0.5 || heads == 1) {
                        continue;
                    }
                    let shape = shape_of(2, seq, heads, kv_heads, head_dim);
                    let qkv = random(&mut state, shape.tokens() * shape.qkv_row(), 1.0);
                    let d_o = random(&mut state, shape.tokens() * shape.o_row(), 1.0);
                    let expected = reference(&shape, Some((p, key())), &qkv, &d_o);
                    let dropout = place(p, &step);
                    let found = run_dropped(&gpu, shape, Some(&dropout), &qkv, &d_o, None, false);
                    compare(&format!("{shape:?}, {p} dropped"), &shape, &found, &expected, 1.0);
                }
            }
        }
    }
}

/// With queries of zero all probabilities of a row are equal, and with rows of the identity as values and as the gradient of the output, outputs and gradients of
/// values are single probabilities.
#[test]
fn the_masks_are_the_cpus() {
    let Some(gpu) = Gpu::for_test("masks of attention's dropout") else {
        return;
    };
    let step = gpu.upload(&[STEP]).unwrap();
    // A number that is `p` itself is kept: of the first head of 128 positions, the third query and the first key.
    let equal = key().uniform(2 * 128);
    for (seq, head_dim, p) in [(32, 32, 0.3), (61, 64, 0.5), (126, 128, 0.1), (128, 128, equal)] {
        let shape = shape_of(3, seq, 2, 2, head_dim);
        let (row, o_row) = (shape.qkv_row(), shape.o_row());
        let is = |yes: bool| bf16::from_f32(f32::from(u8::from(yes)));
        let diagonal = |i: usize, row: usize| i / row % seq == i % head_dim;
        let qkv: Vec<bf16> = (0..shape.tokens() * row)
            .map(|i| is(i % row >= 2 * o_row && diagonal(i, row)))
            .collect();
        let d_o: Vec<bf16> = (0..shape.tokens() * o_row).map(|i| is(diagonal(i, o_row))).collect();
        let dropout = place(p, &step);
        let (o, _, dqkv) = run_dropped(&gpu, shape, Some(&dropout), &qkv, &d_o, None, false);

        let on_cpu = cpu::AttentionShape {
            seq,
            heads: 2,
            kv_heads: 2,
            head_dim,
        };
        let wide = |x: &[bf16]| -> Vec<f32> { x.iter().map(|x| x.to_f32()).collect() };
        let zeros = vec![0.0; seq * o_row];
        let mut dropped = 0;
        for sequence in 0..3 {
            let v = wide(&d_o[sequence * seq * o_row..][..seq * o_row]);
            let (mut out, mut lse) = (zeros.clone(), vec![0.0; 2 * seq]);
            let mut scratch = vec![0.0; cpu::scratch_len(&on_cpu)];
            let dropout = cpu::AttentionDropout {
                p,
                key: key(),
                sequence: sequence as u64,
            };
            let isa = Isa::best();
            cpu::causal_attention(
                isa,
                &on_cpu,
                Some(&dropout),
                &zeros,
                &zeros,
                &v,
                &mut out,
                &mut lse,
                &mut scratch,
            );
            for i in 0..seq {
                for h in 0..2 {
                    for j in 0..=i {
                        let kept = out[i * o_row + h * head_dim + j] != 0.0;
                        let token = |t: usize| sequence * seq + t;
                        let forward = o[token(i) * o_row + h * head_dim + j].to_f32();
                        let backward = dqkv[token(j) * row + 2 * o_row + h * head_dim + i].to_f32();
                        let place = format!("{shape:?}: sequence {sequence}, head {h}, query {i}, key {j}");
                        assert_eq!([forward != 0.0, backward != 0.0], [kept; 2], "{place}");
                        let expected = if kept { 1.0 / (1.0 - p) / (i + 1) as f32 } else { 0.0 };
                        assert!((forward - expected).abs() <= 0.01 * expected, "{place}");
                        assert!((backward - expected).abs() <= 0.01 * expected, "{place}");
                        dropped += usize::from(!kept);
                    }
                }
            }
        }
        let all = (3 * seq * (seq + 1)) as f64;
        let spread = (all * f64::from(p * (1.0 - p))).sqrt();
        assert!((dropped as f64 - all * f64::from(p)).abs() < 5.0 * spread, "{shape:?}");
    }
}

#[test]
fn dropout_is_taken_by_every_path_and_with_a_rotation() {
    let Some(gpu) = Gpu::for_test("paths of attention's dropout") else {
        return;
    };
    let (mut state, step) = (seed(), gpu.upload(&[STEP]).unwrap());
    let dropout = place(0.2, &step);
    for head_dim in [64, 128] {
        let shape = shape_of(1, 90, 2, 1, head_dim);
        let table = RopeTable::new(&gpu, 1e4, head_dim, 90).unwrap();
        let qkv = random(&mut state, shape.tokens() * shape.qkv_row(), 1.0);
        let d_o = random(&mut state, shape.tokens() * shape.o_row(), 1.0);
        let run = |dropout, hopper| run_dropped(&gpu, shape, dropout, &qkv, &d_o, Some(&table), hopper);
        // Hopper's own kernels have none, so they must not be taken.
        let (first, second) = (run(Some(&dropout), false), run(Some(&dropout), true));
        assert!(first.0 == second.0 && first.1 == second.1 && first.2 == second.2);
        let plain = run(None, false);
        assert!(plain.0 != first.0 && plain.2 != first.2);
        assert_eq!(plain.1, first.1, "log-sum-exps are before dropout");
    }
}

#[test]
fn a_probability_outside_its_range_is_refused() {
    let Some(gpu) = Gpu::for_test("attention's probability of dropout") else {
        return;
    };
    let (shape, step) = (shape_of(1, 8, 2, 1, 64), gpu.upload(&[STEP]).unwrap());
    let (qkv, o, lse) = (
        gpu.zeros(8 * 256).unwrap(),
        gpu.zeros(8 * 128).unwrap(),
        gpu.zeros(16).unwrap(),
    );
    for p in [-0.1, 1.0, f32::NAN] {
        let dropout = place(p, &step);
        let forward = attention(&gpu, shape, Some(&dropout), &qkv, &o, &lse);
        assert!(matches!(forward, Err(CudaError::Shape { .. })), "{p}");
        let backward = attention_backward(&gpu, shape, Some(&dropout), &qkv, &o, &lse, &o, None, &lse, &qkv);
        assert!(matches!(backward, Err(CudaError::Shape { .. })), "{p}");
    }
}
