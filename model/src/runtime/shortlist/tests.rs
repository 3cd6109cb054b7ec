//! The bounds, and the answers: the same as the whole head's.

use alloc::vec;
use alloc::vec::Vec;

use half::f16;
use onebit_kernels_cpu::int4_gemv::{self, InputBlock};
use onebit_kernels_cpu::rng::Key;
use onebit_kernels_cpu::{softcap, ternary_gemm};

use super::*;
use crate::runtime::linear::{self, Input, Matrix, Scratch};
use crate::runtime::sketch::Top;
use crate::runtime::{FloatStorage, Serial};

const ROWS: usize = 1000;
const COLS: usize = 96;

fn normal(n: usize, seed: u64) -> Vec<f32> {
    let mut out = vec![0.0; n];
    Key::new(seed, 9, 0).fill_normal(0, &mut out);
    out
}

fn scratch(tokens: usize) -> Vec<Scratch> {
    vec![Scratch {
        sums: vec![0; linear::sums_len(tokens)],
        panel: vec![0; ternary_gemm::scratch_len(COLS)],
        ..Scratch::default()
    }]
}

/// A head of each type that has a shortlist.
fn heads() -> Vec<FloatMatrix> {
    let w: Vec<f32> = normal(ROWS * COLS, 1).into_iter().map(|v| 0.05 * v).collect();
    [
        FloatStorage::F32,
        FloatStorage::F16,
        FloatStorage::Bf16,
        FloatStorage::Int8,
        FloatStorage::Int4,
    ]
    .into_iter()
    .map(|storage| FloatMatrix {
        rows: ROWS,
        cols: COLS,
        values: storage
            .apply(Isa::best(), "head", COLS, FloatValues::F32(w.clone().into()))
            .unwrap(),
    })
    .collect()
}

/// Inputs of a head: noise, spikes, a constant, mostly zeros, one that points at a row, and zeros alone.
fn inputs(head: &FloatMatrix, tokens: usize, seed: u64) -> Vec<f32> {
    let mut x = normal(tokens * COLS, seed);
    for (token, x) in x.chunks_exact_mut(COLS).enumerate() {
        match (token + seed as usize) % 7 {
            1 => x[token % COLS] = 300.0,
            2 => x.fill(0.3),
            3 => x[..COLS - 9].fill(0.0),
            4 => {
                let mut row = vec![0.0; COLS];
                head.copy_row(token * 131 % ROWS, &mut row);
                x.iter_mut().zip(row).for_each(|(x, w)| *x += 60.0 * w);
            }
            5 if token % 3 == 0 => x.fill(0.0),
            _ => {}
        }
    }
    x
}

/// What a head of this type multiplies.
fn prepared(head: &FloatMatrix, isa: Isa, x: &[f32]) -> (Vec<f32>, Vec<InputBlock>) {
    let (mut x, mut blocks) = (x.to_vec(), Vec::new());
    if let FloatValues::Int4 { .. } = head.values {
        blocks = vec![InputBlock::ZERO; x.len() / COLS * int4_gemv::blocks(COLS)];
        int4_gemv::quantize_input(isa, &x, COLS, &mut blocks);
        int4_gemv::dequantize_input(&blocks, COLS, &mut x);
    }
    (x, blocks)
}

fn input<'a>(x: &'a [f32], blocks: &'a [InputBlock]) -> Input<'a> {
    Input {
        blocks,
        ..Input::of_floats(x.len() / COLS, x)
    }
}

/// Every logit, `[tokens, ROWS]`.
fn all(head: &FloatMatrix, isa: Isa, x: Input<'_>, cap: Option<f32>) -> Vec<f32> {
    let mut logits = vec![0.0; x.tokens * ROWS];
    linear::multiply(
        &Serial,
        isa,
        &[Matrix::Float(head)],
        x,
        &mut logits,
        &mut scratch(x.tokens),
    );
    if let Some(cap) = cap {
        softcap::softcap(isa, cap, &mut logits);
    }
    logits
}

#[test]
fn every_path_type_and_number_of_tokens_has_the_winners_of_the_whole_head() {
    let (mut computed, mut searched, mut whole) = (0, 0, 0);
    for head in heads() {
        for isa in Isa::available() {
            let list = Shortlist::build(&Serial, isa, &head).unwrap().unwrap();
            // Room for more tokens than come.
            let mut buffers = ShortlistBuffers::new(&list, 20, 1).unwrap();
            for (tokens, cap) in [(1, None), (3, Some(0.7)), (7, None), (20, Some(30.0))] {
                let x = inputs(&head, tokens, tokens as u64);
                let (x, blocks) = prepared(&head, isa, &x);
                let x = input(&x, &blocks);
                let expected = all(&head, isa, x, cap);
                let except: Vec<u32> = (0..ROWS as u32).filter(|id| id % 11 == 3).chain([5, 5]).collect();
                let tops: Vec<Top<'_>> = (0..tokens)
                    .map(|t| Top {
                        count: [1, 4, 40][t % 3],
                        except: if t % 2 == 0 { &[] } else { &except },
                    })
                    .collect();
                let mut logits = vec![f32::NAN; tokens * ROWS];
                let (scratch, what) = (&mut scratch(tokens), (&head, cap));
                list.search(&Serial, isa, what, x, &tops, &mut buffers, scratch, &mut logits);
                for (t, (found, want)) in logits.chunks_exact(ROWS).zip(expected.chunks_exact(ROWS)).enumerate() {
                    let what = format!("{} {} token {t} of {tokens}", head.values.type_name(), isa.name());
                    let Some(count) = buffers.found[t] else {
                        whole += 1;
                        continue;
                    };
                    let mut counted: Vec<f32> = (0..ROWS as u32)
                        .filter(|id| !tops[t].except.contains(id))
                        .map(|id| want[id as usize])
                        .collect();
                    let (_, least, _) = counted.select_nth_unstable_by(tops[t].count - 1, |a, b| b.total_cmp(a));
                    for (row, (got, want)) in found.iter().zip(want).enumerate() {
                        let there = got.to_bits() == want.to_bits();
                        let lost = *got == f32::NEG_INFINITY && want < least;
                        assert!(there || lost, "{what} row {row}: {got} for {want}");
                    }
                    assert_eq!(found.iter().filter(|v| v.is_finite()).count(), count, "{what}");
                    computed += count;
                    searched += 1;
                }
            }
        }
    }
    // A spike, and zeros, leave nothing to choose by.
    assert!(whole < searched, "{whole} whole heads, {searched} searches");
    assert!(
        computed < searched * ROWS / 12,
        "{computed} rows in {searched} searches"
    );
}

#[test]
fn threads_and_cuts_do_not_change_what_is_found() {
    use crate::runtime::Pool;
    for head in heads() {
        let isa = Isa::best();
        let list = Shortlist::build(&Pool::new(3).unwrap(), isa, &head).unwrap().unwrap();
        let alone = Shortlist::build(&Serial, isa, &head).unwrap().unwrap();
        assert_eq!(
            (&list.bytes, &list.unit, &list.off),
            (&alone.bytes, &alone.unit, &alone.off)
        );
        let x = inputs(&head, 9, 2);
        let (x, blocks) = prepared(&head, isa, &x);
        let tops = [Top { count: 4, except: &[] }; 9];
        let mut buffers = ShortlistBuffers::new(&list, 9, 3).unwrap();
        let mut found = [vec![0.0; 9 * ROWS], vec![0.0; 9 * ROWS]];
        let mut scratches: Vec<Scratch> = (0..3).flat_map(|_| scratch(9)).collect();
        let x = input(&x, &blocks);
        let [one, many] = &mut found;
        let pool = Pool::new(3).unwrap();
        list.search(&Serial, isa, (&head, None), x, &tops, &mut buffers, &mut scratches, one);
        let first = buffers.found.clone();
        list.search(&pool, isa, (&head, None), x, &tops, &mut buffers, &mut scratches, many);
        assert_eq!(first, buffers.found);
        for (found, (one, many)) in first.iter().zip(one.chunks_exact(ROWS).zip(many.chunks_exact(ROWS))) {
            assert!(found.is_none() || one == many, "{}", head.values.type_name());
        }
    }
}

#[test]
fn where_nothing_can_be_ruled_out_the_whole_head_is_asked_for() {
    let head = heads().remove(1);
    let isa = Isa::best();
    let list = Shortlist::build(&Serial, isa, &head).unwrap().unwrap();
    let mut buffers = ShortlistBuffers::new(&list, 5, 1).unwrap();
    let mut x = normal(5 * COLS, 3);
    x[..COLS].fill(0.0);
    x[COLS] = f32::NAN;
    x[2 * COLS] = f32::INFINITY;
    let everything: Vec<u32> = (0..ROWS as u32).collect();
    let mut tops = [Top { count: 4, except: &[] }; 5];
    tops[3].count = 0;
    tops[4].except = &everything;
    let mut logits = vec![0.0; 5 * ROWS];
    let x = Input::of_floats(5, &x);
    list.search(
        &Serial,
        isa,
        (&head, None),
        x,
        &tops,
        &mut buffers,
        &mut scratch(5),
        &mut logits,
    );
    assert_eq!(buffers.found, [None; 5]);
}

#[test]
fn heads_that_have_no_shortlist_say_so() {
    let matrix = |rows, cols, values| FloatMatrix { rows, cols, values };
    let none = |head: &FloatMatrix| Shortlist::build(&Serial, Isa::best(), head).unwrap().is_none();
    assert!(none(&matrix(0, 4, FloatValues::F32(Vec::new().into()))));
    assert!(none(&matrix(
        1,
        2,
        FloatValues::F16(vec![f16::INFINITY, f16::ONE].into())
    )));
    let long = int8_gemv::MAX_COLS + 1;
    assert!(none(&matrix(1, long, FloatValues::F16(vec![f16::ONE; long].into()))));
}
